"""The paper's theory and claims, measured. In: a base model and trials. Out: tables, a figure and a verdict.

Open `findings.py` first; `command.py` is `python -m rna.analyze`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
