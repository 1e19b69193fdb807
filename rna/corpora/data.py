"""Corpora in, documents out: texts from files, each read and judged before a model is loaded, tokenised once."""

import functools
import os
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from rna import NUMERICS
from rna.corpora.cache import Cache
from rna.corpora.documents import Documents, Pair, Texts, lay_texts, tokenise, tokenise_pairs
from rna.corpora.rows import read_rows, whole
from rna.corpora.sources import digest, folded, left_out, model_fingerprint, text_files, text_fingerprint
from rna.settings import JUDGED, REFUSALS, CorpusSettings, Settings, without_defaults

WORD = 256  # characters that no token is longer than
NOWHERE = Cache(None, 0)
LARGE = 2**24  # bytes of files whose reading is kept, and whose documents are tokenised as they are drawn
SPECIAL = 8  # tokens that a tokenizer puts before a text, at most
PARTED = 2  # of `rna.decoder.tokenizer`, by which kept tokens are known; raised where the same files give others


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents of one role, `held_out` of which no training step ever sees."""

    name: str
    documents: Documents
    held_out: Documents
    truncated: int | None  # documents cut at the maximum length; None: not counted, as each is tokenised when drawn
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


@dataclass(frozen=True)
class Corpora:
    """Everything a trial reads: the forget set by topic, the retain set, and the refusals for DPO.

    `behind` are the refusals as they go on behind the questions of a topic of pairs.
    """

    forget: dict[str, Corpus]
    retain: Corpus
    refusals: Corpus | None
    behind: dict[str, Corpus] = field(default_factory=dict)


def validate(settings: Settings, cache: Cache = NOWHERE, known: Collection[str] = ()) -> list[str]:
    """Read every text once, before a model is loaded: each row, each field, enough documents to train on and to judge;
    then say on stderr what was read, and what of it is not used. Of large files that is kept, by their content.

    Args:
        known: lines that were said before, of other settings.

    Returns:
        The lines that are said, and those that would be.

    Raises:
        ValueError: naming the key, the file and the line.
    """
    said: list[str] = []
    tokenizer, judges = _tokenizer(settings), settings.eval.kind == "perplexity"

    def counted(name: str, key: str, corpus: CorpusSettings, *, as_pairs: bool, least: int) -> Tally:
        files = text_files(corpus.path, key, corpus.files, corpus.hub_files)

        def count() -> Tally:
            return _counted(key, corpus, tokenizer, as_pairs=as_pairs, least=least)

        if not _large(files):
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
        if line not in known:
            print(line, file=sys.stderr, flush=True)
    return said


def _large(files: list[Path]) -> bool:
    return sum(file.stat().st_size for file in files) >= LARGE


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
    """Tokenise the trial's corpora, or find them tokenised; the documents of large files when they are drawn.

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
        if not as_pairs and _large(text_files(corpus.path, key, corpus.files, corpus.hub_files)):
            return untokenised(name, key, corpus, holdout)
        found = tokens(key, corpus, make, *(["pairs"] if as_pairs else []))
        documents = _documents_of(found)
        unanswered, short = (int(found[what]) if what in found else 0 for what in ("unanswered", "short"))
        kept = len(documents) - round(holdout * len(documents))
        _check_batch(f"{key}={corpus.path}", kept, settings.train.batch_size, unanswered, corpus.max_length)
        answer_only = as_pairs and corpus.answer_only
        truncated = int(found["truncated"])
        return Corpus(name, documents[:kept], documents[kept:], truncated, short, unanswered, answer_only)

    def untokenised(name: str, key: str, corpus: CorpusSettings, holdout: float) -> Corpus:
        """Documents that are tokenised when they are drawn; their texts are mapped from the cache."""

        def encode(text: str) -> list[int]:
            return tokenise(tokenizer, iter([text]), max_length=corpus.max_length)["ids"].tolist()

        def used(text: str) -> bool:
            return _length(text, 0, corpus.max_length, lambda: tokenizer, 2) > 0

        identity, read = _identity(corpus, key, hashes, own), Tally()
        found = cache.load("texts", identity, mapped=True)
        if found is None:
            texts = (text for text, _ in _documents(corpus, key, read))
            found = lay_texts(text for text in texts if used(text))
            found |= {"short": torch.tensor(read.documents - len(found["ends"]))}
            cache.save("texts", identity, found)
        documents = Texts(found["letters"], found["ends"], encode, digest(identity))
        kept = len(documents) - round(holdout * len(documents))
        _check_batch(f"{key}={corpus.path}", kept, settings.train.batch_size, 0, corpus.max_length)
        return Corpus(name, documents[:kept], documents[kept:], None, int(found["short"]))

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
