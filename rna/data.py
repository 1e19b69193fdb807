"""Corpora in, batches out: texts from files, tokenised once, drawn in an order of their own seed."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, overload

import torch

from rna import NUMERICS
from rna.batch import Batch, pad
from rna.cache import Cache
from rna.rows import read_rows
from rna.settings import REFUSALS, CorpusSettings, Settings, without_defaults
from rna.sources import model_fingerprint, text_fingerprint


class Documents(Sequence[list[int]]):
    """Token ids of many documents end to end: four bytes a token, whatever their number."""

    def __init__(self, ids: torch.Tensor, lengths: torch.Tensor) -> None:
        self.ids, self.ends = ids, lengths.cumsum(0)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> "Documents": ...
    def __getitem__(self, index: int | slice) -> "list[int] | Documents":
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            assert step == 1
            start = int(self.ends[first - 1]) if first else 0
            ends = self.ends[first:last] - start
            stop = int(ends[-1]) if len(ends) else 0
            return Documents(self.ids[start : start + stop], ends.diff(prepend=ends.new_zeros(1)))
        place = range(len(self))[index]
        return self.ids[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def digest(self) -> str:
        """A hash of all tokens and lengths."""
        hashed = hashlib.sha256(self.ids.numpy().tobytes())
        hashed.update(self.ends.numpy().tobytes())
        return hashed.hexdigest()[:16]


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents of one role, `held_out` of which no training step ever sees."""

    name: str
    documents: Documents
    held_out: Documents
    truncated: int  # documents cut at the maximum length


def read_texts(corpus: CorpusSettings, key: str) -> Iterator[str]:
    """Texts that are not blank, or `longer_than` what is asked, in file order: a line of a .txt file, a row's `field`
    of a .jsonl or .parquet file.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without the field or whose field is no text.
    """
    for where, row in read_rows(corpus.path, [corpus.field], key, pattern=corpus.files, raw=corpus.raw):
        text = row[corpus.field]
        if not isinstance(text, str):
            found = "null" if text is None else f"of type {type(text).__name__}"
            raise ValueError(f"{key}={corpus.path}: {where}: the field '{corpus.field}' is {found}, and must be text")
        text = text.strip() if corpus.strip else text
        if len(text) > corpus.longer_than if corpus.longer_than is not None else text.strip():
            yield text[: corpus.characters]


def tokenise(tokenizer: Any, texts: Iterator[str], *, max_length: int) -> dict[str, torch.Tensor]:
    """Token ids of each document of two tokens or more, cut at `max_length`: `ids` end to end, `lengths`, and how many
    documents were cut, `truncated`. The texts are read one at a time."""
    ids, lengths, truncated = array("i"), array("i"), 0
    for text in texts:
        found = tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
        truncated += len(found) > max_length
        if len(found) > 1:
            ids.extend(found[:max_length])
            lengths.append(min(len(found), max_length))
    packed = {
        name: torch.frombuffer(part, dtype=torch.int32) if part else torch.empty(0, dtype=torch.int32)
        for name, part in (("ids", ids), ("lengths", lengths))
    }
    return {**packed, "truncated": torch.tensor(truncated)}


class Feed:
    """Batches without end: each pass over the documents in a fresh random order, none left out, none repeated.

    Args:
        shuffled: if not, every pass is in file order.
        official: pad on the left and count padding, as the authors' released code does.
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
    ) -> None:
        self.documents, self.batch_size, self.pad_id, self.generator = documents, batch_size, pad_id, generator
        self.shuffled, self.official = shuffled, official
        self.order: list[int] = []
        self.drawn = 0  # batches so far

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while len(self.order) < self.batch_size:
            count = len(self.documents)
            self.order += torch.randperm(count, generator=self.generator).tolist() if self.shuffled else range(count)
        chosen, self.order = self.order[: self.batch_size], self.order[self.batch_size :]
        self.drawn += 1
        return pad([self.documents[index] for index in chosen], self.pad_id, official=self.official)

    def state(self) -> dict[str, Any]:
        """Where the feed stands, for a checkpoint."""
        return {"order": self.order, "drawn": self.drawn, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.order, self.drawn = state["order"], state["drawn"]
        self.generator.set_state(state["generator"])


@dataclass(frozen=True)
class Corpora:
    """Everything a trial reads: the forget set by topic, the retain set, and the refusals for DPO."""

    forget: dict[str, Corpus]
    retain: Corpus
    refusals: Corpus | None


def validate(settings: Settings) -> None:
    """Read every text once, before a model is loaded: each row, each field, and at least a batch of documents.

    Raises:
        ValueError: naming the key, the file and the line.
    """
    for key, corpus in settings.data.corpora().items():
        count = sum(1 for _ in read_texts(corpus, f"{key}.path"))
        held_out = round(settings.data.holdout * count)
        kept = count - held_out
        if kept < settings.train.batch_size:
            held = f" after data.holdout={settings.data.holdout}" if settings.data.holdout else ""
            raise ValueError(
                f"{key}.path={corpus.path}: has {kept} documents{held}, fewer than one batch; "
                f"allowed: at least train.batch_size={settings.train.batch_size}"
            )
        if settings.eval.kind == "perplexity" and not held_out:
            raise ValueError(
                f"{key}.path={corpus.path}: data.holdout={settings.data.holdout} leaves none of its {count} documents "
                "to eval=perplexity; raise data.holdout"
            )
    if settings.method.name == "dpo":
        count = sum(1 for _ in read_texts(refusals(settings), "data.refusals"))
        if count < settings.train.batch_size:
            raise ValueError(
                f"data.refusals={refusals(settings).path}: has {count} lines, fewer than one batch; "
                f"allowed: at least train.batch_size={settings.train.batch_size}"
            )


def refusals(settings: Settings) -> CorpusSettings:
    return CorpusSettings(path=settings.data.refusals or str(REFUSALS))


def load(settings: Settings, tokenizer: Any, cache: Cache) -> Corpora:
    """Tokenise the trial's corpora, or find them tokenised.

    Raises:
        ValueError: if there are fewer documents of two tokens or more than one batch.
    """
    hashes = settings.hashes()
    made_by = [model_fingerprint(settings.model.path, settings.model.revision, hashes), tokenizers_version()]

    def read(name: str, key: str, corpus: CorpusSettings, holdout: float) -> Corpus:
        source = text_fingerprint(corpus.path, key, corpus.files, hashes)
        identity = [NUMERICS, made_by, source, without_defaults(replace(corpus, path="", files=None))]
        found = cache.load("tokens", identity)
        if found is None:
            texts = read_texts(corpus, key)
            found = tokenise(tokenizer, texts, max_length=corpus.max_length)
            cache.save("tokens", identity, found)
        documents = Documents(found["ids"], found["lengths"])
        kept = len(documents) - round(holdout * len(documents))
        if kept < settings.train.batch_size:
            raise ValueError(
                f"{key}={corpus.path}: has {kept} documents of two tokens or more to train on, "
                f"fewer than one batch; allowed: at least train.batch_size={settings.train.batch_size}"
            )
        return Corpus(name, documents[:kept], documents[kept:], int(found["truncated"]))

    forget = {
        topic: read(f"forget/{topic}", f"data.topics.{topic}.path", corpus, settings.data.holdout)
        for topic, corpus in settings.data.topics.items()
    }
    retain = read("retain", "data.retain.path", settings.data.retain, settings.data.holdout)
    idk = read("refusals", "data.refusals", refusals(settings), 0.0) if settings.method.name == "dpo" else None
    if idk is not None and settings.data.max_refusals is not None:
        idk = replace(idk, documents=idk.documents[: settings.data.max_refusals])
    return Corpora(forget, retain, idk)


def tokenizers_version() -> list[str]:
    return [version("transformers"), version("tokenizers")]
