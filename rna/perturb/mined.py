"""The file of mined n-grams: a row for each n-gram chosen of a document, with its group and its similarity.

`rna.evaluation.ngrams` writes it; the evaluation of their harm, `eval=ngram_similarity`, reads it.
"""

import functools
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Groups = dict[tuple[int, str], list[str]]
GROUPS = ("top", "mean", "bottom")  # by similarity to the document


@contextmanager
def parquet(path: Path, facts: dict[str, Any]) -> Generator[Callable[[list[Row]], None]]:
    """A writer of rows that puts the file in place when all are in, and leaves none after a failure."""
    import pyarrow
    from pyarrow import parquet as files

    text, number = pyarrow.string(), pyarrow.int32()
    columns = {
        "document": number,
        "n": number,
        "group": text,
        "rank": number,
        "ngram": text,
        "score": pyarrow.float32(),
    }
    schema = pyarrow.schema(columns, metadata={"rna.ngrams": json.dumps(facts)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with files.ParquetWriter(temporary, schema) as writer:
            yield lambda rows: writer.write_table(pyarrow.Table.from_pylist(rows, schema)) if rows else None
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_groups(path: str | Path) -> Groups:
    """By (n, group) the distinct n-grams of a mined file, those of the first documents first.

    Raises:
        ValueError: naming `eval.ngrams_path`, if there is no such file, or it holds no n-grams.
    """
    said = f"eval.ngrams_path={path}"
    try:
        status = Path(path).stat()
    except OSError:
        raise ValueError(
            f"{said}: no such file; python -m rna.perturb ngrams DOCUMENTS --output {path} mines one"
        ) from None
    return _read(str(path), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4)
def _read(path: str, _changed: int, _size: int) -> Groups:
    from pyarrow import ArrowException
    from pyarrow import parquet as files

    found: dict[tuple[int, str], dict[str, None]] = {}
    try:
        for batch in files.ParquetFile(path).iter_batches(columns=["n", "group", "ngram"]):
            for row in batch.to_pylist():
                found.setdefault((row["n"], row["group"]), {})[row["ngram"]] = None
    except (ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"eval.ngrams_path={path}: is no file of mined n-grams ({reason})") from None
    if not found:
        raise ValueError(f"eval.ngrams_path={path}: holds no n-gram")
    return {key: list(grams) for key, grams in found.items()}
