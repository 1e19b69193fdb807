"""Formats of text files: what a row is in each, and where it stands.

A row of .jsonl is a line, of .json an element of its array, of .csv, .tsv, .parquet and .arrow a row, of .txt a line.
"""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rna.corpora.names import PACKED, kind_of

Row = dict[str, Any]
Read = Iterator[tuple[str, Any]]  # where each row stands, and the row, which should be a `Row`
BLOCK = 2**18  # characters of a .json file that are read at once
DEEPEST = 100  # levels of a line of JSON that are kept where Python cannot read them all
NAME, NAMES = 40, 12  # characters of a column's name, and columns, that an error lists
LFS = b"version https://git-lfs.github.com/"


class NoField(ValueError):
    """A row has no column of this name."""


def picked(where: str, row: Any, columns: Sequence[str]) -> Row:
    try:
        return {name: pick(row, name) for name in columns}
    except KeyError as missing:
        found = _listed(_names(row)) if isinstance(row, dict) else type(row).__name__
        raise NoField(f"{where} has no text field '{missing.args[0]}' (found: {found})") from None


def pick(row: Any, name: str) -> Any:
    """A row's column, or what lies in another: `data.text`. Raises KeyError if there is neither."""
    node, rest = row, name
    while isinstance(node, dict):
        if rest in node:
            return node[rest]
        head, _, rest = rest.partition(".")
        node = node.get(head)
    raise KeyError(name)


def _names(row: Row) -> list[str]:
    """The columns of a row, and of those that hold columns themselves theirs."""
    return sorted(
        name
        for key, value in row.items()
        for name in ([f"{key}.{i}" for i in value] if isinstance(value, dict) else [key])
    )


def _listed(names: list[str]) -> str:
    """Columns in one line, which a file without a header has for its first document."""
    short = [" ".join(name[:NAME].split()) + "…" * (len(name) > NAME) for name in names[:NAMES]]
    return ", ".join(short) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")


def reader(file: Path) -> Callable[[Path, Sequence[str]], Read]:
    kind = kind_of(file.name)
    assert kind is not None
    return READERS["." + kind.split(".")[1]]


def check_content(file: Path, columns: Sequence[str]) -> None:
    if len(columns) > 1 and (kind_of(file.name) or "").startswith(".txt"):
        raise ValueError(f"{file.name} has no columns, as {' and '.join(columns)} must be")
    with file.open("rb") as stream:
        if stream.read(len(LFS)) == LFS:
            raise ValueError(f"{file.name} is a git-lfs pointer, not the file itself; git lfs pull")


@contextmanager
def _unpacked(file: Path) -> Generator[io.BufferedReader]:
    packed = file.suffix.lower()
    if packed == ".zst":
        import pyarrow

        with pyarrow.input_stream(str(file), compression="zstd") as stream:
            yield io.BufferedReader(stream)
        return
    openers: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    with openers[packed](file, "rb") if packed in PACKED else file.open("rb") as stream:
        yield stream


@contextmanager
def _opened(file: Path, *, raw: bool = False, newline: str | None = None) -> Generator[io.TextIOWrapper]:
    with _unpacked(file) as stream:
        wide = stream.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as Windows writes it
        encoding = "utf-8" if raw else "utf-16" if wide else "utf-8-sig"
        yield io.TextIOWrapper(stream, encoding=encoding, newline=newline)


def undecoded(file: Path) -> str:
    """Where a file's first line is that is not UTF-8."""
    if kind_of(file.name) not in (".parquet", ".arrow"):
        with _unpacked(file) as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode()
                except UnicodeDecodeError:
                    return f"{file.name} is not UTF-8 text (line {number})"
    return f"{file.name} is not UTF-8 text"


def _lines(file: Path, *, raw: bool = False, newline: str | None = None) -> Iterator[tuple[int, str]]:
    with _opened(file, raw=raw, newline=newline) as lines:
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise ValueError(
                    f"{file.name}, line {number} holds NUL bytes: it must be UTF-8 text (iconv converts it)"
                )
            yield number, line


# Formats


def _read_txt(file: Path, columns: Sequence[str]) -> Read:
    for number, line in _lines(file):
        yield f"{file.name}, line {number}", dict.fromkeys(columns, line.rstrip("\n"))


def read_raw(file: Path, columns: Sequence[str]) -> Read:
    for number, line in _lines(file, raw=True):
        yield f"{file.name}, line {number}", dict.fromkeys(columns, line)


def _read_jsonl(file: Path, columns: Sequence[str]) -> Read:  # noqa: ARG001
    for number, line in _lines(file):
        if not line.strip():
            continue
        where = f"{file.name}, line {number}"
        try:
            yield where, _parsed(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where} is not JSON ({error.msg})") from None


def _parsed(line: str) -> Any:
    """A line of JSON, with numbers and nesting beyond what Python reads: another field may well hold them."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError):  # too many digits, too many levels
        return json.loads(_shallow(line), parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) < 4000 else float(digits)  # 4300 is where Python refuses


def _shallow(line: str) -> str:
    """A line of JSON with null in the place of what lies too deep."""
    kept: list[str] = []
    depth, start = 0, 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', line):
        if found[0] in "[{":
            depth += 1
            if depth == DEEPEST:
                kept.append(line[start : found.start()])
        elif found[0] in "]}":
            depth -= 1
            if depth == DEEPEST - 1:
                kept.append("null")
                start = found.end()
    return "".join([*kept, line[start:] if depth < DEEPEST else ""])


def _read_json(file: Path, columns: Sequence[str]) -> Read:
    with _opened(file) as stream:
        values = _values(stream, file.name)
        first = next(values, None)
        if first is None:
            return
        line, value, in_array = first
        second = next(values, None)
        if second is None and not in_array and isinstance(value, dict):
            for number, row in enumerate(_unwrapped(value, columns), 1):
                yield f"{file.name}, row {number}", row
            return
        yield f"{file.name}, row 1 (line {line})", value
        if second is not None:
            yield f"{file.name}, row 2 (line {second[0]})", second[1]
        for number, (line, value, _) in enumerate(values, 3):
            yield f"{file.name}, row {number} (line {line})", value


def _unwrapped(value: Row, columns: Sequence[str]) -> list[Any]:
    """The rows of a file that is one object: the one list of objects in it, unless it has the columns itself."""
    try:
        picked("", value, columns)
    except NoField:
        lists = [item for item in value.values() if isinstance(item, list) and any(isinstance(i, dict) for i in item)]
        if len(lists) == 1:
            return lists[0]
    return [value]


def _values(stream: io.TextIOWrapper, name: str) -> Iterator[tuple[int, Any, bool]]:
    """(line, value, whether it is in an array) of each element of a JSON array, or of each value that stands alone.

    What is read and not yet given is a block, or the largest value.
    """
    decoder = json.JSONDecoder(parse_int=_integer)
    buffer, at, line, more = "", 0, 1, True
    began, in_array, closed, wanted = False, False, False, ""  # wanted: the mark that must come next in an array

    def fault(position: int, what: str) -> ValueError:
        return ValueError(f"{name}, line {line + buffer.count(chr(10), 0, position)} is not JSON ({what})")

    def read(size: int) -> None:
        nonlocal buffer, at, line, more
        line += buffer.count("\n", 0, at)
        chunk = stream.read(size)
        buffer, at, more = buffer[at:] + chunk, 0, bool(chunk)

    while True:
        while at < len(buffer) and buffer[at] in " \t\r\n":
            at += 1
        if at == len(buffer):
            read(BLOCK)
            if more:
                continue
            break
        if closed:
            raise fault(at, "something behind its array")
        mark = buffer[at]
        if not began and mark == "[":
            began, in_array, at = True, True, at + 1
            continue
        began = True
        if in_array and mark == "]":
            closed, at = True, at + 1
            continue
        if wanted:
            if mark != wanted:
                raise fault(at, f"Expecting '{wanted}' delimiter")
            wanted, at = "", at + 1
            continue
        size = BLOCK
        while True:
            try:
                value, end = decoder.raw_decode(buffer, at)
                break
            except RecursionError:
                raise fault(at, "nested too deeply") from None
            except json.JSONDecodeError as error:
                if not more or not (error.msg.startswith("Unterminated") or error.pos >= len(buffer) - 16):
                    raise fault(error.pos, error.msg) from None
                read(size)
                size *= 2
        yield line + buffer.count("\n", 0, at), value, in_array
        at, wanted = end, "," if in_array else ""
    if in_array and not closed:
        raise fault(at, "the end of its array is missing")


def _read_csv(file: Path, columns: Sequence[str]) -> Read:
    csv.field_size_limit(sys.maxsize)
    lines: Iterable[str] = (line for _, line in _lines(file, newline=""))
    kind = kind_of(file.name) or ""
    rows = csv.reader(lines, delimiter="\t" if kind.startswith(".tsv") else ",", strict=True)
    try:
        header = next(rows, [])
        _refuse_twins(file, header, columns)
        for row in rows:
            where = f"{file.name}, line {rows.line_num}"
            if row and len(row) != len(header):
                raise ValueError(
                    f"{where} has {len(row)} fields, and the first line {len(header)}; a text needs quotes"
                )
            if row:
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{file.name}, line {rows.line_num} is no row ({error})") from None


def _read_parquet(file: Path, columns: Sequence[str]) -> Read:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            _check_columns(file, table.schema_arrow, columns)
            yield from _tables(file, table.iter_batches(batch_size=1024, columns=list(columns)))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} is not a sound parquet file ({_said(error)})") from None


def _read_arrow(file: Path, columns: Sequence[str]) -> Read:
    """What `datasets.save_to_disk` writes, and Arrow's own files."""
    import pyarrow

    try:
        with pyarrow.memory_map(str(file)) as mapped:
            if mapped.read(6) == b"ARROW1":
                opened = pyarrow.ipc.open_file(mapped)
                batches: Iterable[Any] = (opened.get_batch(number) for number in range(opened.num_record_batches))
            else:
                mapped.seek(0)
                batches = opened = pyarrow.ipc.open_stream(mapped)
            _check_columns(file, opened.schema, columns)
            heads = [name for name in opened.schema.names if any(_head(name, column) for column in columns)]
            yield from _tables(file, (batch.select(heads) for batch in batches))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file.name} is not a sound arrow file ({_said(error)})") from None


def _head(name: str, column: str) -> bool:
    return column == name or column.startswith(f"{name}.")


def _check_columns(file: Path, schema: Any, columns: Sequence[str]) -> None:
    """Whether there are columns of these names, in others or by themselves."""

    def tree(fields: Iterable[Any]) -> Row:
        return {one.name: tree(one.type) if _is_struct(one.type) else None for one in fields}

    _refuse_twins(file, schema.names, columns)
    found_names = tree(schema)
    try:
        for name in columns:
            pick(found_names, name)
    except KeyError as missing:
        found = _listed(_names(found_names))
        raise NoField(f"{file.name} has no column '{missing.args[0]}' (found: {found})") from None


def _refuse_twins(file: Path, names: Sequence[str], columns: Sequence[str]) -> None:
    """Refuse two columns of a name that is asked for, of which nobody knows which is meant."""
    for name in dict.fromkeys(names):
        if names.count(name) > 1 and any(_head(name, column) for column in columns):
            raise ValueError(
                f"{file.name} has {names.count(name)} columns '{name[:NAME]}'; rename them, or give another"
            )


def _is_struct(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_struct(kind)


def _tables(file: Path, batches: Iterable[Any]) -> Read:
    number = 0
    for batch in batches:
        for start in range(0, len(batch), 1024):
            try:
                rows = batch.slice(start, 1024).to_pylist()
            except (ValueError, OverflowError) as error:  # no UTF-8, or a time that Python has not
                raise ValueError(f"{file.name}, row {number + 1} or soon behind it: {_said(error)}") from None
            for row in rows:
                number += 1
                yield f"{file.name}, row {number}", row


def _said(error: Exception) -> str:
    return " ".join(str(error).split())


READERS = {
    ".txt": _read_txt,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".arrow": _read_arrow,
}
