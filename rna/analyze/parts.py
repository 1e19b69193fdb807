"""Many samples through a model, as many at once as fit: a budget of tokens, halved whenever they do not.

Shapes: S samples, `...` what a sample is; its last dimension is a token's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Tokens at once by type of device. On a 7B shape (noise at layer 7, float32, texts of 512 tokens) 8,192 tokens forward
# take 2 GiB beside weights and draws, 1,024 with a backward pass 7.5 and 512 of second order 21, where the 64 draws and
# what is made of them take up to 3 (`python tests/bench/analyses.py`).
FORWARD = {"cpu": 2048, "cuda": 8192}  # values alone, and forward-mode derivatives of one layer
GRADIENT = {"cpu": 1024, "cuda": 1024}  # a backward pass, which keeps what every layer made
SECOND_ORDER = {"cpu": 512, "cuda": 512}  # forward-mode derivatives of a backward pass


def run(function: Callable[..., Tensor], *stacks: Tensor, at_once: dict[str, int]) -> Tensor:
    """`function` of one or more stacks of samples, all together in effect: it must take each sample on its own.

    Args:
        at_once: tokens by type of device that go through together; one sample always does.

    Raises:
        torch.OutOfMemoryError: if a single sample does not fit.
    """
    first = stacks[0]
    tokens = max(1, first[0].numel() // first.shape[-1])
    size, start = max(1, at_once[first.device.type] // tokens), 0
    found: list[Tensor] = []
    while start < len(first):
        part = [stack[start : start + size] for stack in stacks]
        try:
            found.append(function(*part))
        except torch.OutOfMemoryError:
            if len(part[0]) == 1:
                raise
            size = 0
        if size:
            start += size
        else:  # behind the except block, which holds on to the failed pass's tensors
            size = len(part[0]) // 2
            torch.cuda.empty_cache()
    return torch.cat(found)
