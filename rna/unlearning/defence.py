"""What a defence has to work with: the texts drawn for a step, the trial they belong to, and what it gives back.

Shapes: B sequences, T tokens, D hidden width, M vectors of a bank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from random import Random
from typing import Any

import torch
from torch import Tensor

from rna.corpora import pad
from rna.decoder import Decoder, Pack, SoftTokens, model
from rna.settings import seed_of
from rna.unlearning.step import Reading, Setup

MEASURED = 256  # retain documents that tell a site's mean norm
Texts = Sequence[list[int]]  # as token ids
STATE = "defence"  # of what a trial keeps from step to step, the part that is a defence's


@dataclass(frozen=True)
class Drawn:
    """A batch's texts as they were drawn, as token ids, and a source of random numbers of this batch's own."""

    forget: list[list[int]]
    retain: list[list[int]]
    source: Random


@dataclass
class Sample:
    """Texts for the retain loss, a mean over the tokens that are `counted`; the defaults are texts as they are.

    `soft` names, for each token, the vector that stands in its place, counted from 1 in `Ground.bank`; 0: the
    token's own.
    """

    rows: list[list[int]]
    counted: list[list[bool]] | None = None  # None: every token
    soft: list[list[int]] | None = None
    weight: float = 1.0  # of this sample's loss, in units of α

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows)) if self.counted is None else sum(map(sum, self.counted))


@dataclass
class Bank:
    """Vectors that soft tokens are drawn from, as many at each site: the inputs of these layers, 0 the embedding."""

    sites: tuple[int, ...]
    vectors_MD: Tensor  # site by site; after a step's backward passes their `grad` is there

    @property
    def each(self) -> int:
        return len(self.vectors_MD) // len(self.sites)

    def draw(self, source: Random) -> int:
        """Any of its vectors at any of its sites, counted from 1."""
        return source.randrange(len(self.vectors_MD)) + 1

    def of(self) -> tuple[int, ...]:
        """Each vector's site."""
        return tuple(site for site in self.sites for _ in range(self.each))


@dataclass
class Ground:
    """A trial as its defence sees it."""

    decoder: Decoder
    tokenizer: Any
    setup: Setup
    forget: Mapping[str, Texts]  # the forget texts, by topic
    retain: Texts
    max_length: int  # tokens of a retain text, at most
    trained: Sequence[int]  # the layers that train
    pad_id: int
    made: dict[str, Any] = field(default_factory=dict, init=False, repr=False)  # by `begin`, and so in no checkpoint
    losses: Callable[[Reading], list[float]] = field(default=lambda _: [], repr=False)  # of the policy as it is now
    bank: Bank | None = field(default=None, init=False)

    @property
    def kept(self) -> dict[str, Any]:
        """What lives through all steps, and in checkpoints: tensors, numbers, and lists and dicts of them."""
        return self.setup.kept.setdefault(STATE, {})

    def source(self, *name: str | int) -> Random:
        """Random numbers of this name, from the trial's seed."""
        return Random(seed_of(self.setup.seed, STATE, *name))

    @cached_property
    def special(self) -> set[int]:
        """The ids of tokens such as BOS, which stand for no text."""
        return set(self.tokenizer.all_special_ids)

    def leading(self, ids: Sequence[int]) -> int:
        """How many special tokens stand before a text."""
        return next((place for place, one in enumerate(ids) if one not in self.special), len(ids))

    def spelled(self, ids: Sequence[int]) -> list[str]:
        """Each token's letters, in lower case and without white space: a word is found where they are joined."""
        return ["".join(self.tokenizer.decode([one]).split()).lower() for one in ids]

    def of_words(self, ids: Sequence[int], words: Sequence[str]) -> set[int]:
        """The places of the tokens of which a letter belongs to one of these words or phrases."""
        wanted = [found for word in words if (found := "".join(word.split()).lower())]
        if not wanted:
            return set()
        parts = self.spelled(ids)
        ends = list(accumulate(map(len, parts)))
        text, places = "".join(parts), set[int]()
        for word in wanted:
            start = text.find(word)
            while start >= 0:
                stop = start + len(word)
                starts = zip([0, *ends], ends, strict=False)
                places |= {place for place, (a, b) in enumerate(starts) if a < stop and b > start}
                start = text.find(word, start + 1)
        return places

    def words_ids(self, words: Sequence[str]) -> set[int]:
        """The ids of all tokens that these words are made of, as they stand at a line's beginning or behind a space."""
        texts = [text for word in words for text in (word, f" {word}")]
        return {one for text in texts for one in self.tokenizer(text, add_special_tokens=False)["input_ids"]}

    def mean_norms(self, sites: Sequence[int]) -> list[float]:
        """The mean norm of what enters each of these layers, which ascend, in retain texts.

        Deviation: the first token of a text is left out: many models put a norm many times that of others there.
        """
        totals, count = [0.0] * len(sites), 0
        for first in range(0, min(len(self.retain), MEASURED), 16):
            batch = pad([self.retain[i] for i in range(first, min(first + 16, len(self.retain)))], self.pad_id)
            batch = batch.to(self.decoder.device)
            count += int(batch.mask_BT[:, 1:].sum())
            with torch.no_grad():
                stream = model.embed(self.decoder, batch)
                for place, site in enumerate(sites):
                    stream = model.advance(self.decoder, stream, site)
                    mask_BT = batch.mask_BT.to(stream.hidden_BTD.device)[:, 1:]
                    totals[place] += stream.hidden_BTD[:, 1:][mask_BT].double().norm(dim=-1).sum().item()
        return [total / count for total in totals]

    def reading(self, sample: Sample, pack: Pack) -> Reading:
        """A sample as the model reads it, on its device."""
        batch = pad(sample.rows, self.pad_id)
        if sample.counted is not None:
            ignored_BT = torch.zeros_like(batch.mask_BT)
            for row, counted in zip(ignored_BT, sample.counted, strict=True):
                row[: len(counted)] = ~torch.tensor(counted)
            batch = replace(batch, ignored_BT=ignored_BT)
        batch, soft = pack(batch), None
        if sample.soft is not None and self.bank is not None:
            index_BT = pad(sample.soft, 0).ids_BT
            soft = SoftTokens(batch, index_BT, self.bank.vectors_MD, self.bank.of())
        return Reading(batch.to(self.decoder.device), soft)
