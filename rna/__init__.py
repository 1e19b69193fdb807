"""Random Noise Augmentation: LLM unlearning that stays robust when a forget-token turns up in a harmless question.

`unlearn` a loaded model, `load` a trial's model, list `trials`: nothing heavy is imported before one is asked for.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rna.api import Unlearned as Unlearned
    from rna.api import load as load
    from rna.api import unlearn as unlearn
    from rna.records import trials as trials

__version__ = "0.1.0"
NUMERICS = 3
PLACES = {"Unlearned": "rna.api", "load": "rna.api", "unlearn": "rna.api", "trials": "rna.records"}
__all__ = ["NUMERICS", "Unlearned", "__version__", "load", "trials", "unlearn"]

if sys.platform == "win32":  # locks between processes are the kernel's, by fcntl
    sys.exit("error: rna runs on Linux and macOS; on Windows use WSL")


def __getattr__(name: str) -> Any:
    if name in PLACES:
        return getattr(importlib.import_module(PLACES[name]), name)
    raise AttributeError(f"module 'rna' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
