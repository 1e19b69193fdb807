"""A batch of token ids: padding is on the right, and the mask alone says what is real.

Shapes: B sequences, T tokens, N real tokens laid end to end; R rows of a packing.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

PAYS = 0.95  # of a padded batch's cost, what a packed one may cost


@dataclass(frozen=True)
class Packing:
    """A batch's sequences end to end in fewer rows, in their order, each with positions of its own.

    Where positions begin anew a model of transformers takes a new sequence to begin, which attends to itself alone.
    What is left of a row is one more such sequence, not real.
    """

    ids_RT: Int[Tensor, "R T"]
    positions_RT: Int[Tensor, "R T"]
    mask_RT: Bool[Tensor, "R T"]

    def to(self, device: torch.device) -> "Packing":
        return Packing(self.ids_RT.to(device), self.positions_RT.to(device), self.mask_RT.to(device))


@dataclass
class Batch:
    """Token ids and the mask of real tokens. Pad tokens may equal real ones (pad = eos): only the mask counts.

    `starts`, where there are any, say for each sequence with which token log π begins to count: a pair's answer.
    `counted_BT` are the tokens that losses are means over: the real ones but for the `ignored`, and all in the variant
    `official`.
    """

    ids_BT: Int[Tensor, "B T"]
    mask_BT: Bool[Tensor, "B T"]
    counts_padding: bool = False
    starts: list[int] | None = None
    packing: Packing | None = None  # how a model reads it; None: as it is, padded
    ignored_BT: Bool[Tensor, "B T"] | None = None  # tokens that are read and do not count
    weights_BT: Float[Tensor, "B T"] | None = None  # of tokens in a forget loss; None: all alike

    def to(self, device: torch.device) -> "Batch":
        return replace(
            self,
            ids_BT=self.ids_BT.to(device),
            mask_BT=self.mask_BT.to(device),
            packing=self.packing and self.packing.to(device),
            ignored_BT=None if self.ignored_BT is None else self.ignored_BT.to(device),
            weights_BT=None if self.weights_BT is None else self.weights_BT.to(device),
        )

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

    def packed(self, key_cost: float, *, one_row: bool = False) -> "Batch":
        """The same, read in the rows in which it costs least; as it is where that would save next to nothing.

        Args:
            key_cost: of a key that a token attends to, in units of all that a token costs but for attention.
            one_row: the sequences are all in one row, and attend at no cost to others' keys.
        """
        assert not self.counts_padding
        lengths = self.mask_BT.sum(1).tolist()
        rows, longest = len(lengths), max(lengths)
        if one_row:
            chosen, least = [rows], sum(lengths) / (rows * longest)
        else:
            padded = rows * longest * (1 + key_cost * longest)
            ways = [_filled(lengths, count) for count in range(1, rows)]
            costs = [len(way) * size * (1 + key_cost * size) / padded for size, way in ways]
            least, chosen = min(zip(costs, (way for _, way in ways), strict=True), default=(1.0, []))
        return replace(self, packing=self._laid(chosen, lengths)) if rows > 1 and least < PAYS else self

    def _laid(self, rows: list[int], lengths: list[int]) -> Packing:
        """The packing with so many sequences a row."""
        ends = list(accumulate(rows))
        parts = [slice(end - count, end) for end, count in zip(ends, rows, strict=True)]
        size = max(sum(lengths[part]) for part in parts)
        shape = (len(rows), size)
        ids_RT, positions_RT = torch.zeros(shape, dtype=self.ids_BT.dtype), torch.zeros(shape, dtype=torch.long)
        mask_RT = torch.zeros(shape, dtype=torch.bool)
        for row, part in enumerate(parts):
            used = sum(lengths[part])
            ids_RT[row, :used] = self.ids_BT[part][self.mask_BT[part]]
            places = [torch.arange(length) for length in (*lengths[part], size - used)]
            positions_RT[row] = torch.cat(places)
            mask_RT[row, :used] = True
        return Packing(ids_RT, positions_RT, mask_RT)

    def of(self, values: Shaped[Tensor, "rows tokens *more"], keep_BT: Bool[Tensor, "B T"]) -> Tensor:
        """Of values as a model gives them, padded or packed, those of the kept tokens, sequence by sequence."""
        if self.packing is None:
            return values[keep_BT.to(values.device)]
        return values[self.packing.mask_RT.to(values.device)][keep_BT[self.mask_BT].to(values.device)]

    def padded(self, values: Shaped[Tensor, "rows tokens *more"]) -> Tensor:
        """Values as a model gives them, as they are in a padded batch, with zeros for what is not real."""
        if self.packing is None:
            return values
        mask_BT = self.mask_BT.to(values.device)
        found = values.new_zeros(*mask_BT.shape, *values.shape[2:])
        found[mask_BT] = values[self.packing.mask_RT.to(values.device)]
        return found

    def as_read(self, values: Shaped[Tensor, "B T *more"]) -> Tensor:
        """Values of a padded batch as a model reads it: what `padded` undoes."""
        if self.packing is None:
            return values
        mask_RT = self.packing.mask_RT.to(values.device)
        found = values.new_zeros(*mask_RT.shape, *values.shape[2:])
        found[mask_RT] = values[self.mask_BT.to(values.device)]
        return found

    @property
    def tokens(self) -> int:
        return int(self.counted_BT.sum())

    @property
    def counted_BT(self) -> Bool[Tensor, "B T"]:
        if self.counts_padding:
            return torch.ones_like(self.mask_BT)
        return self.mask_BT if self.ignored_BT is None else self.mask_BT & ~self.ignored_BT

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


def _filled(lengths: list[int], rows: int) -> tuple[int, list[int]]:
    """The smallest size of at most so many rows that hold neighbours of these lengths, and how many each holds."""
    sums = list(accumulate(lengths, initial=0))
    sizes = sorted({end - start for index, start in enumerate(sums) for end in sums[index + 1 :]})

    def counts(size: int) -> list[int]:
        found, room = [0], size
        for length in lengths:
            if length > room:
                found.append(0)
                room = size
            found[-1] += 1
            room -= length
        return found

    fits = [size for size in sizes if size >= max(lengths)]
    size = fits[bisect_left(fits, True, key=lambda size: len(counts(size)) <= rows)]
    return size, counts(size)
