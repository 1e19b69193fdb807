"""The cache: what it finds again, what it forgives, and that it changes no bit of a result."""

import errno
import os
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import tensor

from rna import run, trial
from rna.corpora import cache
from rna.corpora.cache import Cache, Remembered, States
from rna.settings import config
from rna.store import results

ROOMY = 2**30


def test_an_entry_is_found_by_kind_and_identity(tmp_path: Path):
    kept = Cache(tmp_path / "cache", ROOMY)
    kept.save("tokens", {"a": 1}, {"ids": tensor([1, 2])})
    found = kept.load("tokens", {"a": 1})
    assert found is not None
    assert found["ids"].tolist() == [1, 2]
    assert kept.load("tokens", {"a": 2}) is None
    assert kept.load("norms", {"a": 1}) is None


def test_without_a_folder_nothing_is_kept(tmp_path: Path):
    off = Cache(None, ROOMY)
    off.save("tokens", 1, {"ids": tensor([1])})
    assert off.load("tokens", 1) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 1, 9, 60])
def test_a_file_cut_short_is_taken_away_and_made_again(tmp_path: Path, cut: int):
    kept = Cache(tmp_path, ROOMY)
    kept.save("tokens", 1, {"ids": tensor([1, 2, 3])})
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:cut])
    assert kept.load("tokens", 1) is None
    assert not path.exists()
    kept.save("tokens", 1, {"ids": tensor([1, 2, 3])})
    assert kept.load("tokens", 1) is not None


def test_the_entries_used_longest_ago_make_room(tmp_path: Path):
    big = {"x": torch.zeros(1000)}
    kept = Cache(tmp_path, 3 * 4200)
    for number in range(3):
        kept.save("x", number, big)
        path = kept._path("x", number)
        assert path is not None
        os.utime(path, (number, number))
    assert kept.load("x", 0) is not None  # used just now: entry 1 is the oldest
    kept.save("x", 3, big)
    assert [kept.load("x", number) is not None for number in range(4)] == [True, False, True, True]


def test_a_temporary_file_goes_only_when_its_writer_must_be_gone(tmp_path: Path):
    old, new = tmp_path / "x.1.tmp", tmp_path / "x.2.tmp"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    Cache(tmp_path, ROOMY).save("x", 1, {"x": torch.zeros(1)})
    assert (old.exists(), new.exists()) == (False, True)


def test_a_full_disk_costs_the_entry_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(UserWarning, match="cannot be written"):
        Cache(tmp_path, ROOMY).save("x", 1, {"x": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_many_writers_and_readers_at_once(tmp_path: Path):
    """Each reads whole entries or none, whatever the others write, remove and crowd out meanwhile."""
    wrong: list[object] = []

    def work(own: int) -> None:
        kept = Cache(tmp_path, 20_000)
        for number in range(30):
            kept.save("x", number % 7, {"x": torch.full((500,), number % 7)})
            found = kept.load("x", (number + own) % 7)
            if found is not None and not (found["x"] == (number + own) % 7).all():
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


def test_remembered_values_are_computed_once_and_kept(tmp_path: Path):
    computed: list[int] = []

    def value(number: int) -> torch.Tensor:
        computed.append(number)
        return torch.full((2,), float(number))

    for _ in range(2):
        memory = Remembered(Cache(tmp_path, ROOMY), "log_probs", "same")
        for number in (0, 1, 0):
            assert memory.recall(number, lambda number=number: value(number)).tolist() == [number, number]
        memory.keep()
    assert computed == [0, 1]


@pytest.fixture
def reading_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it takes."""
    monkeypatch.setattr(cache, "PAYS", float("inf"))


def states(kept: Cache, count: int) -> tuple[list[int], States]:
    """A trial that asks for the states of so many batches, 4,000 bytes each; which of them it computed."""
    computed: list[int] = []
    made = States(kept, "same")

    def compute(number: int) -> torch.Tensor:
        computed.append(number)
        return torch.full((1, 10, 100), float(number))

    for number in range(count):
        assert made.recall(number, lambda number=number: compute(number)).unique().tolist() == [number]
    return computed, made


@pytest.mark.usefixtures("reading_pays")
def test_states_are_computed_once_and_the_first_batch_tells_whether_to_keep_them(tmp_path: Path):
    first, _ = states(Cache(tmp_path, ROOMY), 4)
    again, made = states(Cache(tmp_path, ROOMY), 4)
    assert (first, again, made.pays) == ([0, 0, 1, 2, 3], [0, 0], True)


def test_states_that_are_read_no_faster_are_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "PAYS", 0.0)
    computed, made = states(Cache(tmp_path, ROOMY), 3)
    assert (computed, made.pays) == ([0, 0, 1, 2], False)


@pytest.mark.usefixtures("reading_pays")
def test_states_of_another_machines_arithmetic_are_not_used(tmp_path: Path):
    kept = Cache(tmp_path, ROOMY)
    states(kept, 3)
    kept.save("states", ["same", 0], {"states": torch.full((1, 10, 100), 1e-7)})
    computed, made = states(kept, 3)
    assert (computed, made.pays) == ([0, 0, 1, 2], False)


@pytest.mark.usefixtures("reading_pays")
def test_of_states_that_do_not_fit_the_first_stay(tmp_path: Path):
    """So that a trial finds some of them, where keeping the last ones would lose each before it is asked for again."""
    kept = Cache(tmp_path, 3 * 4200)
    states(kept, 6)
    assert states(kept, 6)[0] == [0, 0, 3, 4, 5]
    old = sorted(tmp_path.iterdir())[0]
    os.utime(old, (1, 1))
    kept.admit("x", "another", {"x": torch.zeros(1000)})
    assert (old.exists(), len(list(tmp_path.iterdir()))) == (False, 3)


def test_large_entries_leave_a_disk_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cache, "FREE", shutil.disk_usage(tmp_path).total)
    assert not Cache(tmp_path, ROOMY).admit("x", 1, {"x": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.whole
@pytest.mark.usefixtures("reading_pays")
@pytest.mark.parametrize(
    "method",
    [
        "method=dpo",
        "method=adaptive_rmu",
        *(pytest.param(f"method={name}", marks=pytest.mark.slow) for name in ("npo", "rmu")),
    ],
)
def test_results_with_and_without_caches_are_the_same_bits(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Off, cold, and warm (another noise scale first): the trained tensors and the curves are equal."""
    recalled: list[bool] = []
    recall = Remembered.recall
    monkeypatch.setattr(
        cache.Remembered,
        "recall",
        lambda self, number, compute: (recalled.append(str(number) in self.values), recall(self, number, compute))[1],
    )

    def unlearn(folder: str, *overrides: str) -> tuple[bytes, list[dict[str, float]]]:
        common = [method, "train.steps=4", "train_only=true", "wandb=disabled", "layer.trained=[1,2]"]
        common.append(f"output_dir={tmp_path / folder}")
        settings = config.check(run.compose([*common, *overrides], None))
        row = trial.arm("with RNA", settings)
        trial.work(row, lambda *_: None)
        assert row.trained is not None
        curve = [{k: v for k, v in step.items() if k != "train/tokens_per_second"} for step in row.trained["curve"]]
        return results.delta_path(settings.output_dir, row.key).read_bytes(), curve

    read: list[bool] = []
    own = States._read
    monkeypatch.setattr(
        States, "_read", lambda self, number: (found := own(self, number), read.append(found is not None))[0]
    )
    off = unlearn("off", "cache.enabled=false")
    assert not (tmp_path / "off" / "cache").exists()
    assert not recalled
    cold = unlearn("cold")
    unlearn("warm", "noise.nu=0.5")
    before = len(recalled)
    read.clear()
    warm = unlearn("warm")
    assert off == cold == warm
    assert len(read) >= 8  # of 4 steps' forget and retain batches
    assert all(read)
    if method != "method=rmu":
        assert len(recalled) > before
        assert all(recalled[before:])
