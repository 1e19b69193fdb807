"""Paths and fingerprints."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from rna import run, trial
from rna.corpora import sources
from rna.settings import config
from rna.settings.fields import BUILTIN, Settings
from rna.store import lookup


def folder(path: Path, **files: str) -> str:
    path.mkdir()
    for name, text in files.items():
        (path / name.replace("__", ".")).write_text(text)
    return str(path)


def model(path: Path, weights: str = "w", config: str = "c") -> str:
    return folder(path, model__safetensors=weights, config__json=config, README__md="a model")


def test_a_digest_is_of_the_value_not_of_its_order():
    assert sources.digest({"a": 1, "b": [2]}) == sources.digest({"b": [2], "a": 1})
    assert sources.digest({"a": 1}) != sources.digest({"a": 2})


def test_a_fingerprint_changes_with_the_content_alone(tmp_path):
    one, two = tmp_path / "one.txt", tmp_path / "two.txt"
    one.write_text("a text")
    two.write_text("a text")
    os.utime(two, (1, 1))
    assert sources.fingerprint(one, None) == sources.fingerprint(two, None)
    two.write_text("a test")
    assert sources.fingerprint(one, None) != sources.fingerprint(two, None)


LARGE = b"the same first bytes, and then " + b"x" * 100  # above SMALL in these tests


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read to hash them, in a process that knows no hash yet."""
    found: list[Path] = []
    read = sources._sha256

    def counted(file: Path) -> str:
        found.append(file)
        return read(file)

    monkeypatch.setattr(sources, "_sha256", counted)
    monkeypatch.setattr(sources, "SMALL", 100)
    monkeypatch.setattr(sources, "_known", {})
    return found


def written(file: Path, content: bytes, time: int = 1) -> Path:
    file.write_bytes(content)
    os.utime(file, (time, time))
    return file


def test_a_large_file_is_known_by_its_content_alone(tmp_path, reads):
    kept = tmp_path / "hashes"
    one = written(tmp_path / "one.bin", LARGE)
    first = sources.fingerprint(one, kept)
    assert first == hashlib.sha256(LARGE).hexdigest()[:16]
    assert sources.fingerprint(written(tmp_path / "copy.bin", LARGE, time=7), kept) == first
    assert sources.fingerprint(written(tmp_path / "other.bin", LARGE[:-1] + b"y"), kept) != first
    os.utime(one, (2, 2))
    assert [sources.fingerprint(one, None) for _ in range(3)] == [first] * 3
    assert [file.name for file in reads] == ["one.bin", "copy.bin", "other.bin", "one.bin"]


def test_a_hash_that_another_process_kept_is_not_made_again(tmp_path, reads, monkeypatch):
    file, kept = written(tmp_path / "large.bin", LARGE), tmp_path / "hashes"
    first = sources.fingerprint(file, kept)
    monkeypatch.setattr(sources, "_known", {})
    assert (sources.fingerprint(file, kept), len(reads)) == (first, 1)
    (entry,) = kept.iterdir()
    for number, torn in enumerate((b"", b"0" * 63, b"\xff" * 64), 2):
        entry.write_bytes(torn)
        monkeypatch.setattr(sources, "_known", {})
        assert (sources.fingerprint(file, kept), len(reads)) == (first, number)
        assert len(entry.read_bytes()) == 64
    (tmp_path / "file").touch()
    monkeypatch.setattr(sources, "_known", {})
    assert sources.fingerprint(file, tmp_path / "file" / "hashes") == first  # where nothing can be kept


def test_a_file_that_was_just_written_is_read_again(tmp_path):
    """Other bytes within a tick of the clock leave size and time as they were."""
    file = tmp_path / "small.txt"
    file.write_text("one")
    status = file.stat()
    first = sources.fingerprint(file, None)
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert sources.fingerprint(file, None) != first


@pytest.mark.usefixtures("reads")
def test_a_large_file_that_was_overwritten_and_given_its_old_time_is_read_again(tmp_path):
    """As tools that keep times do: size, place and time say nothing of it, the time of the last change does."""
    file, kept = written(tmp_path / "large.bin", LARGE), tmp_path / "hashes"
    first = sources.fingerprint(file, kept)
    time.sleep(0.05)  # some ticks of the clock
    with file.open("r+b") as stream:
        stream.write(LARGE[::-1][:-1] + b"y")
    os.utime(file, (1, 1))
    assert sources.fingerprint(file, kept) == hashlib.sha256(file.read_bytes()).hexdigest()[:16] != first


COUNTING = """
import os, sys, time
from pathlib import Path
from rna.corpora import sources

read, (file, kept, log, start) = sources._sha256, map(Path, sys.argv[1:])

def counted(file):
    os.write(os.open(log, os.O_WRONLY | os.O_APPEND), b"r")
    time.sleep(0.2)
    return read(file)

sources.SMALL, sources._sha256 = 100, counted
os.write(os.open(log, os.O_WRONLY | os.O_APPEND), b".")
while not start.exists():
    time.sleep(0.001)
print(sources.fingerprint(file, kept))
"""


def test_processes_that_start_at_once_read_a_large_file_once(tmp_path):
    file, log, start = written(tmp_path / "large.bin", LARGE), tmp_path / "log", tmp_path / "start"
    log.touch()
    command = [sys.executable, "-c", COUNTING, *map(str, (file, tmp_path / "hashes", log, start))]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    while log.read_bytes().count(b".") < 4:
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    start.touch()
    assert {process.communicate()[0].strip() for process in processes} == {hashlib.sha256(LARGE).hexdigest()[:16]}
    assert log.read_bytes().count(b"r") == 1


def hub(cache: Path, kind: str, name: str, **files: bytes) -> Path:
    """A repository as the hub's client lays it out: files named by their hash, and links to them in a revision."""
    folder, commit = cache / f"{kind}s--{name.replace('/', '--')}", "c" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "blobs").mkdir()
    for file, content in files.items():
        path = folder / "snapshots" / commit / file.replace("__", ".").replace("_in_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        digit = hashlib.sha256 if len(content) > 100 else hashlib.sha1  # LFS, or git
        blob = written(folder / "blobs" / digit(content).hexdigest(), content)
        path.symlink_to(os.path.relpath(blob, path.parent))
    return folder / "snapshots" / commit


def test_a_large_file_of_the_hubs_cache_is_not_read(tmp_path, reads):
    found = hub(tmp_path / "hub", "dataset", "me/texts", large__jsonl=LARGE, small__jsonl=b"{}")
    cached = sources.text_fingerprint(str(found), "data.retain.path", None, None)
    assert [file.name for file in reads] == ["small.jsonl"]
    copy = tmp_path / "copy"
    shutil.copytree(found, copy)
    assert sources.text_fingerprint(str(copy), "data.retain.path", None, None) == cached


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[list[tuple[object, ...]]]:
    """What the hub's client was asked for, with a cache that has a model and a data set of questions."""
    import huggingface_hub

    config = (BUILTIN / "base" / "config.json").read_bytes()
    hub(tmp_path / "hub", "model", "me/model", config__json=config)
    hub(tmp_path / "hub", "dataset", "me/texts", a__jsonl=(BUILTIN / "retain.jsonl").read_bytes())
    hub(tmp_path / "hub", "dataset", "me/mmlu", **{"all_in_test-0__parquet": b"questions"})
    calls: list[tuple[object, ...]] = []
    real = huggingface_hub.snapshot_download

    def counted(name: str, **options: Any) -> str:
        calls.append((name, *map(str, options.values())))
        return real(name, cache_dir=tmp_path / "hub", **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", counted)
    sources._snapshot.cache_clear()
    yield calls
    sources._snapshot.cache_clear()


def composed(tmp_path: Path, *overrides: str) -> Settings:
    own = ["model.path=me/model", "model.num_layers=4", "data.retain.path=me/texts", "eval=mmlu"]
    own += ["eval.mmlu_path=me/mmlu", f"output_dir={tmp_path / 'out'}"]
    return config.check(run.compose([*own, *overrides], None))


def test_the_hub_is_asked_once_for_all_keys_of_a_trial_and_of_a_sweep(tmp_path, asked):
    rows = trial.arms(composed(tmp_path))
    assert [row.label for row in rows] == ["base", "plain", "with RNA", "retrained"]
    assert rows[0].identity["model"]["fingerprint"] == "c" * 40
    three = [("me/mmlu", "all/test-*.parquet"), ("me/model", "config.json"), ("me/texts", "*.jsonl")]
    assert len(asked) == 3, asked
    assert all(any(name == call[0] and text in str(call) for call in asked) for name, text in three)
    addresses = [lookup.address_of(composed(tmp_path, f"noise.nu={nu}")) for nu in (0.1, 0.2, 0.3)]
    assert len({where["key"] for where in addresses}) == 3
    assert len(asked) == 3, asked


def test_a_hub_that_was_not_reached_is_asked_again(asked):
    for _ in range(2):
        with pytest.raises(ValueError, match="not to be had from the hub"):
            sources.model_fingerprint("me/absent", None, None)
    assert len(asked) == 2


def test_text_fingerprint_covers_every_file_of_a_folder(tmp_path):
    path = folder(tmp_path / "corpus", a__jsonl="one", b__jsonl="two", notes__md="three", README__txt="four")
    before = sources.text_fingerprint(path, "data.retain.path", None, None)
    assert len(before) == 2
    (Path(path) / "notes.md").write_text("other")
    (Path(path) / "README.txt").write_text("other")
    assert sources.text_fingerprint(path, "data.retain.path", None, None) == before
    (Path(path) / "b.jsonl").write_text("other")
    assert sources.text_fingerprint(path, "data.retain.path", None, None) != before


def test_text_fingerprint_tells_kinds_of_files_apart(tmp_path):
    """The same bytes are other texts when they are read line by line."""
    path = folder(tmp_path / "corpus", a__txt='{"text": "x"}', b__jsonl='{"text": "x"}')
    as_lines = sources.text_fingerprint(f"{path}/a.txt", "data.retain.path", None, None)
    assert as_lines != sources.text_fingerprint(f"{path}/b.jsonl", "data.retain.path", None, None)


def test_text_files_leave_out_folders_that_are_named_like_files(tmp_path):
    path = folder(tmp_path / "corpus", a__txt="one")
    (tmp_path / "corpus" / "b.txt").mkdir()
    assert [file.name for file in sources.text_files(path, "data.retain.path")] == ["a.txt"]


def test_a_path_that_the_system_refuses_names_the_key():
    with pytest.raises(ValueError, match=r"^data\.retain\.path=x+: cannot be read \(File name too long\)"):
        sources.text_files("x" * 5000, "data.retain.path")


@pytest.mark.parametrize("name", ["absent.txt", "empty"])
def test_text_files_name_the_key_where_there_is_nothing(tmp_path, name):
    (tmp_path / "empty").mkdir()
    what = "no such file" if name == "absent.txt" else r"a folder without text files \(there: nothing\)"
    with pytest.raises(ValueError, match=rf"^data\.retain\.path=.*{name}: {what}.*\.txt, \.jsonl, \.parquet"):
        sources.text_files(str(tmp_path / name), "data.retain.path")


def test_text_files_refuse_another_kind(tmp_path):
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(ValueError, match=r"^data\.retain\.path=.*cannot read a '\.xlsx' file; allowed: "):
        sources.text_files(str(tmp_path / "a.xlsx"), "data.retain.path")


def laid(path: Path, *names: str) -> str:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    return str(path)


def files(path: str, pattern: str | None = None, usual: str | None = None) -> list[str]:
    found = sources.text_files(path, "data.topics.text.path", pattern, usual)
    return [str(file.relative_to(path)) for file in found]


def refused(path: str, pattern: str | None = None, key: str = "data.topics.text.path") -> str:
    with pytest.raises(ValueError, match=r"^data\.topics\.text\.(path|files)=|^eval\.mmlu_path=") as caught:
        sources.text_files(path, key, pattern)
    assert "\n" not in str(caught.value)
    return str(caught.value)


ASIDE = (
    "README.txt",
    "LICENSE-MIT.txt",
    "readme.jsonl",
    "dataset_infos.json",
    "sha256sums.txt",
    ".a.jsonl",
    "._a.jsonl",
    "metadata.json",
    "Requirements.txt.gz",
    "CONTRIBUTING.txt",
)
TEXTS = (  # whose names begin or end as those do
    *("requirements_engineering.txt", "contributing-factors.txt", "notice_board.txt", "checksums.txt", "lump_sums.txt"),
    *("license_texts.txt", "license-plates.txt", "citation_texts.txt", "authors_of_books.txt", "readmes.txt"),
)


def beside(path: str, pattern: str | None = None, usual: str | None = None) -> list[str]:
    return sources.left_out(path, "data.topics.text.path", pattern, usual)


def test_what_speaks_of_the_others_is_no_text(tmp_path):
    path = laid(tmp_path, "a.jsonl", "b.jsonl.gz", *ASIDE, "licenses_of_texts.md", ".git/c.jsonl", "__MACOSX/a.jsonl")
    said = sorted({*ASIDE, "licenses_of_texts.md"} - {".a.jsonl", "._a.jsonl", "dataset_infos.json"})
    assert files(path) == ["a.jsonl", "b.jsonl.gz"]
    assert files(path, "*") == ["a.jsonl", "b.jsonl.gz"]
    assert beside(path) == beside(path, "*") == said
    assert beside(path, "*.jsonl") == ["readme.jsonl"]
    assert files(path, "README.txt") == ["README.txt"]  # unless it is asked for
    assert files(path, "LICENSE*") == ["LICENSE-MIT.txt"]
    assert beside(path, "README.txt") == []


@pytest.mark.parametrize("name", [*TEXTS, "notice.jsonl", "authors.csv", "citation.parquet"])
def test_texts_may_be_called_like_what_speaks_of_others(tmp_path, name):
    assert files(laid(tmp_path, name)) == [name]


def test_what_speaks_of_others_is_read_where_that_is_meant(tmp_path):
    path = laid(tmp_path, "license-mit.txt", "notice.txt")
    said = refused(path)
    assert "allowed: data.topics.text.files='license-mit.txt' if it is no file about others, or .txt" in said
    assert files(path, "license*") == ["license-mit.txt"]
    assert files(path, "*.txt") == ["license-mit.txt", "notice.txt"]
    laid(tmp_path, "licenses.txt")
    assert (files(path, "license*"), beside(path, "license*")) == (["licenses.txt"], ["license-mit.txt"])


@pytest.mark.parametrize(
    ("names", "read", "said"),
    [
        (("a.jsonl", "more/b.jsonl", "more/c/d.txt"), ["a.jsonl"], ["more/b.jsonl", "more/c/d.txt"]),
        (("x.txt", "y.md", "z.text", "w.rst", "README.md", "LICENSE"), ["x.txt"], ["w.rst", "y.md", "z.text"]),
        (("a.jsonl", "a.jsonl.bak", "a.py", "b.pdf"), ["a.jsonl"], ["a.jsonl.bak", "b.pdf"]),
        (("data-0.arrow", "state.json", "dataset_info.json", "cache-1.arrow"), ["data-0.arrow"], []),
    ],
)
def test_what_lies_beside_the_texts_is_told(tmp_path, names, read, said):
    path = laid(tmp_path, *names)
    assert (files(path), beside(path)) == (read, said)
    assert beside(f"{path}/{read[0]}") == []


def test_what_a_pattern_leaves_out_is_left_out_with_intent(tmp_path):
    path = laid(tmp_path, "all/test-0.parquet", "all/dev-0.parquet", "more/a.txt")
    assert beside(path, "all/test*") == beside(path, usual="all/test*") == beside(path, "all") == []


def sharded(path: Path, name: str, *numbers: int) -> str:
    return laid(path, *(name.format(number) for number in numbers))


@pytest.mark.parametrize(
    ("name", "numbers", "missing"),
    [
        ("train-{:05}-of-00004.jsonl", (0, 1, 3), "train-00002-of-00004.jsonl"),
        ("train-{:05}-of-00004.jsonl.gz", (0, 1, 2), "train-00003-of-00004.jsonl"),
        ("train-{:05}-of-00004-0123456789ab{:04}.parquet", (1, 2, 3), "train-00000-of-00004.parquet"),
        ("data/{}-of-3.txt", (1, 3), "data/2-of-3.txt"),
        ("{}-of-9.txt", (1, 9), "2-of-9.txt, 3-of-9.txt, 4-of-9.txt, …, 8-of-9.txt"),
    ],
)
def test_a_shard_that_its_others_count_must_be_there(tmp_path, name, numbers, missing):
    path = laid(tmp_path, *(name.format(number, number) for number in numbers))
    said = refused(path)
    assert said == (
        f"data.topics.text.path={path}: without {missing}, which its other files count; fetch it, or name with "
        "data.topics.text.files those that are to be read"
    )
    one = name.format(numbers[0], numbers[0])
    assert files(path, one) == [one]
    assert f"without {missing}" in refused(path, f"{one.split('-of-')[0].rstrip('0123456789')}*")
    assert refused(path, key="eval.mmlu_path").endswith("fetch it")


def test_shards_that_are_all_there_are_read(tmp_path):
    for name, numbers in (("a-{:02}-of-03.txt", range(3)), ("b-{}-of-3.txt", range(1, 4)), ("c-{}-of-0.txt", [7])):
        sharded(tmp_path, name, *numbers)
    assert len(files(str(tmp_path))) == 7
    sharded(tmp_path, "a-{:02}-of-02.txt", 0, 1)  # of another writing
    assert "holds files of several countings: of 02 (2), of 03 (3); give data.topics.text.files='" in refused(
        str(tmp_path), "a*"
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ("data/train-0.parquet", "data/train-1.parquet", "README.md"),
            ["data/train-0.parquet", "data/train-1.parquet"],
        ),
        (("a.JSONL", "b.Ndjson", "c.jsonl.GZ"), ["a.JSONL", "b.Ndjson", "c.jsonl.GZ"]),
        (("a.jsonl", "more/b.jsonl"), ["a.jsonl"]),
        (("latest.jsonl", "trainees.jsonl", "test.jsonl"), ["latest.jsonl", "test.jsonl", "trainees.jsonl"]),
        (("train/data-0.arrow", "train/state.json", "dataset_dict.json"), ["train/data-0.arrow"]),
    ],
)
def test_a_folder_is_the_files_at_its_top_or_else_below_it(tmp_path, names, found):
    assert files(laid(tmp_path, *names)) == found


@pytest.mark.parametrize(
    ("names", "what", "give"),
    [
        (("a.jsonl", "b.txt"), "kinds: .jsonl (1), .txt (1)", "*.jsonl"),
        (("a.jsonl", "b.jsonl.gz", "c.csv"), "kinds: .jsonl (2), .csv (1)", "*.jsonl*"),
        (("a.jsonl", "b.jsonl.zip"), "kinds: .jsonl (1), .zip (1)", "*.jsonl"),
        (("a.jsonl", "b.tar.gz"), "kinds: .jsonl (1), .gz (1)", "*.jsonl"),
        (("a.jsonl", "a.jsonl.gz"), "packings of the same: a.jsonl (1), a.jsonl.gz (1)", "*.jsonl"),
        (("test-0.jsonl", "train-0.jsonl"), "splits: train (1), test (1)", "train*"),
        (("data/dev-0.parquet", "data/train-0.parquet"), "splits: train (1), validation (1)", "data/train*"),
        (("test/data-0.arrow", "train/data-0.arrow"), "splits: train (1), test (1)", "train/data*"),
        (("x_test.csv", "x_train.csv", "y_train.csv"), "splits: train (2), test (1)", "*_train.csv"),
        (("de/a.jsonl", "en/a.jsonl"), "folders: de (1), en (1)", "de/a*"),
        (("a/x.jsonl", "b/c/y.jsonl"), "folders: a (1), b/c (1)", "a/x*"),
        (("a.jsonl.zst", "b.jsonl.zstd"), "kinds: .jsonl (1), .zstd (1)", "*.jsonl.zst"),
        (("log.jsonl", "log.jsonl.1", "log.jsonl.2"), "kinds: .jsonl (1), .1 (1), .2 (1)", "*.jsonl"),
    ],
)
def test_files_that_are_hardly_all_meant_are_refused_with_the_pattern_to_give(tmp_path, names, what, give):
    path = laid(tmp_path, *names)
    said = refused(path)
    assert f"holds files of several {what}; give data.topics.text.files='{give}'" in said
    assert files(path, give)
    for pattern in said.split("files='")[1:]:  # also the one for all, where there is one
        assert files(path, pattern.split("'")[0])
    assert f"give eval.mmlu_path={path}/" in refused(path, key="eval.mmlu_path")


def test_a_pattern_says_which_files(tmp_path):
    path = laid(tmp_path, "train-0.jsonl", "test-0.jsonl", "data/a.jsonl", "part[1].jsonl", "b.md")
    assert files(path, "train*") == ["train-0.jsonl"]
    assert files(path, "t*") == ["test-0.jsonl", "train-0.jsonl"]
    assert files(path, "data") == files(path, "data/") == files(path, "data/*") == ["data/a.jsonl"]
    assert files(path, "part[1].jsonl") == ["part[1].jsonl"]
    assert len(files(path, "**/*.jsonl")) == 4
    assert refused(path, "trian*").endswith("there: b.md, data/, part[1].jsonl, test-0.jsonl, train-0.jsonl")
    assert "no such file to read" in refused(path, "b.md")


@pytest.mark.parametrize("pattern", ["/train*", "../x", "data/../../x", "~/x", "", "a**b/x", "/"])
def test_a_pattern_stays_in_its_folder(tmp_path, pattern):
    said = refused(laid(tmp_path, "train-0.jsonl"), pattern)
    assert said.startswith(f"data.topics.text.files={pattern}: ")
    assert "allowed: such as train*" in said


def test_a_pattern_beside_a_file_must_be_its_name(tmp_path):
    path = laid(tmp_path, "a.jsonl")
    assert sources.text_files(f"{path}/a.jsonl", "data.topics.text.path", "*.jsonl")
    assert "is not the file that" in refused(f"{path}/a.jsonl", "b*")


def test_the_layout_of_a_data_set_is_no_demand(tmp_path):
    path = laid(tmp_path, "all/test-0.parquet", "all/dev-0.parquet")
    assert files(path, usual="all/test-*.parquet") == ["all/test-0.parquet"]
    assert files(laid(tmp_path / "own", "a.jsonl"), usual="all/test-*.parquet") == ["a.jsonl"]
    assert files(path, "all/dev*", usual="all/test-*.parquet") == ["all/dev-0.parquet"]


def test_what_has_a_files_name_and_is_none_is_refused(tmp_path):
    path = laid(tmp_path, "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("gone.jsonl")
    assert "b.jsonl is a broken link (to gone.jsonl)" in refused(path)
    assert "b.jsonl is a broken link (to gone.jsonl)" in refused(f"{path}/b.jsonl")
    (tmp_path / "b.jsonl").unlink()
    os.mkfifo(tmp_path / "c.jsonl")
    assert "c.jsonl is neither a file nor a folder" in refused(path)
    assert "c.jsonl is neither a file nor a folder" in refused(f"{path}/c.jsonl")


def test_an_archive_is_not_taken_for_nothing(tmp_path):
    assert "a.zip cannot be read before it is unpacked" in refused(laid(tmp_path / "a", "a.zip"))
    assert "log.txt.1 cannot be read under this name" in refused(laid(tmp_path / "b", "log.txt.1"))


def test_a_fingerprint_says_how_a_file_is_read(tmp_path):
    laid(tmp_path, "a.jsonl", "a.csv", "a.jsonl.gz", "a.JSONL", "a.ndjson")
    for name in ("a.csv", "a.jsonl.gz", "a.JSONL", "a.ndjson"):
        (tmp_path / name).write_text("a.jsonl")
    made = {
        file.name: sources.text_fingerprint(str(file), "data.retain.path", None, None)[0] for file in tmp_path.iterdir()
    }
    assert made["a.jsonl"].endswith(".jsonl")
    assert made["a.jsonl"] == made["a.JSONL"] == made["a.ndjson"]
    assert len(set(made.values())) == 3


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"]
)
def test_model_fingerprint_changes_with_weights_config_and_tokenizer(tmp_path, file):
    path = model(tmp_path / "m")
    before = sources.model_fingerprint(path, None, None)
    (tmp_path / "m" / file).write_text("other")
    assert sources.model_fingerprint(path, None, None) != before


@pytest.mark.parametrize("file", ["tekken.json", "own.tiktoken"])
def test_model_fingerprint_changes_with_a_tokenizer_of_another_form(tmp_path, file):
    path = model(tmp_path / "m")
    before = sources.model_fingerprint(path, None, None)
    (tmp_path / "m" / file).write_text("words")
    first = sources.model_fingerprint(path, None, None)
    (tmp_path / "m" / file).write_text("others")
    assert len({before, first, sources.model_fingerprint(path, None, None)}) == 3


def indexed(place: Path, *files: str, **of: str) -> str:
    """A folder with these weights, and an index that takes tensors from them."""
    path = model(place)
    (place / "model.safetensors").unlink()
    for name in files:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text(name)
    index_of(place, **of)
    return path


def index_of(place: Path, **of: str) -> None:
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": of}))


def test_model_fingerprint_of_usual_shards_is_that_of_their_contents(tmp_path):
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    path = indexed(tmp_path / "m", *files, a=files[0], b=files[1])
    first = sources.model_fingerprint(path, None, None)
    index_of(tmp_path / "m", b=files[1], a=files[0], c=files[0])  # which tensors a file has, it says itself
    assert sources.model_fingerprint(path, None, None) == first
    (tmp_path / "m" / "model.safetensors.index.json").unlink()  # in no key before
    assert sources.model_fingerprint(path, None, None) == first


def test_model_fingerprint_changes_with_the_files_that_an_index_names(tmp_path):
    path = indexed(tmp_path / "m", "old.safetensors", "new.safetensors", a="old.safetensors")
    first = sources.model_fingerprint(path, None, None)
    index_of(tmp_path / "m", a="new.safetensors")
    assert sources.model_fingerprint(path, None, None) != first


def test_shards_in_a_folder_below_count_and_those_elsewhere_are_refused(tmp_path):
    path = indexed(tmp_path / "m", "w/one.safetensors", a="w/one.safetensors")
    first = sources.model_fingerprint(path, None, None)
    (tmp_path / "m" / "w" / "one.safetensors").write_text("other")
    assert sources.model_fingerprint(path, None, None) != first
    index_of(tmp_path / "m", a="../one.safetensors")
    with pytest.raises(ValueError, match=r"^model\.path=.*/m: .*names \.\./one\.safetensors, outside the folder"):
        sources.model_fingerprint(path, None, None)


def test_model_fingerprint_is_of_the_content_not_the_place(tmp_path):
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    (tmp_path / "two" / "README.md").write_text("another word on it")
    assert sources.model_fingerprint(one, None, None) == sources.model_fingerprint(two, None, None)


def test_model_fingerprint_refuses_a_folder_without_weights(tmp_path):
    path = folder(tmp_path / "m", config__json="{}", tokenizer__json="{}")
    with pytest.raises(ValueError, match=r"^model\.path=.*/m: a folder without weights"):
        sources.model_fingerprint(path, None, None)


def test_model_fingerprint_of_a_gguf_file(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_text("a")
    assert sources.model_fingerprint(str(file), None, None) == sources.fingerprint(file, None)


@pytest.mark.parametrize("path", ["./absent", "/absent/folder", "~/absent/folder", "absent.gguf"])
def test_model_fingerprint_names_the_key_of_a_missing_path(path):
    with pytest.raises(ValueError, match=rf"^model\.path={path}: no such file or folder"):
        sources.model_fingerprint(path, None, None)


def test_model_fingerprint_of_a_hub_id_that_is_not_here_says_what_to_do():
    with pytest.raises(ValueError, match=r"^model\.path=nobody/no-such-model: .*download.*model\.path=FOLDER"):
        sources.model_fingerprint("nobody/no-such-model", None, None)
