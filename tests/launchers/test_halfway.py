"""What happens in the middle of a sweep: two begin at once, the disk fills, configuration or code change."""

import json
import os
import re
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rna.store import lookup
from rna.sweep import ledger
from tests.launchers import toy
from tests.launchers.running import STORE, command, noted, start, study, sweep, trials

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


@pytest.mark.whole
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
    assert re.search(r"has changed since this sweep began: (\d) of \1 trials are other ones now", printed)
    for name, content in old.items():
        assert (tmp_path / "record" / f"{name}.json").read_bytes() == content
    assert {trial.address["key"] for trial in trials(tmp_path) if trial.address} == {
        f"x{n}_versionb" for n in range(1, 5)
    }
    assert len(study(tmp_path)) == 4
    back = sweep(tmp_path, *arguments, "+version=a")  # what was recorded then is found again
    assert "configuration or code has changed since this sweep began: 4 of 4 trials are other ones now" in back
    assert set(Counter(recorded(tmp_path)).values()) == {1}


@pytest.mark.whole
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


def killed_at_write(folder: Path, number: int, *arguments: str) -> bool:
    """Run a sweep in a child process that ends at the ledger's write of this number; whether it came that far."""
    child = os.fork()
    if child == 0:
        count, real = 0, os.fsync

        def fsync(descriptor: int) -> None:
            nonlocal count
            count += sys._getframe(1).f_globals["__name__"] == ledger.__name__
            if count == number:
                os._exit(9)
            real(descriptor)

        os.fsync = fsync
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.chdir(folder)
        sys.argv = command(f"+folder={folder}", *arguments)[2:]
        try:
            toy.main()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def outcome(folder: Path) -> list[dict[str, Any]]:
    """What the ledger says but for names and times."""
    found = json.loads(json.dumps([vars(trial) for trial in trials(folder)]).replace(str(folder), "FOLDER"))
    for item in found:
        for key in ("token", "seconds", "ended", "log", "composed_of"):
            del item[key]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("before", [(), ("+version=a", "+x=1,2,3", "+y=0"), ("+version=a", "+x=1,2", "+y=0")])
def test_killed_at_any_write_a_sweep_comes_to_what_it_would_have(tmp_path: Path, before: tuple[str, ...]):
    """Also where another configuration, or fewer cells, had been run to their end under its name."""
    begun, whole, after = tmp_path / "begun", tmp_path / "whole", ("+version=b", "+x=1,2,3", "+y=0", *STORE)
    begun.mkdir()
    if before:
        assert not killed_at_write(begun, 0, *before, *STORE)
        assert len(trials(begun)) == len(recorded(begun)) >= 2
    shutil.copytree(begun, whole)
    for file in (whole / "sweeps").rglob("trials/*.json"):
        file.write_text(file.read_text().replace(str(begun), str(whole)))
    assert not killed_at_write(whole, 0, *after)
    wanted, kills = outcome(whole), 0
    assert [item["address"]["key"] for item in wanted] == [f"x{x}_y0_versionb" for x in (1, 2, 3)]
    while True:
        folder = tmp_path / f"killed{kills}"
        shutil.copytree(begun, folder)
        for file in (folder / "sweeps").rglob("trials/*.json"):
            file.write_text(file.read_text().replace(str(begun), str(folder)))
        killed_at_write(folder, kills + 1, *after)
        if len(noted(folder)) > len(noted(begun)):  # the stage is over
            break
        kills += 1
        assert not killed_at_write(folder, 0, *after)
        assert outcome(folder) == wanted, f"killed at write {kills}"
        assert sum(name.endswith("versionb") for name in set(recorded(folder))) == 3
        assert set(Counter(recorded(folder)).values()) == {1}
    assert kills >= 4


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
