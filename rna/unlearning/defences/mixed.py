"""Mixed prompts: a forget question beside the retain question (SEPS, arXiv:2505.14832)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import Defence, above

if TYPE_CHECKING:
    from rna.unlearning.defence import Drawn, Ground, Sample

LOOKED = 512  # documents of a corpus, of which each must hold a question


@dataclass(kw_only=True)
class Mixed(Defence):
    """L_forget + α·(L_retain + w·L_mixed): the retain loss on a retain question and its answer, with a forget question
    before it or between it and its answer, as likely one as the other, beside the usual one.

    A question is what stands in a text before `mark`.

    Deviation: the paper's training term also says what the forget question is to be answered with, which here is the
    method's own affair.
    """

    weight: float = above(0)  # w
    mark: str = "Answer:"

    label = "mixed prompts"
    limit = "protects questions beside forget questions, and a forget-token is less than that"

    def begin(self, ground: "Ground") -> None:
        corpora = {f"data.topics.{topic}": one for topic, one in ground.forget.items()} | {"data.retain": ground.retain}
        for key, documents in corpora.items():
            without = sum(self.question(ground, ids) is None for ids in documents[:LOOKED])
            if without:
                raise ValueError(
                    f"defence=mixed: {without} of the first {min(LOOKED, len(documents))} texts of {key} hold no "
                    f"'{self.mark}' (defence.mark) with an answer behind it; allowed with corpora of questions alone"
                )

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        from rna.unlearning.defence import Sample

        rows: list[list[int]] = []
        counted: list[list[bool]] = []
        for forget, retain in zip(drawn.forget, drawn.retain, strict=True):
            parts = [(retain, True)]
            asked, own = self.question(ground, forget), self.question(ground, retain)
            if asked is not None and own is not None:
                other = forget[ground.leading(forget) : asked][: ground.max_length // 2]
                place = own if drawn.source.random() < 0.5 else ground.leading(retain)
                parts = [(retain[:place], True), (other, False), (retain[place:], True)]
            rows.append([one for part, _ in parts for one in part][: ground.max_length])
            counted.append([counts for part, counts in parts for _ in part][: ground.max_length])
        return [Sample(drawn.retain), Sample(rows, counted, weight=self.weight)]

    def question(self, ground: "Ground", ids: Sequence[int]) -> int | None:
        """How many of a text's tokens stand before its last mark; None where it has none, or nothing behind it."""
        places = sorted(ground.of_words(ids, [self.mark]))
        if not places or places[-1] + 1 >= len(ids):
            return None
        first = places[-1]
        while first - 1 in places:
            first -= 1
        return first if first > ground.leading(ids) else None
