"""Corpora in, batches out: texts from files, tokenised once, drawn in an order of their own seed."""

import functools
import hashlib
import os
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, overload

import torch

from rna import NUMERICS
from rna.corpora.batch import Batch, pad
from rna.corpora.cache import Cache
from rna.corpora.rows import read_rows, whole
from rna.corpora.sources import folded, left_out, model_fingerprint, text_files, text_fingerprint
from rna.settings import JUDGED, REFUSALS, CorpusSettings, Settings, without_defaults

WORD = 256  # characters that no token is longer than
NOWHERE = Cache(None, 0)
LARGE = 2**24  # bytes of files whose reading is kept
TOGETHER, LETTERS = 256, 2**19  # texts, and their characters, that are tokenised at once, on all cores
SPECIAL = 8  # tokens that a tokenizer puts before a text, at most
PARTED = 2  # of `rna.decoder.tokenizer`, by which kept tokens are known; raised where the same files give others


class Documents(Sequence[list[int]]):
    """Token ids of many documents end to end: four bytes a token, whatever their number.

    Args:
        starts: of question-answer pairs, the token with which each answer begins.
        prompts: of pairs, how many tokens stand before it and the white space in front of it, which one token may hold.
    """

    def __init__(
        self,
        ids: torch.Tensor,
        lengths: torch.Tensor,
        starts: torch.Tensor | None = None,
        prompts: torch.Tensor | None = None,
    ) -> None:
        self.ids, self.ends, self.starts, self.prompts = ids, lengths.cumsum(0), starts, prompts

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
            starts, prompts = (one[first:last] if one is not None else None for one in (self.starts, self.prompts))
            return Documents(self.ids[start : start + stop], ends.diff(prepend=ends.new_zeros(1)), starts, prompts)
        place = range(len(self))[index]
        return self.ids[int(self.ends[place - 1]) if place else 0 : int(self.ends[place])].tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def digest(self) -> str:
        """A hash of all tokens and lengths, and of where answers begin."""
        hashed = hashlib.sha256(self.ids.numpy().tobytes())
        hashed.update(self.ends.numpy().tobytes())
        hashed.update(self.starts.numpy().tobytes() if self.starts is not None else b"")
        return hashed.hexdigest()[:16]


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents of one role, `held_out` of which no training step ever sees."""

    name: str
    documents: Documents
    held_out: Documents
    truncated: int  # documents cut at the maximum length
    short: int = 0  # documents left out, as there is nothing to predict in a single token
    unanswered: int = 0  # pairs left out, as the maximum length cuts their whole answer away
    answer_only: bool = False  # log π counts the answers alone


@dataclass
class Tally:
    """What was read, as far as a user should know."""

    documents: int = 0
    blank: int = 0
    halves: int = 0  # documents with half a character
    chats: int = 0
    short: int = 0  # documents of a single token, and
    unanswered: int = 0  # pairs without an answer within the maximum length: neither is used
    judged: bytearray = field(default_factory=bytearray)  # of each other document, whether a perplexity is had of it


def read_texts(corpus: CorpusSettings, key: str, tally: Tally | None = None) -> Iterator[str]:
    """Texts that are not blank, or `longer_than` what is asked, in file order: a line of a .txt file, a row's `field`
    of another, a question-answer pair in its template. Of a chat the contents, each behind a line's end.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without the field or whose field is no text.
    """
    return (text for text, _ in _documents(corpus, key, tally or Tally()))


T = TypeVar("T")
Pair = tuple[str, int]  # a text, and the character of it with which the answer begins; 0 for what is no pair


def _documents(corpus: CorpusSettings, key: str, tally: Tally) -> Iterator[Pair]:
    columns = [corpus.question, corpus.answer] if corpus.question and corpus.answer else [corpus.field]
    for where, row in read_rows(corpus.path, columns, key, **corpus.read()):
        try:
            parts = [_text(row[name], name, tally) for name in columns]
        except ValueError as error:
            raise ValueError(f"{key}={corpus.path}: {where}: {error}") from None
        text, place = parts[0].strip() if corpus.strip else parts[0], 0
        if not (len(text) > corpus.longer_than if corpus.longer_than is not None else all(map(str.strip, parts))):
            tally.blank += 1
            continue
        if corpus.pairs():
            text, place = in_template(corpus.template, *parts)
        tally.documents += 1
        yield text[: corpus.characters], place


def _text(value: Any, field: str, tally: Tally) -> str:
    """A field's text; of a chat, a list of messages with `content`, the contents, one a line."""
    if isinstance(value, list) and value and all(isinstance(item, dict) and "content" in item for item in value):
        contents = [item["content"] for item in value]
        tally.chats += all(isinstance(content, str) for content in contents)
        value = "\n".join(contents) if all(isinstance(content, str) for content in contents) else value
    if not isinstance(value, str):
        found = "null" if value is None else f"of type {type(value).__name__}"
        raise ValueError(f"the field '{field}' is {found}, and must be text")
    tally.halves += (mended := whole(value)) is not value
    return mended


def in_template(template: str, question: str, answer: str) -> Pair:
    """A pair as one text, and where in it the answer begins."""
    before, _, rest = template.partition("{question}")
    between, _, behind = rest.partition("{answer}")
    prompt = before + question + between
    return prompt + answer + behind, len(prompt)


def tokenise(tokenizer: Any, texts: Iterator[str], *, max_length: int) -> dict[str, torch.Tensor]:
    """Token ids of each document of two tokens or more, cut at `max_length`: `ids` end to end, `lengths`, how many
    documents were cut, `truncated`, and how many were less than two tokens, `short`. The texts are read as they are
    wanted.
    """
    ids, lengths, truncated, short = array("i"), array("i"), 0, 0
    for found in (row for batch in _together(texts, len) for row in _encoded(tokenizer, batch)["input_ids"]):
        if len(found) < 2:
            short += 1
            continue
        truncated += len(found) > max_length
        ids.extend(found[:max_length])
        lengths.append(min(len(found), max_length))
    return _packed(ids=ids, lengths=lengths) | {"truncated": torch.tensor(truncated), "short": torch.tensor(short)}


def tokenise_pairs(tokenizer: Any, pairs: Iterable[Pair], *, max_length: int) -> dict[str, torch.Tensor]:
    """As `tokenise`, with `starts` and `prompts` as `Documents` has them, and how many pairs were left out because
    nothing of their answer is within `max_length`, `unanswered`.

    A text's tokens are those of the whole of it; an answer begins with the first that holds a character of it.
    """
    ids, lengths, starts, prompts = array("i"), array("i"), array("i"), array("i")
    truncated, unanswered = 0, 0
    for (text, place), found, offsets in _encoded_pairs(tokenizer, pairs):
        ends, bare = [end for _, end in offsets], len(text[:place].rstrip())
        start, prompt = (next((i for i, end in enumerate(ends) if end > stop), len(ends)) for stop in (place, bare))
        if max(start, 1) >= min(len(found), max_length):
            unanswered += 1
            continue
        truncated += len(found) > max_length
        ids.extend(found[:max_length])
        lengths.append(min(len(found), max_length))
        starts.append(start)
        prompts.append(prompt)
    counts = {"truncated": torch.tensor(truncated), "unanswered": torch.tensor(unanswered)}
    return _packed(ids=ids, lengths=lengths, starts=starts, prompts=prompts) | counts


def _encoded_pairs(tokenizer: Any, pairs: Iterable[Pair]) -> Iterator[tuple[Pair, list[int], list[tuple[int, int]]]]:
    """Each pair with its tokens and where in the text each of them begins and ends."""
    for batch in _together(pairs, lambda pair: len(pair[0])):
        made = _encoded(tokenizer, [text for text, _ in batch], return_offsets_mapping=True)
        yield from zip(batch, made["input_ids"], made["offset_mapping"], strict=True)


def _encoded(tokenizer: Any, texts: list[str], **more: bool) -> Any:
    bare = {"return_attention_mask": False, "return_token_type_ids": False}
    return tokenizer(texts, add_special_tokens=True, verbose=False, **bare, **more)


def _together(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """The items in batches as large as `TOGETHER` and `LETTERS` let them be."""
    batch: list[T] = []
    letters = 0
    for item in items:
        batch.append(item)
        letters += size(item)
        if len(batch) == TOGETHER or letters >= LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def _packed(**parts: "array[int]") -> dict[str, torch.Tensor]:
    return {
        name: torch.frombuffer(part, dtype=torch.int32) if part else torch.empty(0, dtype=torch.int32)
        for name, part in parts.items()
    }


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


@dataclass(frozen=True)
class Corpora:
    """Everything a trial reads: the forget set by topic, the retain set, and the refusals for DPO.

    `behind` are the refusals as they go on behind the questions of a topic of pairs.
    """

    forget: dict[str, Corpus]
    retain: Corpus
    refusals: Corpus | None
    behind: dict[str, Corpus] = field(default_factory=dict)


def validate(settings: Settings, cache: Cache = NOWHERE) -> None:
    """Read every text once, before a model is loaded: each row, each field, enough documents to train on and to judge;
    then say on stderr what was read, and what of it is not used. Of large files that is kept, by their content.

    Raises:
        ValueError: naming the key, the file and the line.
    """
    said: list[str] = []
    tokenizer, judges = _tokenizer(settings), settings.eval.kind == "perplexity"

    def counted(name: str, key: str, corpus: CorpusSettings, *, as_pairs: bool, least: int) -> Tally:
        files = text_files(corpus.path, key, corpus.files, corpus.hub_files)

        def count() -> Tally:
            return _counted(key, corpus, tokenizer, as_pairs=as_pairs, least=least)

        if sum(file.stat().st_size for file in files) < LARGE:
            tally = count()
        else:
            model = settings.judged()
            read = _identity(
                corpus, key, settings.hashes(), model_fingerprint(model.path, model.revision, settings.hashes())
            )
            tally = _kept(cache, [*read, as_pairs, least], count)
        said.append(_said(name, key, corpus, files, tally))
        return tally

    for key, corpus in settings.data.corpora().items():
        as_pairs = corpus.pairs() and key != "data.retain"
        tally = counted(key, f"{key}.path", corpus, as_pairs=as_pairs, least=JUDGED if judges else 2)
        count = tally.documents
        kept = count - round(settings.data.holdout * count)
        if kept < settings.train.batch_size:
            held = f" after data.holdout={settings.data.holdout}" if settings.data.holdout else ""
            raise ValueError(
                f"{key}.path={corpus.path}: has {kept} documents{held}, fewer than one batch; "
                f"allowed: at least train.batch_size={settings.train.batch_size}"
            )
        kept = len(tally.judged) - round(settings.data.holdout * len(tally.judged))
        _check_batch(f"{key}.path={corpus.path}", kept, settings.train.batch_size, tally.unanswered, corpus.max_length)
        if judges:
            _check_judged(f"{key}.path={corpus.path}", settings.data.holdout, tally.judged)
    if settings.method.refusals:
        corpus = refusals(settings)
        tally = counted("data.refusals", "data.refusals", corpus, as_pairs=False, least=2)
        if tally.documents < settings.train.batch_size:
            raise ValueError(
                f"data.refusals={corpus.path}: has {tally.documents} lines, fewer than one batch; "
                f"allowed: at least train.batch_size={settings.train.batch_size}"
            )
        _check_batch(f"data.refusals={corpus.path}", len(tally.judged), settings.train.batch_size, 0, corpus.max_length)
    for line in said:
        print(line, file=sys.stderr, flush=True)


def _identity(corpus: CorpusSettings, key: str, hashes: Path | None, model: str) -> list[Any]:
    """All that a corpus's tokens depend on: the texts, how they are read, and by what they are tokenised."""
    source = text_fingerprint(corpus.path, key, corpus.files, hashes, corpus.hub_files)
    bare = without_defaults(replace(corpus, path="", files=None, hub_files=None))
    return [NUMERICS, [model, tokenizers_version(), PARTED], source, bare]


def _kept(cache: Cache, identity: list[Any], count: Callable[[], Tally]) -> Tally:
    """A tally from the cache, or counted and kept there."""
    found = cache.load("tally", identity)
    if found is not None:
        return Tally(*found["counts"].tolist(), judged=bytearray(found["judged"].numpy().tobytes()))
    tally = count()
    counts = [getattr(tally, one.name) for one in fields(Tally) if one.name != "judged"]
    judged = torch.frombuffer(tally.judged, dtype=torch.uint8) if tally.judged else torch.empty(0, dtype=torch.uint8)
    cache.save("tally", identity, {"counts": torch.tensor(counts), "judged": judged})
    return tally


def _counted(key: str, corpus: CorpusSettings, tokenizer: Callable[[], Any], *, as_pairs: bool, least: int) -> Tally:
    """Read a corpus.

    Args:
        least: tokens that make a document one to judge.
    """
    tally = Tally()
    for text, place in _documents(corpus, key, tally):
        length = _length(text, place if as_pairs else 0, corpus.max_length, tokenizer, least)
        if length:
            tally.judged.append(length >= least)
        elif as_pairs:
            tally.unanswered += 1
        else:
            tally.short += 1
    return tally


def _said(name: str, key: str, corpus: CorpusSettings, files: list[Path], tally: Tally) -> str:
    """What there is to say of how many documents are in which files."""
    top = Path(os.path.commonpath([file.parent for file in files]))
    names = folded([str(file.relative_to(top)) for file in files])
    said = f"{name}: {_many(tally.documents, 'document')} from {_many(len(files), 'file')} ({names})"
    beside = left_out(corpus.path, key, corpus.files, corpus.hub_files)
    said += f", {_many(len(beside), 'file')} beside not read ({folded(beside)})" if beside else ""
    said += f", {tally.short} of a single token not used" if tally.short else ""
    unanswered = f"{tally.unanswered} without an answer within max_length={corpus.max_length} not used"
    said += f", {unanswered}" if tally.unanswered else ""
    said += f", {_many(tally.blank, 'blank row')} left out" if tally.blank else ""
    said += f", the contents of {_many(tally.chats, 'chat')} joined by line" if tally.chats else ""
    return said + (f", U+FFFD put for half a character in {_many(tally.halves, 'text')}" if tally.halves else "")


def _length(text: str, place: int, max_length: int, tokenizer: Callable[[], Any], least: int) -> int:
    """How many tokens of a document are used, or at least are: 0 of one that is left out.

    A text is tokenised only where its words, its characters and the place of its answer leave it open whether there
    are `least` of them.
    """
    surely = len(text.split()) if len(text) <= least * WORD else least
    answered = len(text[:place].encode()) + SPECIAL < max_length if place else True
    if surely >= least and answered:
        return min(surely, max_length)
    made_by = tokenizer()
    if made_by is None:
        return least
    if place:
        made = tokenise_pairs(made_by, [(text, place)], max_length=max_length)
    else:
        made = tokenise(made_by, iter([text]), max_length=max_length)
    return sum(made["lengths"].tolist())


def _tokenizer(settings: Settings) -> Callable[[], Any]:
    """The model's tokenizer without the model, loaded when it is wanted first; None where it cannot be."""

    @functools.cache
    def loaded() -> Any:
        from transformers import AutoTokenizer

        where = settings.model.path
        options: dict[str, Any] = {"revision": settings.model.revision or "main", "trust_remote_code": False}
        if where.endswith(".gguf"):
            where, options["gguf_file"] = str(Path(where).parent), Path(where).name
        try:
            return AutoTokenizer.from_pretrained(where, **options)
        except Exception:  # of many kinds; what is wrong with it is said where the model is loaded
            return None

    return loaded


def _check_batch(said: str, kept: int, batch_size: int, unanswered: int, max_length: int) -> None:
    """Refuse fewer documents to train on, of those that are used, than one batch."""
    if kept < batch_size:
        cut = f", {unanswered} have no answer within max_length={max_length}" if unanswered else ""
        raise ValueError(
            f"{said}: has {kept} documents of two tokens or more to train on, fewer than one batch{cut}; "
            f"allowed: at least train.batch_size={batch_size}"
        )


def _check_judged(said: str, holdout: float, judged: bytearray) -> None:
    """Refuse fewer held-out documents than an interval needs, or fewer that are long enough.

    Args:
        judged: of each document, whether it is long enough.
    """
    held_out, count = round(holdout * len(judged)), len(judged)
    if held_out < 2:
        raise ValueError(
            f"{said}: data.holdout={holdout} leaves {held_out or 'none'} of its {count} documents to "
            f"eval=perplexity, whose intervals need 2; give data.holdout={2 / count:.2g} or more"
        )
    if (long := sum(judged[-held_out:])) < 2:
        more = ", or raise data.holdout" if sum(judged) > 2 else ""
        raise ValueError(
            f"{said}: of its {held_out} held-out documents {long or 'none'} has {JUDGED} tokens or more, and "
            f"eval=perplexity needs 2 such; give longer documents (of a .txt file each line is one){more}"
        )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def refusals(settings: Settings) -> CorpusSettings:
    return CorpusSettings(path=settings.data.refusals or str(REFUSALS))


def load(settings: Settings, tokenizer: Any, cache: Cache) -> Corpora:
    """Tokenise the trial's corpora, or find them tokenised.

    Raises:
        ValueError: if there are fewer documents of two tokens or more than one batch.
    """
    hashes = settings.hashes()
    model = settings.judged()
    own = model_fingerprint(model.path, model.revision, hashes)

    def tokens(key: str, corpus: CorpusSettings, make: Callable[[], dict[str, torch.Tensor]], *more: Any) -> Any:
        identity = [*_identity(corpus, key, hashes, own), *more]
        found = cache.load("tokens", identity)
        if found is None or ("short" not in found and "unanswered" not in found):  # of a version that did not count
            found = make()
            cache.save("tokens", identity, found)
        return found

    def read(name: str, key: str, corpus: CorpusSettings, holdout: float) -> Corpus:
        def make() -> dict[str, torch.Tensor]:
            if not as_pairs:
                return tokenise(tokenizer, read_texts(corpus, key), max_length=corpus.max_length)
            if not tokenizer.is_fast:
                raise ValueError(
                    f"{key.removesuffix('.path')}.answer={corpus.answer}: where answers begin only a tokenizer with a "
                    f"tokenizer.json tells, and the model's is a {type(tokenizer).__name__}; give texts (field)"
                )
            return tokenise_pairs(tokenizer, _documents(corpus, key, Tally()), max_length=corpus.max_length)

        as_pairs = corpus.pairs() and name.startswith("forget/")  # of retain samples every token counts
        found = tokens(key, corpus, make, *(["pairs"] if as_pairs else []))
        documents = _documents_of(found)
        unanswered, short = (int(found[what]) if what in found else 0 for what in ("unanswered", "short"))
        kept = len(documents) - round(holdout * len(documents))
        _check_batch(f"{key}={corpus.path}", kept, settings.train.batch_size, unanswered, corpus.max_length)
        answer_only = as_pairs and corpus.answer_only
        truncated = int(found["truncated"])
        return Corpus(name, documents[:kept], documents[kept:], truncated, short, unanswered, answer_only)

    def behind(template: str) -> Corpus:
        """Refusals without what stands before them: their tokens as they follow a question in this template."""

        def make() -> dict[str, torch.Tensor]:
            pairs = (in_template(template, "x", text) for text in read_texts(idk_settings, "data.refusals"))
            return tokenise_pairs(tokenizer, pairs, max_length=idk_settings.max_length)

        found = tokens("data.refusals", idk_settings, make, "behind", template)
        rows = [ids[size:] for ids, size in zip(_documents_of(found), found["prompts"].tolist(), strict=True)]
        ids = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int32)
        documents = Documents(ids, lengths, found["starts"] - found["prompts"])
        return Corpus("refusals", documents, documents[:0], 0)

    forget = {
        topic: read(f"forget/{topic}", f"data.topics.{topic}.path", corpus, settings.data.holdout)
        for topic, corpus in settings.data.topics.items()
    }
    retain = read("retain", "data.retain.path", settings.data.retain, settings.data.holdout)
    if not settings.method.refusals:
        return Corpora(forget, retain, None)
    idk_settings = refusals(settings)
    idk = read("refusals", "data.refusals", idk_settings, 0.0)
    if settings.data.max_refusals is not None:
        idk = replace(idk, documents=idk.documents[: settings.data.max_refusals])
    pairs = {topic: corpus for topic, corpus in settings.data.topics.items() if corpus.pairs()}
    return Corpora(forget, retain, idk, {topic: behind(corpus.template) for topic, corpus in pairs.items()})


def _documents_of(found: dict[str, torch.Tensor]) -> Documents:
    return Documents(found["ids"], found["lengths"], found.get("starts"), found.get("prompts"))


def tokenizers_version() -> list[str]:
    return [version("transformers"), version("tokenizers")]
