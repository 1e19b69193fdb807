"""A batch of token ids: padding is on the right, and the mask alone says what is real.

Shapes: B sequences, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass
class Batch:
    """Token ids and the mask of real tokens. Pad tokens may equal real ones (pad = eos): only the mask counts."""

    ids_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids_BT.to(device), self.mask_BT.to(device))

    @property
    def tokens(self) -> int:
        return int(self.mask_BT.sum())

    @property
    def predicts_BT(self) -> Bool[Tensor, "B T"]:
        """The real tokens that a real token follows: where a next token is predicted."""
        followed_BT = self.mask_BT.roll(-1, 1)
        followed_BT[:, -1] = False
        return self.mask_BT & followed_BT


def pad(documents: Sequence[Sequence[int]], pad_id: int) -> Batch:
    """Documents side by side, padded to the longest."""
    longest = max(len(ids) for ids in documents)
    ids_BT = torch.full((len(documents), longest), pad_id)
    mask_BT = torch.zeros(len(documents), longest, dtype=torch.bool)
    for row, ids in enumerate(documents):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        mask_BT[row, : len(ids)] = True
    return Batch(ids_BT, mask_BT)
