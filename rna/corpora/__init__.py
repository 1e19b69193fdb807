"""Texts. In: files, folders and hub data sets. Out: `Corpora` of tokens, and `Batch`es of them in a seeded order.

Open `data.py` first.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
