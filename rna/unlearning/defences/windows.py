"""Windows of other tokens in a text, at random places: what splices and soft tokens have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from rna.settings import Defence, at_least

if TYPE_CHECKING:
    from rna.unlearning.defence import Sample

Filling = tuple[int, int]  # a token, and its vector, 0 for the token's own


@dataclass(kw_only=True)
class Windows(Defence):
    """A text with k ~ U{1, …, `windows`} windows of 1 to `size` tokens, which policy and reference read and the retain
    loss does not count: it is a mean over the text's own tokens."""

    windows: int = at_least(1)
    size: int = at_least(1)

    def spliced(
        self,
        texts: Sequence[Sequence[int]],
        fill: Callable[[int], list[Filling]],
        source: Random,
        *,
        leading: Callable[[Sequence[int]], int],
        max_length: int,
        in_place: float = 0.0,
    ) -> "Sample":
        """Each text with its windows.

        Args:
            fill: what stands in a window of so many tokens.
            leading: how many of a text's first tokens stay first.
            max_length: tokens at which a text is cut.
            in_place: the share of windows that stand in place of tokens, no more than every second, not between them.
        """
        from rna.unlearning.defence import Sample

        rows: list[list[tuple[int, bool, int]]] = []
        for ids in texts:
            first = leading(ids)
            between: dict[int, list[Filling]] = {}
            instead: dict[int, Filling] = {}
            for _ in range(source.randint(1, self.windows) if first < len(ids) else 0):
                filling = fill(source.randint(1, self.size))
                room = (len(ids) - first) // 2 - len(instead)
                if in_place and source.random() < in_place and len(filling) <= room:
                    start = source.randint(first, len(ids) - len(filling))
                    instead |= {start + place: one for place, one in enumerate(filling)}
                else:
                    between.setdefault(source.randint(first, len(ids) - 1), []).extend(filling)
            row: list[tuple[int, bool, int]] = []
            for place, own in enumerate(ids):
                fillings = [*between.get(place, []), *([instead[place]] if place in instead else [])]
                for token, vector in fillings:
                    row.append((token, False, vector))
                if place not in instead:
                    row.append((own, True, 0))
            row = row[:max_length]
            rows.append(row if any(counts for _, counts, _ in row) else [(own, True, 0) for own in ids])
        soft = [[vector for _, _, vector in row] for row in rows]
        return Sample(
            [[token for token, _, _ in row] for row in rows],
            [[counts for _, counts, _ in row] for row in rows],
            soft if any(map(any, soft)) else None,
        )
