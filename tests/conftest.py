"""No network, one thread, and every function of `rna` checked against its types and tensor shapes."""

import os

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "offline",
    "TQDM_DISABLE": "1",
}

import hypothesis
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)
install_import_hook("rna", "beartype.beartype")
hypothesis.settings.register_profile("rna", database=None, deadline=None)
hypothesis.settings.load_profile("rna")
