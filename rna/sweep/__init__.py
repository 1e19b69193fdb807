"""Many trials. In: cells of a sweep. Out: files that say how each trial stands, whatever is killed.

Open `ledger.py` first; `commands.py` is `python -m rna.sweep`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
