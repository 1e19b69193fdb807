"""95 % intervals. In: scores, each with what it says of single questions or documents. Out: an `Estimate`.

Every interval on screen, leaderboard, page and model card is `estimate`'s, or `over_seeds`'s where seeds differ.
Open `estimate.py` first; `answers` has the words.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
