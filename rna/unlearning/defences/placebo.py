"""The placebo of splices: as many tokens, as frequent, of retain text."""

from bisect import bisect_left
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from rna.unlearning.defences import pools
from rna.unlearning.defences.splice import Splice

if TYPE_CHECKING:
    from rna.unlearning.defence import Ground


@dataclass(kw_only=True)
class Placebo(Splice):
    """As `Splice`, with each token of a window exchanged for one that is as frequent in retain texts as it is in forget
    texts, and no more frequent in these."""

    label = "placebo"
    limit = "is a control, and protects from nothing"

    def begin(self, ground: "Ground") -> None:
        ground.made["twins"] = twins(ground)

    def window(self, ground: "Ground", size: int, source: Random) -> list[int]:
        return [ground.made["twins"].get(one, one) for one in super().window(ground, size, source)]


def twins(ground: "Ground") -> dict[int, int]:
    """For each token of the forget texts one of the retain texts, as nearly as frequent there as may be.

    Each is taken once as long as there are any, and none that is more frequent in forget than in retain texts.
    """
    forget, retain = pools.counted(ground)
    often = {one: count / retain.total() for one, count in retain.items()}
    free = sorted(
        (one for one in often if forget[one] / forget.total() <= often[one]), key=lambda one: (often[one], one)
    )
    left, found = list(free), dict[int, int]()
    for one, count in sorted(forget.items(), key=lambda item: (-item[1], item[0])):
        wanted = count / forget.total()
        place = bisect_left(left, wanted, key=often.__getitem__)
        near = [at for at in (place - 1, place) if 0 <= at < len(left)]
        found[one] = left.pop(min(near, key=lambda at: abs(often[left[at]] - wanted)))
        left = left or list(free)
    return found
