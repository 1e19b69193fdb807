"""Python as an entry. In: a loaded model and texts, or a KEY. Out: what the command line would have made of them.

`rna.unlearn`, `rna.load` and `rna.trials` lead here. Open `unlearned.py` first.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
