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
    """Token ids and the mask of real tokens. Pad tokens may equal real ones (pad = eos): only the mask counts.

    `starts`, where there are any, say for each sequence with which token log π begins to count: a pair's answer.
    `counted_BT` are the tokens that losses are means over: the real ones, and all in the variant `official`.
    """

    ids_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]
    counts_padding: bool = False
    starts: list[int] | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.ids_BT.to(device), self.mask_BT.to(device), self.counts_padding, self.starts)

    def cut(self, length: int) -> "Batch":
        """The first `length` tokens of each sequence, those of the longest sequence where padding is on the left."""
        lengths_B = self.mask_BT.sum(1)
        if int(lengths_B.max()) <= length:
            return self
        rows = [ids[mask][:length].tolist() for ids, mask in zip(self.ids_BT, self.mask_BT, strict=True)]
        padding = self.ids_BT[~self.mask_BT]
        return pad(rows, int(padding[0]) if len(padding) else 0, official=self.counts_padding, starts=self.starts)

    def unmasked(self) -> "Batch":
        """The same with padding taken for real."""
        return Batch(self.ids_BT, torch.ones_like(self.mask_BT), self.counts_padding, self.starts)

    @property
    def tokens(self) -> int:
        return int(self.counted_BT.sum())

    @property
    def counted_BT(self) -> Bool[Tensor, "B T"]:
        return torch.ones_like(self.mask_BT) if self.counts_padding else self.mask_BT

    @property
    def predicts_BT(self) -> Bool[Tensor, "B T"]:
        """The counted tokens that a counted token follows, one that log π counts: where a next token is predicted."""
        followed_BT = self.counted_BT.roll(-1, 1)
        followed_BT[:, -1] = False
        predicts_BT = self.counted_BT & followed_BT
        if self.starts is None:
            return predicts_BT
        start_B1 = torch.tensor(self.starts, device=predicts_BT.device)[:, None]
        return predicts_BT & (torch.arange(1, predicts_BT.shape[1] + 1, device=predicts_BT.device) >= start_B1)


def pad(
    documents: Sequence[Sequence[int]], pad_id: int, *, official: bool = False, starts: list[int] | None = None
) -> Batch:
    """Documents side by side, padded to the longest on the right; with `official`, on the left, and counted."""
    assert not (official and starts)
    longest = max(len(ids) for ids in documents)
    ids_BT = torch.full((len(documents), longest), pad_id)
    mask_BT = torch.zeros(len(documents), longest, dtype=torch.bool)
    for row, ids in enumerate(documents):
        place = slice(longest - len(ids), longest) if official else slice(0, len(ids))
        ids_BT[row, place] = torch.tensor(ids)
        mask_BT[row, place] = True
    return Batch(ids_BT, mask_BT, official, starts)
