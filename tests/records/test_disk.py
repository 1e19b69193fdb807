"""What lies in an output folder, to the byte: by kind, and by sweep."""

import json
from collections.abc import Callable
from pathlib import Path

from rna.records import disk
from rna.records.__main__ import main
from rna.sweep import ledger
from tests import generated
from tests.generated import scores, settings


def put(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0" * size)


def test_every_byte_is_counted_once_under_its_kind(tmp_path: Path, called: Callable[..., str]):
    key, other = generated.trial(tmp_path, settings(), scores(30, 40)), generated.trial(tmp_path, settings(seed=1), {})
    put(tmp_path / "trials" / key / "unlearned.safetensors", 10_000)
    put(tmp_path / "trials" / key / "checkpoint.pt", 300)
    put(tmp_path / "trials" / other / "answers.json", 40)
    put(tmp_path / "cache" / "hashes" / "a", 5)
    put(tmp_path / "wandb" / f"offline-run-20260101_000000-{key}" / "files" / "x", 600)
    put(tmp_path / "reports" / "all" / "index.html", 70)
    put(tmp_path / "sweeps" / "mine" / "logs" / "0.log", 8)
    put(tmp_path / "locks" / key, 0)
    put(tmp_path / "note.txt", 2)
    (tmp_path / "link").symlink_to(tmp_path / "trials" / key / "unlearned.safetensors")
    link = (tmp_path / "link").lstat().st_size
    ledger.save(tmp_path / "sweeps" / "mine", ledger.Trial(0, [], address={"key": key}))
    found = json.loads(called(main, "disk", "--output-dir", str(tmp_path), "--json"))
    records = {
        name: sum(file.stat().st_size for file in (tmp_path / "results").glob(f"{name}*")) for name in (key, other)
    }
    told = (tmp_path / "sweeps" / "mine" / "trials" / "0.json").stat().st_size
    assert found["kinds"] == {
        "tensors": 10_000,
        "checkpoint": 300,
        "answers": 40,
        "records": sum(records.values()),
        "cache": 5,
        "wandb": 600,
        "reports": 70,
        "sweeps": 8 + told,
        "other": 2 + link,
    }
    assert found["total"] == sum(path.lstat().st_size for path in tmp_path.rglob("*") if not path.is_dir())
    assert found["sweeps"] == {"mine": 10_000 + 300 + 600 + records[key] + 8 + told}
    assert found["in_no_sweep"] == 40 + records[other]


def test_a_person_sees_the_largest_first_and_nothing_of_what_is_not_there(tmp_path: Path, called: Callable[..., str]):
    put(tmp_path / "cache" / "a", 3000)
    put(tmp_path / "reports" / "a", 5000)
    printed = called(main, "disk", "--output-dir", str(tmp_path)).splitlines()
    assert [line.split() for line in printed[1:4]] == [
        ["reports", "4.9", "KiB"], ["cache", "2.9", "KiB"], ["all", "7.8", "KiB"],
    ]  # fmt: skip
    assert disk.usage(str(tmp_path))["kinds"]["tensors"] == 0
    assert "error: --output-dir nowhere: no such folder" in called(main, "disk", "--output-dir", "nowhere", code=2)
