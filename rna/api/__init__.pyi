from .loaded import load as load
from .unlearned import Unlearned as Unlearned
from .unlearned import unlearn as unlearn
