"""Records. In: settings, metrics. Out: keys that say what a record depends on, and records that are written once.

Open `results.py` first.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
