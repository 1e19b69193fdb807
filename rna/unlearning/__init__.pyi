from .checkpoint import Checkpoint as Checkpoint
from .noise import Normals as Normals
from .noise import Smoothing as Smoothing
from .noise import standard_deviation as standard_deviation
from .step import Setup as Setup
from .step import Step as Step
from .step import direction as direction
