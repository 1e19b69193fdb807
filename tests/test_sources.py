"""Paths and fingerprints."""

import os
from pathlib import Path

import pytest

from rna import sources


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
    assert sources.fingerprint(one) == sources.fingerprint(two)
    two.write_text("a test")
    assert sources.fingerprint(one) != sources.fingerprint(two)


def test_a_large_file_is_known_by_size_time_and_head(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALL", 3)
    file = tmp_path / "large.bin"
    seen = set()
    for content, time in (("abcd", 1), ("abcd", 2), ("abce", 2), ("abcde", 2)):
        file.write_text(content)
        os.utime(file, (time, time))
        seen.add(sources.fingerprint(file))
    assert len(seen) == 4


def test_text_fingerprint_covers_every_file_of_a_folder(tmp_path):
    path = folder(tmp_path / "corpus", a__txt="one", b__jsonl="two", notes__md="three")
    before = sources.text_fingerprint(path, "data.retain.path")
    assert len(before) == 2
    (Path(path) / "notes.md").write_text("other")
    assert sources.text_fingerprint(path, "data.retain.path") == before
    (Path(path) / "b.jsonl").write_text("other")
    assert sources.text_fingerprint(path, "data.retain.path") != before


def test_text_fingerprint_tells_kinds_of_files_apart(tmp_path):
    """The same bytes are other texts when they are read line by line."""
    path = folder(tmp_path / "corpus", a__txt='{"text": "x"}', b__jsonl='{"text": "x"}')
    as_lines = sources.text_fingerprint(f"{path}/a.txt", "data.retain.path")
    assert as_lines != sources.text_fingerprint(f"{path}/b.jsonl", "data.retain.path")


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
    with pytest.raises(ValueError, match=rf"^data\.retain\.path=.*{name}: no such file.*\.txt, \.jsonl, \.parquet"):
        sources.text_files(str(tmp_path / name), "data.retain.path")


def test_text_files_refuse_another_kind(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"^data\.retain\.path=.*cannot read a '\.csv' file; allowed: "):
        sources.text_files(str(tmp_path / "a.csv"), "data.retain.path")


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "special_tokens_map.json", "added_tokens.json"]
)
def test_model_fingerprint_changes_with_weights_config_and_tokenizer(tmp_path, file):
    path = model(tmp_path / "m")
    before = sources.model_fingerprint(path, None)
    (tmp_path / "m" / file).write_text("other")
    assert sources.model_fingerprint(path, None) != before


def test_model_fingerprint_is_of_the_content_not_the_place(tmp_path):
    one, two = model(tmp_path / "one"), model(tmp_path / "two")
    (tmp_path / "two" / "README.md").write_text("another word on it")
    assert sources.model_fingerprint(one, None) == sources.model_fingerprint(two, None)


def test_model_fingerprint_refuses_a_folder_without_weights(tmp_path):
    path = folder(tmp_path / "m", config__json="{}", tokenizer__json="{}")
    with pytest.raises(ValueError, match=r"^model\.path=.*/m: a folder without weights"):
        sources.model_fingerprint(path, None)


def test_model_fingerprint_of_a_gguf_file(tmp_path):
    file = tmp_path / "m.gguf"
    file.write_text("a")
    assert sources.model_fingerprint(str(file), None) == sources.fingerprint(file)


@pytest.mark.parametrize("path", ["./absent", "/absent/folder", "~/absent/folder", "absent.gguf"])
def test_model_fingerprint_names_the_key_of_a_missing_path(path):
    with pytest.raises(ValueError, match=rf"^model\.path={path}: no such file or folder"):
        sources.model_fingerprint(path, None)


def test_model_fingerprint_of_a_hub_id_that_is_not_here_says_what_to_do():
    with pytest.raises(ValueError, match=r"^model\.path=nobody/no-such-model: .*download.*model\.path=FOLDER"):
        sources.model_fingerprint("nobody/no-such-model", None)
