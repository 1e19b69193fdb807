"""Splices of forget text in retain texts."""

from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from rna.unlearning.defences.windows import Filling, Windows

if TYPE_CHECKING:
    from rna.unlearning.defence import Drawn, Ground, Sample

TRIES = 1000  # windows drawn before it is said that all hold excluded words


@dataclass(kw_only=True)
class Splice(Windows):
    """L_forget + α·mean over t ∉ S of d(f_θ(x̃)_t, f_ref(x̃)_t), with d the method's retain loss and x̃ the retain text
    with windows S of forget text, each as likely as any other."""

    exclude: list[str] = field(default_factory=list)  # words of which no window holds a part

    label = "splices"
    limit = "protects from the tokens of the forget texts that it splices in, and from no others"

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        def fill(size: int) -> list[Filling]:
            return [(token, 0) for token in self.window(ground, size, drawn.source)]

        return [self.spliced(drawn.retain, fill, drawn.source, leading=ground.leading, max_length=ground.max_length)]

    def window(self, ground: "Ground", size: int, source: Random) -> list[int]:
        """So many neighbouring tokens of any forget text; all of a text that has fewer.

        Raises:
            ValueError: where none is found without a part of an excluded word.
        """
        topics = [*ground.forget.values()]
        for _ in range(TRIES):
            place = source.randrange(sum(map(len, topics)))
            for documents in topics:
                if place < len(documents):
                    break
                place -= len(documents)
            ids = documents[place]  # pyright: ignore[reportPossiblyUnboundVariable]
            start = source.randint(first := ground.leading(ids), max(first, len(ids) - size))
            found = ids[start : start + size]
            near = range(max(first, start - 32), min(len(ids), start + size + 32))  # a word has fewer tokens
            banned = ground.of_words([ids[one] for one in near], self.exclude) if self.exclude else set[int]()
            if found and not banned.intersection(range(start - near.start, start - near.start + size)):
                return found
        raise ValueError(f"defence.exclude={self.exclude}: no window of forget text is without these words")
