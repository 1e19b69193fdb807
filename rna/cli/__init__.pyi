from .completion import candidates as candidates
from .completion import script as script
from .help import asked as asked
from .help import overview as overview
