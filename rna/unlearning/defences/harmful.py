"""Harm-weighted splices: what breaks retain texts most is spliced in most often."""

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from rna.settings import above, at_least
from rna.unlearning.defences import pools
from rna.unlearning.defences.windows import Filling, Windows

if TYPE_CHECKING:
    from rna.unlearning.defence import Drawn, Ground, Sample

BATCH = 32  # texts that are scored at once
RATIO, LEAST = 4.0, 5  # of a token's relative frequencies in forget and retain texts; of its count in forget texts


@dataclass(kw_only=True)
class Harmful(Windows):
    """L_forget + α·mean over t ∉ S of d(f_θ(x̃)_t, f_ref(x̃)_t), with d the method's retain loss and x̃ the retain text
    with windows S of tokens that stand in forget more than in retain texts.

    A token is drawn ∝ `floor` + x/mean x. x is an exponential average (½) of the retain loss of a text with that token
    spliced in, less the lowest, scored anew every `every` steps, `scored` tokens of the pool at a time.
    """

    exclude: list[str] = field(default_factory=list)  # words of which the pool holds no part
    every: int = at_least(1)
    scored: int = at_least(1)
    floor: float = above(0)

    label = "harm-weighted splices"
    limit = "protects from the tokens of the forget texts that it splices in, and from no others"

    def begin(self, ground: "Ground") -> None:
        ground.made["pool"] = pool = pool_of(ground, self.exclude)
        ground.kept.update(losses=[None] * len(pool), steps=0, next=0, scored_at=-1)

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        kept, source = ground.kept, drawn.source
        if kept["steps"] % self.every == 0 and kept["scored_at"] != kept["steps"]:
            self._score(ground, drawn.retain[0], source)
        weights = self.weights(kept["losses"])

        def fill(size: int) -> list[Filling]:
            return [(token, 0) for token in source.choices(ground.made["pool"], weights, k=size)]

        return [self.spliced(drawn.retain, fill, source, leading=ground.leading, max_length=ground.max_length)]

    def weights(self, losses: list[float | None]) -> list[float]:
        """How likely each token of the pool is drawn, but for a factor; one not scored yet as one of mean excess."""
        known = [loss for loss in losses if loss is not None]
        mean = sum(known) / len(known) - min(known)
        excess = [mean if loss is None else loss - min(known) for loss in losses]
        return [self.floor + (one / mean if mean > 0 else 1.0) for one in excess]

    def _score(self, ground: "Ground", text: list[int], source: Random) -> None:
        """Bring the averages of the next tokens of the pool up to date, each from this text with it at one place."""
        from rna.unlearning.defence import Sample

        kept = ground.kept
        pool, losses = ground.made["pool"], kept["losses"]
        places = [(kept["next"] + step) % len(pool) for step in range(min(self.scored, len(pool)))]
        first = ground.leading(text)
        at = source.randint(first, max(first, len(text) - 1))
        for start in range(0, len(places), BATCH):
            part = places[start : start + BATCH]
            rows = [[*text[:at], pool[place], *text[at:]] for place in part]
            counted = [[one != at for one in range(len(text) + 1)] for _ in part]
            found = ground.losses(ground.reading(Sample(rows, counted), lambda batch: batch))
            for place, loss in zip(part, found, strict=True):
                losses[place] = loss if losses[place] is None else (losses[place] + loss) / 2
        kept.update(next=(places[-1] + 1) % len(pool), scored_at=kept["steps"])

    def learn(self, ground: "Ground") -> None:
        ground.kept["steps"] += 1


def pool_of(ground: "Ground", exclude: list[str]) -> list[int]:
    """The tokens whose relative frequency in forget texts is at least RATIO times that in retain texts, and whose count
    is at least LEAST; none that is part of an excluded word.

    Raises:
        ValueError: where there is none.
    """
    forget, retain = pools.counted(ground)
    banned = ground.words_ids(exclude)
    ratio = {one: count * retain.total() / (forget.total() * max(retain[one], 1e-9)) for one, count in forget.items()}
    found = [one for one, count in forget.items() if ratio[one] >= RATIO and count >= LEAST and one not in banned]
    if not found:
        raise ValueError(
            f"defence=harmful: no token stands {RATIO:g} times as often in forget as in retain "
            f"texts, and {LEAST} times at all; allowed with other corpora"
        )
    return sorted(found)
