"""Sharpness-aware minimisation of the forget loss: its gradient where the loss is highest nearby."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

from rna.decoder import Deltas


@contextmanager
def uphill(policy: Deltas, rho: float) -> Generator[None]:
    """θ + ρ·g/‖g‖ in the place of θ, with g the gradients that are there, gone in the block; θ to the bit after it.

    arXiv:2502.05374, of the forget loss alone; SAM itself is arXiv:2010.01412, Eq. 2. The gradients of the block stay.
    """
    slopes = {name: tensor.grad for name, tensor in policy.items() if tensor.grad is not None}
    norm = torch.nn.utils.get_total_norm(slopes.values())
    before = {name: policy[name].detach().clone() for name in slopes}
    with torch.no_grad():
        for name, slope in slopes.items():
            policy[name] += rho * slope / norm.to(slope.device)
            policy[name].grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in before.items():
                policy[name].copy_(tensor)
