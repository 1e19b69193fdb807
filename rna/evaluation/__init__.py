"""Judging. In: a `Decoder` as it stands, and questions or texts. Out: metrics by task.

Open `evaluate.py` first.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
