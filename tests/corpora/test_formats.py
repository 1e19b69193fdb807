"""What is read of each format, and what is said of a file that is broken, hostile or in another encoding."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rna.corpora import data, formats, rows
from rna.settings.fields import CorpusSettings

TEXTS = ["first text", "zweiter Text ä", "третий"]
ROWS = [{"id": 1, "text": text} for text in TEXTS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(path: Path, field: str = "text", **options: Any) -> list[str]:
    return list(data.read_texts(CorpusSettings(str(path), field, **options), "data.retain.path"))


def error(path: Path, field: str = "text", **options: Any) -> str:
    with pytest.raises(ValueError, match=r"^data\.retain\.path=") as caught:
        read(path, field, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def zstd(path: Path, content: bytes) -> None:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(content)


def table(rows: list[dict[str, Any]], delimiter: str) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


WRITTEN = {
    "a.jsonl": LINES,
    "a.JSONL": LINES,
    "a.ndjson": LINES,
    "a.json": json.dumps(ROWS, indent=2),
    "lines.json": LINES,
    "one.json": json.dumps({"version": "1", "data": ROWS}),
    "a.csv": table(ROWS, ","),
    "a.tsv": table(ROWS, "\t"),
    "a.txt": "\n".join(TEXTS),
    "crlf.jsonl": LINES.replace("\n", "\r\n"),
    "crlf.txt": "\r\n".join(TEXTS) + "\r\n",
}


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("packed", PACK)
def test_every_format_gives_the_same_texts_packed_or_not(tmp_path: Path, name: str, packed: str):
    path = tmp_path / (name + packed)
    path.write_bytes(PACK[packed](WRITTEN[name].encode()))
    assert read(path) == TEXTS


def test_zstandard_needs_no_package_of_its_own(tmp_path: Path):
    zstd(tmp_path / "a.jsonl.zst", LINES.encode())
    assert read(tmp_path / "a.jsonl.zst") == TEXTS
    content = (tmp_path / "a.jsonl.zst").read_bytes()
    (tmp_path / "a.jsonl.zst").write_bytes(content[: len(content) // 2])
    assert "a.jsonl.zst cannot be read" in error(tmp_path / "a.jsonl.zst")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_byte_order_mark_says_how_a_file_is_encoded(tmp_path: Path, name: str, encoding: str):
    (tmp_path / name).write_bytes(WRITTEN[name].encode(encoding))
    assert read(tmp_path / name) == TEXTS


def test_what_datasets_saves_is_read(tmp_path: Path):
    import datasets

    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "one", num_shards=2)
    assert read(tmp_path / "one") == TEXTS
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "splits")
    assert read(tmp_path / "splits") == TEXTS
    (tmp_path / "one" / "cache-0123.arrow").write_bytes(b"what map() left here")
    assert read(tmp_path / "one") == TEXTS


def test_a_file_that_datasets_saved_must_be_there(tmp_path: Path):
    import datasets

    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(tmp_path / "a", num_shards=3)
    (tmp_path / "a" / "data-00001-of-00003.arrow").unlink()
    assert "without data-00001-of-00003.arrow, which its other files count" in error(tmp_path / "a")
    assert len(read(tmp_path / "a", files="data-*[02]-of-00003.arrow")) == 2
    saved.save_to_disk(tmp_path / "b", num_shards=2)
    for number in range(2):
        (tmp_path / "b" / f"data-0000{number}-of-00002.arrow").rename(tmp_path / "b" / f"{number}.arrow")
    assert "without data-00000-of-00002.arrow, data-00001-of-00002.arrow" in error(tmp_path / "b")
    (tmp_path / "b" / "state.json").write_text('{"_data_files": [{}]}')  # nobody's we know
    assert read(tmp_path / "b") == TEXTS


def test_arrows_own_files_are_read(tmp_path: Path):
    made = pyarrow.table({"text": TEXTS})
    with pyarrow.ipc.new_file(str(tmp_path / "a.arrow"), made.schema) as writer:
        writer.write_table(made)
    assert read(tmp_path / "a.arrow") == TEXTS


NESTED = [{"data": {"text": text, "id": 3}, "other": 1} for text in TEXTS]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_a_column_may_lie_in_another(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in NESTED))
    elif kind == "json":
        path.write_text(json.dumps(NESTED))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(NESTED), path)
    else:
        made = pyarrow.Table.from_pylist(NESTED)
        with pyarrow.ipc.new_stream(str(path), made.schema) as writer:
            writer.write_table(made)
    assert read(path, "data.text") == TEXTS
    assert "(found: data.id, data.text, other)" in error(path)
    assert "'data.body'" in error(path, "data.body")


def test_a_column_whose_name_has_a_dot_is_itself(tmp_path: Path):
    pyarrow.parquet.write_table(pyarrow.table({"data.text": TEXTS, "data": [1, 2, 3]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "data.text") == TEXTS
    assert rows.picked("", {"data.text": "x", "data": {"text": "y"}}, ["data.text"]) == {"data.text": "x"}


def test_a_chat_is_its_contents_a_line_each(tmp_path: Path):
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    assert read(tmp_path / "a.jsonl", "messages") == ["Who?\nNobody."]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"messages": chat}]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", "messages") == ["Who?\nNobody."]
    (tmp_path / "b.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": None}]}) + "\n")
    assert "line 1: the field 'messages' is of type list" in error(tmp_path / "b.jsonl", "messages")


@pytest.mark.parametrize(
    ("value", "found"), [(3, "int"), (1.5, "float"), (["a"], "list"), ({"a": 1}, "dict"), ([], "list")]
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_column_of_another_type_is_named(tmp_path: Path, kind: str, value: Any, found: str):
    path, row = tmp_path / f"a.{kind}", {"text": value, "id": 1}
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row if kind == "jsonl" else [row]))
    assert f"the field 'text' is of type {found}" in error(path)


# Hostile content


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_half_a_character_is_replaced_and_two_halves_are_one(tmp_path: Path, name: str):
    line = '{"text": "a \\ud83d b \\ud83d\\ude00 c\\ude00"}'
    (tmp_path / name).write_text(line if name == "a.jsonl" else f"[{line}]")
    (found,) = read(tmp_path / name)
    assert found == "a \ufffd b 😀 c\ufffd"
    found.encode()


@pytest.mark.parametrize(
    "other",
    [
        "9" * 5000,
        "[" * 5000 + '"]}"' + "]" * 5000,
        "[" + "9" * 5000 + "," + "[" * 5000 + "]" * 5001,
        '{"a":' * 3000 + "1" + "}" * 3000,
        "1e999",
    ],
)
def test_another_field_may_hold_what_python_cannot(tmp_path: Path, other: str):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "before", "x": {other}}}\n{{"x": {other}, "text": "behind"}}\n')
    assert read(tmp_path / "a.jsonl") == ["before", "behind"]


def test_nesting_that_is_too_deep_is_said_in_one_line(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"text": "x"},\n' + "[" * 5000 + "]" * 5000 + "]")
    assert "a.json, line 2 is not JSON (nested too deeply)" in error(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text("[" * 5000 + "\n")
    assert "a.jsonl, line 1" in error(tmp_path / "a.jsonl")


def test_of_a_table_the_wanted_columns_alone_are_read(tmp_path: Path):
    far = pyarrow.array([2**62] * 3, pyarrow.timestamp("us"))
    made = pyarrow.table({"text": TEXTS, "time": far})
    pyarrow.parquet.write_table(made, tmp_path / "a.parquet")
    with pyarrow.ipc.new_stream(str(tmp_path / "a.arrow"), made.schema) as writer:
        writer.write_table(made)
    for name in ("a.parquet", "a.arrow"):
        assert read(tmp_path / name) == TEXTS
        assert f"{name}, row 1 or soon behind it" in error(tmp_path / name, "time")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_an_empty_file_has_no_texts(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert read(tmp_path / name) == []


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl.gz", "a.jsonl.xz", "a.jsonl.zst"])
@pytest.mark.parametrize("content", [b"nonsense", b"PAR1", b"ARROW1\0\0", b"\x1f\x8b\x08"])
def test_a_file_of_another_kind_than_its_name_says_is_named(tmp_path: Path, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    assert f": {name} " in error(tmp_path / name)


@pytest.mark.parametrize("packed", [".gz", ".bz2", ".xz"])
def test_a_packed_file_that_is_cut_short_is_named(tmp_path: Path, packed: str):
    content = PACK[packed]("".join(f'{{"text": "{number**5}"}}\n' for number in range(999)).encode())
    (tmp_path / f"a.jsonl{packed}").write_bytes(content[: len(content) // 2])
    assert f"a.jsonl{packed} is cut short or damaged" in error(tmp_path / f"a.jsonl{packed}")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_utf16_without_a_mark_and_other_encodings_name_file_and_line(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(WRITTEN[name].replace("ä", "a")[:20].encode("utf-16-le"))
    assert f"{name}, line 1" in error(tmp_path / name)
    (tmp_path / name).write_bytes(b"text,id\n\nx,1\ncaf\xe9,2\n" if name != "a.jsonl" else b'{"text": "x"}\n\n\n"\xe9"')
    assert f"{name} is not UTF-8 text (line 4)" in error(tmp_path / name) or name == "a.json"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "x"}, {"text": ]', "line 1 is not JSON"),
        ('[{"text": "x"},\n{"text": "y"}', "line 2 is not JSON (the end of its array is missing)"),
        ('[{"text": "x"}\n{"text": "y"}]', "line 2 is not JSON (Expecting ',' delimiter)"),
        ('[{"text": "x"}] []', "something behind its array"),
        ('{"text": "x"}\n{"text": "y"', "line 2 is not JSON"),
        ('{"text": "x"}\n3\n', "a.json, row 2 (line 2) has no text field 'text' (found: int)"),
        ('{"a": [{"text": "x"}], "b": [{"text": "y"}]}', "has no text field 'text' (found: a, b)"),
    ],
)
def test_broken_json_names_the_line(tmp_path: Path, content: str, said: str):
    (tmp_path / "a.json").write_text(content)
    assert said in error(tmp_path / "a.json")


@pytest.mark.whole
def test_a_json_array_is_read_a_block_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Blocks of any size give the same rows, and a large array takes the memory of a block."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([*ROWS, {"text": "9" * 400, "n": [1.5, -2, True, None, '\\"]}']}], indent=1))
    expected = [*TEXTS, "9" * 400]
    for size in range(1, 60):
        monkeypatch.setattr(formats, "BLOCK", size)
        assert read(path) == expected
    monkeypatch.setattr(formats, "BLOCK", 2**16)
    with path.open("w") as stream:
        stream.write("[" + ",\n".join(json.dumps({"text": "word " * 400}) for _ in range(4000)) + "]")
    tracemalloc.start()
    count = sum(1 for _ in data.read_texts(CorpusSettings(str(path)), "data.retain.path"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 4000
    assert peak < 2e6 < path.stat().st_size / 3


def test_a_field_of_csv_may_be_large_and_hold_anything(tmp_path: Path):
    text = 'a "quoted", long\ntext ' + "x" * 200_000
    (tmp_path / "a.csv").write_text(table([{"text": text, "id": 1}], ","), newline="")
    assert read(tmp_path / "a.csv") == [text]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,id\nx,1\ny, z,2\n", "a.csv, line 3 has 3 fields, and the first line 2"),
        ("body,id\nx,1\n", "a.csv, line 2 has no text field 'text' (found: body, id)"),
        ('text,id\n"x,1\n', "a.csv, line 2 is no row"),
    ],
)
def test_a_broken_table_names_the_line(tmp_path: Path, content: str, said: str):
    (tmp_path / "a.csv").write_text(content)
    assert said in error(tmp_path / "a.csv")


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_an_error_lists_no_more_columns_than_can_be_read(tmp_path: Path, kind: str):
    """A table without a header names its columns by its first document; a .json may have a column for each row."""
    row = {"first line of\na document " + "x" * 100_000: "y"} | {f"g{number:05}": "z" for number in range(9_000)}
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text(table([row], ","), newline="")
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row))
    said = error(path).removeprefix(f"data.retain.path={path}")
    assert "(found: first line of a document xxxx" in said
    assert "…, g00000, g00001, " in said
    assert " and 8989 more)" in said
    assert len(said) < 400


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "arrow"])
def test_a_column_that_is_there_twice_is_refused_if_it_is_read(tmp_path: Path, kind: str):
    path, values = tmp_path / f"a.{kind}", [["x", "y"], ["1", "2"], ["3", "4"]]
    names = ["text", "id", "id"], ["text", "id", "text"]
    for header in names:
        if kind in ("csv", "tsv"):
            rows = [header, *zip(*values, strict=True)]
            path.write_text("".join({"csv": ",", "tsv": "\t"}[kind].join(row) + "\n" for row in rows))
        else:
            made = pyarrow.table([pyarrow.array(column) for column in values], names=header)
            if kind == "parquet":
                pyarrow.parquet.write_table(made, path)
            else:
                with pyarrow.ipc.new_file(str(path), made.schema) as writer:
                    writer.write_table(made)
        if header == names[0]:
            assert read(path) == ["x", "y"]
        else:
            assert f"a.{kind} has 2 columns 'text'; rename them, or give another" in error(path)


def test_a_pointer_to_a_file_is_not_the_file(tmp_path: Path):
    (tmp_path / "a.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert "a.txt is a git-lfs pointer" in error(tmp_path / "a.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.txt").chmod(0)
    assert "a.txt cannot be read (Permission denied)" in error(tmp_path / "a.txt")


def test_columns_are_not_had_from_lines(tmp_path: Path):
    (tmp_path / "a.txt").write_text("x\ny\n")
    assert "a.txt has no columns, as question and answer must be" in error(
        tmp_path / "a.txt", question="question", answer="answer"
    )
