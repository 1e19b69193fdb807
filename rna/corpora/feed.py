"""Batches without end, of documents in an order of their own seed."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rna.corpora.batch import Batch, pad
from rna.corpora.documents import Documents


class Feed:
    """Batches without end: each pass over the documents in a fresh random order, none left out, none repeated.

    Args:
        shuffled: if not, every pass is in file order.
        official: pad on the left and count padding, as the authors' released code does.
        answer_only: log π counts the documents from their answers on.
    """

    def __init__(
        self,
        documents: Sequence[list[int]],
        *,
        batch_size: int,
        pad_id: int,
        generator: torch.Generator,
        shuffled: bool = True,
        official: bool = False,
        answer_only: bool = False,
    ) -> None:
        self.documents, self.batch_size, self.pad_id, self.generator = documents, batch_size, pad_id, generator
        self.shuffled, self.official, self.answer_only = shuffled, official, answer_only
        self.order: list[int] = []
        self.drawn = 0  # batches so far

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        return self.batch(self.draw())

    def draw(self) -> list[int]:
        """The numbers of the next batch's documents."""
        while len(self.order) < self.batch_size:
            count = len(self.documents)
            self.order += torch.randperm(count, generator=self.generator).tolist() if self.shuffled else range(count)
        chosen, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        self.drawn += 1
        return chosen

    def batch(self, chosen: list[int]) -> Batch:
        starts = self.starts(chosen) if self.answer_only else None
        return pad([self.documents[index] for index in chosen], self.pad_id, official=self.official, starts=starts)

    def starts(self, chosen: list[int]) -> list[int]:
        """Where the answers of these documents, which must be pairs, begin."""
        assert isinstance(self.documents, Documents)
        assert self.documents.starts is not None
        return self.documents.starts[chosen].tolist()

    def behind(self, feed: "Feed", chosen: list[int], *, max_length: int) -> Batch:
        """The next of these refusals behind the questions of the pairs that were chosen from another feed."""
        assert isinstance(feed.documents, Documents)
        assert feed.documents.prompts is not None
        drawn, sizes = self.draw(), feed.documents.prompts[chosen].tolist()
        prompts = [feed.documents[index][:size] for index, size in zip(chosen, sizes, strict=True)]
        starts = [size + start for size, start in zip(sizes, self.starts(drawn), strict=True)]
        rows = [  # of which a token of the refusal is left
            (prompt + self.documents[index])[: max(max_length, start + 1)]
            for prompt, index, start in zip(prompts, drawn, starts, strict=True)
        ]
        return pad(rows, self.pad_id, starts=starts if feed.answer_only else None)

    def state(self) -> dict[str, Any]:
        """Where the feed stands, for a checkpoint."""
        return {"order": self.order, "drawn": self.drawn, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.order, self.drawn = state["order"], state["drawn"]
        self.generator.set_state(state["generator"])
