"""The command line's own words. In: the files of `conf/`, read as text. Out: help, and what the shell may complete.

Neither Hydra nor torch is loaded. Open `tree.py` first: options, keys, and what each says of itself.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
