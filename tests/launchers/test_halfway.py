"""What happens in the middle of a sweep: two begin at once, the disk fills, configuration or code change."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest

from rna.store import lookup
from tests.launchers.running import STORE, noted, start, study, sweep, trials

POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=2", "hydra.sweeper.max_retries=99")


def recorded(folder: Path) -> list[str]:
    return [words[1] for words in noted(folder) if words[0] == "recorded"]


def interrupt(folder: Path, *arguments: str, after: int) -> None:
    """Kill a sweep once so many of its trials are recorded."""
    running = start(folder, *arguments)
    while len(recorded(folder)) < after:
        assert running.poll() is None
        time.sleep(0.05)
    running.kill()
    running.wait()


@pytest.mark.slow
def test_of_sweepers_started_at_once_one_works(tmp_path: Path):
    begun = [start(tmp_path, *STORE, "+x=1,2,3", "+sleep=1") for _ in range(3)]
    assert sorted(running.wait(60) for running in begun) == [0, 2, 2]
    assert (tmp_path / "printed.log").read_text().count("works on it already; nothing was started") == 2
    assert recorded(tmp_path) == ["x1", "x2", "x3"]
    assert [state for _, state, _, _ in study(tmp_path)] == ["COMPLETE"] * 3


def test_a_trial_that_found_the_disk_full_stops_the_sweep_and_is_not_counted_as_failed(tmp_path: Path):
    arguments = ("+x=1,2,3,4", "+full=3", *STORE)
    printed = sweep(tmp_path, *arguments, code=1)
    assert "No space left on device: its checkpoint; nothing that was written is lost: make room" in printed
    assert [trial.status for trial in trials(tmp_path)] == ["done", "done", "queued", "queued"]
    (tmp_path / "room").touch()
    sweep(tmp_path, *arguments)
    assert recorded(tmp_path) == ["x1", "x2", "x3", "x4"]
    assert {trial.attempts for trial in trials(tmp_path)} == {1}


@pytest.mark.slow
def test_a_configuration_that_changes_halfway_mixes_nothing(tmp_path: Path):
    arguments = (*POOL, *STORE, "+x=1,2,3,4", "+sleep=0.5")
    interrupt(tmp_path, *arguments, "+version=a", after=2)
    old = {name: (tmp_path / "record" / f"{name}.json").read_bytes() for name in recorded(tmp_path)}
    printed = sweep(tmp_path, *arguments, "+version=b")
    assert "configuration or code has changed since this sweep began: 4 of 4 trials are other ones now" in printed
    for name, content in old.items():
        assert (tmp_path / "record" / f"{name}.json").read_bytes() == content
    assert {trial.address["key"] for trial in trials(tmp_path) if trial.address} == {
        f"x{n}_versionb" for n in range(1, 5)
    }
    assert len(study(tmp_path)) == 4
    back = sweep(tmp_path, *arguments, "+version=a")  # what was recorded then is found again
    assert "configuration or code has changed since this sweep began: 4 of 4 trials are other ones now" in back
    assert set(Counter(recorded(tmp_path)).values()) == {1}


def test_without_a_store_another_configuration_is_refused(tmp_path: Path):
    sweep(tmp_path, "+x=1,2", "+rate=1", "+fail=2", code=1)
    printed = sweep(tmp_path, "+x=1,2", "+rate=2", code=2)
    assert printed == (
        "error: hydra.sweeper.study_name=toy: this study was begun with another configuration (fail, rate differ); "
        "give another name, or the configuration it was begun with\n"
    )
    assert [words[1] for words in noted(tmp_path)] == ["x1", "x2"]


def test_another_version_of_the_numerics_is_a_changed_configuration(monkeypatch: pytest.MonkeyPatch):
    before = lookup.fingerprint({"seed": 0})
    assert json.loads(json.dumps(before)) == before == lookup.fingerprint({"seed": 0})  # it is kept as JSON
    monkeypatch.setattr(lookup, "NUMERICS", lookup.NUMERICS + 1)
    assert lookup.fingerprint({"seed": 0}) != before


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_search_killed_halfway_loses_and_repeats_nothing(tmp_path: Path, sampler: str):
    search = ("+x=interval(0,1)", "+y=0,1,2", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=24")
    arguments = (*POOL, *STORE, *search, "+sleep=0.3")
    for after in (2, 9, 16):
        interrupt(tmp_path, *arguments, after=after)
        drawn = {trial.number: trial.cell for trial in trials(tmp_path)}
    sweep(tmp_path, *arguments)
    found = {trial.number: trial.cell for trial in trials(tmp_path)}
    assert {number: found[number] for number in drawn} == drawn  # what was in flight is not drawn again
    assert sorted(found) == list(range(24))
    assert len({str(cell) for cell in found.values()}) == 24
    assert Counter(recorded(tmp_path)) == Counter(set(recorded(tmp_path)))
    assert len(recorded(tmp_path)) == 24
