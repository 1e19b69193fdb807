"""Deleting shows first, deletes in an order that a kill cannot spoil, and spares what others need or hold."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rna.records import deleting, trials
from rna.records.__main__ import main
from rna.records.listing import Filters
from rna.store import results
from rna.sweep import ledger
from tests import generated
from tests.generated import scores, settings


def full(folder: Path, made, forget: float = 30.0) -> str:
    """A trial with everything that may lie of one."""
    key = generated.trial(folder, made, scores(forget, 40), curve=3)
    own = folder / "trials" / key
    own.mkdir(parents=True)
    for name in ("unlearned.safetensors", "checkpoint.pt", "answers.json"):
        (own / name).write_bytes(b"0" * 1000)
    for name in (f"{key}.failed1.json", f"{key}.broken"):
        (folder / "results" / name).write_text("{}")
    for run in (f"offline-run-20260101_000000-{key}", f"offline-run-20260102_000000-{key}-0123456789abcdef"):
        (folder / "wandb" / run / "files").mkdir(parents=True)
        (folder / "wandb" / run / "files" / "x").write_bytes(b"0" * 100)
    return key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generated.references(tmp_path)
    return tmp_path


def listed(folder: Path) -> set[Path]:
    """All files but the locks."""
    return {path for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks"}


def keys(folder: Path) -> set[str]:
    return {row["key"] for row in trials(str(folder))}


def test_nothing_is_deleted_without_yes(folder: Path, called: Callable[..., str]):
    key = full(folder, settings())
    before = listed(folder)
    printed = called(main, "delete", key[:6], "--output-dir", str(folder))
    assert key in printed
    assert "would delete 1 trial, " in printed
    assert "2 of 2 W&B runs were never uploaded" in printed
    assert listed(folder) == before


def test_yes_deletes_all_that_is_the_trials_and_nothing_else(folder: Path, called: Callable[..., str]):
    before = listed(folder)
    key = full(folder, settings())
    other = full(folder, settings(seed=1), 31)
    mine = {path for path in listed(folder) - before if key in str(path)}
    theirs = listed(folder) - mine
    assert len(mine) == 1 + 6 + 2 + 3 + 2
    printed = called(main, "delete", key, "--output-dir", str(folder), "--yes")
    assert "deleted: 1 trial, " in printed
    assert listed(folder) == theirs
    assert not (folder / "trials" / key).exists()
    assert other in keys(folder)


def test_a_plain_twin_stays_while_another_trial_needs_it(folder: Path, called: Callable[..., str]):
    plain, rna = full(folder, settings()), full(folder, settings(nu=0.014), 31)
    base = trials(str(folder), arm="base")[0]["key"]
    printed = called(main, "delete", plain, base, "--output-dir", str(folder), "--yes")
    assert f"kept: {plain}: the plain twin of {rna}, which stays" in printed
    assert f"kept: {base}: the base model of " in printed
    assert {plain, rna, base} <= keys(folder)
    printed = called(main, "delete", plain, rna, base, "--output-dir", str(folder), "--yes")
    assert "kept" not in printed  # together none of them is needed
    assert keys(folder) == {trials(str(folder), arm="retrained")[0]["key"]}


def test_a_sweep_goes_with_its_twins_but_for_what_another_needs(folder: Path, called: Callable[..., str]):
    mine, shared = full(folder, settings(nu=0.014)), full(folder, settings(nu=0.03), 31)
    plain, foreign = full(folder, settings(), 32), full(folder, settings(seed=5), 33)
    for name, numbers in (("mine", (mine, shared)), ("yours", (shared,))):
        for number, key in enumerate(numbers):
            ledger.save(folder / "sweeps" / name, ledger.Trial(number, [], address={"key": key}))
    printed = called(main, "delete", "--sweep", "mine", "--output-dir", str(folder), "--yes")
    assert f"kept: {shared}: sweep yours has it" in printed
    assert f"kept: {plain}: the plain twin of {shared}, which stays" in printed
    assert f"stays: {folder / 'sweeps' / 'mine'}" in printed
    assert mine not in keys(folder)
    assert {shared, plain, foreign} <= keys(folder)
    called(main, "delete", "--sweep", "mine", "yours", "--output-dir", str(folder), "--yes")
    assert keys(folder) & {shared, plain, foreign} == {foreign}


def test_a_trial_of_a_sweep_goes_where_the_sweep_is_named(folder: Path, called: Callable[..., str]):
    key, other = full(folder, settings(nu=0.014)), full(folder, settings(nu=0.014, seed=1), 31)
    for number, one in enumerate((key, other)):
        ledger.save(folder / "sweeps" / "mine", ledger.Trial(number, [], address={"key": one}))
    printed = called(main, "delete", key, "--output-dir", str(folder), "--yes")
    assert f"kept: {key}: sweep mine has it; with --sweep mine it goes" in printed
    assert "deleted: 0 trials" in printed
    called(main, "delete", key, "--sweep", "mine", "--output-dir", str(folder), "--yes")
    assert keys(folder) & {key, other} == {other}


def test_filters_choose_and_nothing_chooses_nothing(folder: Path, called: Callable[..., str]):
    gone, stays = full(folder, settings(seed=1)), full(folder, settings(seed=2), 31)
    called(main, "delete", "--seed", "1", "--method", "npo", "--output-dir", str(folder), "--yes")
    assert keys(folder) & {gone, stays} == {stays}
    before = listed(folder)
    printed = called(main, "delete", "--output-dir", str(folder), "--yes", code=2)
    assert "error: delete: give a KEY" in printed
    assert listed(folder) == before


def test_what_a_process_holds_stays(folder: Path, called: Callable[..., str]):
    held, free = full(folder, settings(nu=0.014)), full(folder, settings(nu=0.03), 31)
    with results.single_flight(str(folder), held):
        printed = called(main, "delete", held, free, "--output-dir", str(folder), "--yes")
    assert f"kept: {held}: a running process holds it" in printed
    assert keys(folder) & {held, free} == {held}


def test_a_trial_taken_in_work_after_the_look_stays(folder: Path):
    key = full(folder, settings(nu=0.014))
    planned = deleting.plan(str(folder), [key], Filters(), [])
    assert [item.key for item in planned.doomed] == [key]
    before = listed(folder)
    with results.single_flight(str(folder), key):
        done = deleting.delete(str(folder), planned)
    assert done.doomed == []
    assert done.kept == {key: "a running process holds it"}
    assert listed(folder) == before


def test_what_a_trial_that_runs_may_be_compared_with_stays(folder: Path, called: Callable[..., str]):
    plain = full(folder, settings())
    with results.single_flight(str(folder), "f" * 16):  # it has no record that would tell its twin
        printed = called(main, "delete", plain, "--output-dir", str(folder), "--yes")
    assert f"kept: {plain}: a running trial may need it" in printed
    assert plain in keys(folder)


def test_a_sweep_in_work_is_not_touched(folder: Path, called: Callable[..., str]):
    key = full(folder, settings(nu=0.014))
    ledger.save(folder / "sweeps" / "mine", ledger.Trial(0, [], address={"key": key}))
    with ledger.held(folder / "sweeps" / "mine"):
        printed = called(main, "delete", "--sweep", "mine", "--output-dir", str(folder), "--yes", code=2)
    assert "error: sweep mine: process" in printed
    assert key in keys(folder)


def test_a_training_without_a_record_goes_too(folder: Path, called: Callable[..., str]):
    key = "0123456789abcdef"
    (folder / "trials" / key).mkdir(parents=True)
    (folder / "trials" / key / "checkpoint.pt").write_bytes(b"0" * 10)
    printed = called(main, "delete", "0123", "--output-dir", str(folder), "--yes")
    assert "unfinished" in printed
    assert not (folder / "trials" / key).exists()


def killed_at(removal: int, folder: Path, key: str) -> bool:
    """Delete in a child that is killed at its so-manieth removal; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, _: tuple) -> None:
            nonlocal count
            if event == "os.remove":
                count += 1
                if count == removal:
                    os._exit(9)

        sys.addaudithook(watch)
        deleting.delete(str(folder), deleting.plan(str(folder), [key], Filters(), []))
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.whole
def test_a_kill_at_any_removal_leaves_a_trial_that_is_listed_and_can_be_deleted(folder: Path):
    key = full(folder, settings())
    record = folder / "results" / f"{key}.json"
    files_left: list[int] = []
    for _ in range(40):  # each life removes one file and dies at the next
        if not killed_at(2, folder, key):
            break
        assert record.is_file(), "the record goes last"
        assert key in keys(folder)
        evaluations = list((folder / "results").glob(f"{key}-*.json"))
        assert len(evaluations) == 6 or not (folder / "trials" / key).exists(), "tensors go before evaluations"
        files_left.append(len([path for path in listed(folder) if key in str(path)]))
    assert files_left == sorted(files_left, reverse=True)
    assert len(files_left) >= 10
    assert not [path for path in listed(folder) if key in str(path)]
