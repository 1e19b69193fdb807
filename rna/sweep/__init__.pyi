from .ledger import Trial as Trial
from .pool import Pool as Pool
from .pool import WorkerDied as WorkerDied
