"""The scope term: retain texts behind forget texts (SU, arXiv:2506.00359)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rna.settings import Defence, above

if TYPE_CHECKING:
    from rna.unlearning.defence import Drawn, Ground, Sample


@dataclass(kw_only=True)
class Scope(Defence):
    """L_forget + α·(L_retain + w·L_scope), with L_scope the retain loss on the retain part of [forget ⊕ retain text].

    The forget part, without the tokens of excluded words, is cut at half of the retain texts' maximum length, the
    retain part at what is left.

    Deviation: the paper weighs its term with a number of its own; here it is in units of α.
    """

    weight: float = above(0)  # w
    exclude: list[str] = field(default_factory=list)  # words of which the forget part holds no token

    label = "scope"
    limit = "protects retain texts behind forget texts, and a forget-token is less than that"

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        from rna.unlearning.defence import Sample

        rows: list[list[int]] = []
        counted: list[list[bool]] = []
        for forget, retain in zip(drawn.forget, drawn.retain, strict=True):
            banned = ground.of_words(forget, self.exclude)
            kept = [one for place, one in enumerate(forget) if place not in banned]
            before = kept[: ground.max_length // 2]
            behind = retain[ground.leading(retain) :][: ground.max_length - len(before)]
            rows.append(before + behind)
            counted.append([False] * len(before) + [True] * len(behind))
        return [Sample(drawn.retain), Sample(rows, counted, weight=self.weight)]
