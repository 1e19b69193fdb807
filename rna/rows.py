"""Rows of .txt, .jsonl and .parquet files, one after the other, with what to say of a row that will not do."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rna.sources import text_files

Row = dict[str, Any]
Placed = tuple[str, Row]  # (where the row stands: file and line, the row)


def read_rows(
    path: str, columns: Sequence[str], key: str, *, pattern: str | None = None, raw: bool = False
) -> Iterator[Placed]:
    """The rows of the files a path stands for, in file order, each with all of `columns`; a line of .txt is a `text`.

    Args:
        raw: each line of a text file as it stands, whatever it holds, with its end.

    Files are read a block at a time, so a large one needs no more memory than a small one.

    Raises:
        ValueError: naming `key`, the file and the line, for a row without a column, or a file that cannot be read.
    """
    for file in text_files(path, key, pattern):
        try:
            yield from (_read_raw if raw else READERS[file.suffix])(file, columns)
        except UnicodeDecodeError as error:
            raise ValueError(f"{key}={path}: {file.name} is not UTF-8 text (byte {error.start})") from None
        except ValueError as error:
            raise ValueError(f"{key}={path}: {error}") from None
        except OSError as error:
            raise ValueError(f"{key}={path}: {file.name} cannot be read ({error.strerror})") from None


def _read_txt(file: Path, columns: Sequence[str]) -> Iterator[Placed]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            yield f"{file.name}, line {number}", dict.fromkeys(columns, line.rstrip("\n"))


def _read_raw(file: Path, columns: Sequence[str]) -> Iterator[Placed]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            yield f"{file.name}, line {number}", dict.fromkeys(columns, line)


def _read_jsonl(file: Path, columns: Sequence[str]) -> Iterator[Placed]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file.name}, line {number}"
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where} is not JSON ({error.msg})") from None
            missing = [name for name in columns if not isinstance(row, dict) or name not in row]
            if missing:
                found = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
                raise ValueError(f"{where} has no text field '{missing[0]}' (found: {found}); set the corpus's field")
            yield where, row


def _read_parquet(file: Path, columns: Sequence[str]) -> Iterator[Placed]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        names = table.schema_arrow.names
        for missing in (name for name in columns if name not in names):
            found = ", ".join(names)
            raise ValueError(f"{file.name} has no column '{missing}' (found: {found}); set the corpus's field")
        number = 0
        for batch in table.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield f"{file.name}, row {number}", row
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} is not a sound parquet file ({' '.join(str(error).split())})") from None


READERS = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
