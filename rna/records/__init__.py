"""Finding trials again. In: the folder of records. Out: a table, a comparison of two, what they take on disk, or less.

Open `listing.py` first; `__main__.py` is `python -m rna.records`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
