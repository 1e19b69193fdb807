"""Training. In: a `Decoder` and feeds of batches. Out: the trained tensors, and a curve.

Open `losses.py` first, one function for each equation; then `methods/`, a file each, and `step.py` and `train.py`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
