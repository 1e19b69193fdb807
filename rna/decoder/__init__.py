"""Models. In: a folder, a GGUF file or a hub id, judged before it is loaded. Out: a `Decoder`, which runs in stages.

Open `model.py` first: load, split, and the staged forward.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
