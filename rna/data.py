"""Corpora in, batches out: texts from files, tokenised once, drawn in an order of their own seed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rna.batch import Batch, pad
from rna.config import REFUSALS, CorpusSettings, Settings
from rna.sources import text_files


@dataclass(frozen=True)
class Corpus:
    """Tokenised documents of one role, `held_out` of which no training step ever sees."""

    name: str
    documents: list[list[int]]
    held_out: list[list[int]]
    truncated: int  # documents cut at the maximum length


def read_texts(path: str, field: str, key: str) -> Iterator[str]:
    """Non-empty texts, in file order: a line of a .txt file, a row's `field` of a .jsonl or .parquet file.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without the field or a line that is not JSON.
    """
    for file in text_files(path, key):
        try:
            for text in READERS[file.suffix](file, field):
                if text.strip():
                    yield text
        except UnicodeDecodeError as error:
            raise ValueError(f"{key}={path}: {file.name} is not UTF-8 text (byte {error.start})") from None
        except ValueError as error:
            raise ValueError(f"{key}={path}: {error}") from None
        except OSError as error:
            raise ValueError(f"{key}={path}: {file.name} cannot be read ({error.strerror})") from None


def _read_txt(file: Path, _field: str) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as lines:
        for line in lines:
            yield line.rstrip("\n")


def _text(value: Any, field: str, where: str) -> str:
    if not isinstance(value, str):
        found = "null" if value is None else f"of type {type(value).__name__}"
        raise ValueError(f"{where}: the field '{field}' is {found}, and must be text")
    return value


def _read_jsonl(file: Path, field: str) -> Iterator[str]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{file.name}, line {number} is not JSON ({error.msg})") from None
            where = f"{file.name}, line {number}"
            if not isinstance(row, dict) or field not in row:
                found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
                raise ValueError(f"{where} has no text field '{field}' (found: {found}); set the corpus's field")
            yield _text(row[field], field, where)


def _read_parquet(file: Path, field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        if field not in table.schema_arrow.names:
            found = ", ".join(table.schema_arrow.names)
            raise ValueError(f"{file.name} has no column '{field}' (found: {found}); set the corpus's field")
        values = (value for batch in table.iter_batches(columns=[field]) for value in batch.column(0).to_pylist())
        for number, value in enumerate(values, 1):
            yield _text(value, field, f"{file.name}, row {number}")
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} is not a sound parquet file ({' '.join(str(error).split())})") from None


READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}


def tokenise(
    tokenizer: Any, texts: Iterator[str], *, name: str, max_length: int, holdout: float, batch_size: int
) -> Corpus:
    """Tokenise documents, cut at `max_length` tokens, the last `holdout` of them kept from training.

    Raises:
        ValueError: if there are fewer documents of two tokens or more than one batch.
    """
    documents: list[list[int]] = []
    truncated = 0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"]
        truncated += len(ids) > max_length
        if len(ids) > 1:
            documents.append(ids[:max_length])
    kept = len(documents) - round(holdout * len(documents))
    if kept < batch_size:
        raise ValueError(
            f"data: '{name}' has {kept} documents of two tokens or more to train on, "
            f"fewer than train.batch_size={batch_size}"
        )
    return Corpus(name, documents[:kept], documents[kept:], truncated)


def batches(documents: list[list[int]], *, batch_size: int, pad_id: int, generator: torch.Generator) -> Iterator[Batch]:
    """Batches without end: each pass over the documents in a fresh random order, none left out, none repeated."""
    order: list[int] = []
    while True:
        while len(order) < batch_size:
            order += torch.randperm(len(documents), generator=generator).tolist()
        yield pad([documents[index] for index in order[:batch_size]], pad_id)
        order = order[batch_size:]


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
        count = sum(1 for _ in read_texts(corpus.path, corpus.field, f"{key}.path"))
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
        count = sum(1 for _ in read_texts(refusals_path(settings), "text", "data.refusals"))
        if count < settings.train.batch_size:
            raise ValueError(
                f"data.refusals={refusals_path(settings)}: has {count} lines, fewer than one batch; "
                f"allowed: at least train.batch_size={settings.train.batch_size}"
            )


def refusals_path(settings: Settings) -> str:
    return settings.data.refusals or str(REFUSALS)


def load(settings: Settings, tokenizer: Any) -> Corpora:
    """Tokenise the trial's corpora."""
    options: dict[str, Any] = {"holdout": settings.data.holdout, "batch_size": settings.train.batch_size}

    def read(name: str, key: str, corpus: CorpusSettings) -> Corpus:
        texts = read_texts(corpus.path, corpus.field, f"{key}.path")
        return tokenise(tokenizer, texts, name=name, max_length=corpus.max_length, **options)

    forget = {
        topic: read(f"forget/{topic}", f"data.topics.{topic}", corpus) for topic, corpus in settings.data.topics.items()
    }
    retain = read("retain", "data.retain", settings.data.retain)
    if settings.method.name != "dpo":
        return Corpora(forget, retain, None)
    texts = read_texts(refusals_path(settings), "text", "data.refusals")
    options["holdout"] = 0.0
    return Corpora(forget, retain, tokenise(tokenizer, texts, name="refusals", max_length=512, **options))
