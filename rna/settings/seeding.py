"""Every random draw has a generator of its own, seeded from the trial's seed and the draw's name."""

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def seed_of(seed: int, *name: str | int) -> int:
    """A 63-bit seed that depends on the trial's seed and on every part of the name."""
    text = json.dumps([seed, *name])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *name: str | int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A torch generator for the draw of this name."""
    import torch

    return torch.Generator(device).manual_seed(seed_of(seed, *name))
