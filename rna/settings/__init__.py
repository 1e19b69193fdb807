"""What a trial is. In: what Hydra composed. Out: `Settings`, typed, resolved and checked.

Open `fields.py` first: every setting with its meaning.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
