"""Cancel and pause of trials that are with a cluster."""

from pathlib import Path

import pytest

from rna.sweep import asked, ledger
from tests.launchers.running import noted, start, sweep, trials
from tests.slurm.test_slurm import queue, slurm, until

pytestmark = pytest.mark.slurm


def of(jobs: list[str]) -> list[str]:
    """Why each of these jobs waits, of those that are in the queue."""
    return [line.split()[1] for line in queue("%i %r") if line.split()[0] in jobs]


def jobs_of(folder: Path) -> list[str]:
    return [trial.job for trial in trials(folder) if trial.job]


def test_a_sweep_nobody_waits_for_is_cancelled_with_its_jobs_and_waits_for_its_command(tmp_path: Path):
    sweep(tmp_path, *slurm(tmp_path, "+x=1,2,3", "+sleep=300", "hydra.launcher.wait=false"))
    folder, jobs = tmp_path / "sweeps" / "toy", jobs_of(tmp_path)
    until(lambda: len(of(jobs)) == 3, 60)
    assert asked.cancel(folder, [2]) == {"cancelled": [2], "stopped": 0, "answered": True, "sweeper": False}
    until(lambda: len(of(jobs)) == 2, 120)
    assert asked.cancel(folder, [])["stopped"] == 2
    until(lambda: not of(jobs), 120)
    assert [(one.status, one.attempts, one.job) for one in trials(tmp_path)][:2] == [(ledger.QUEUED, 0, None)] * 2
    assert trials(tmp_path)[2].cancelled


def test_a_sweeper_takes_its_jobs_back_when_it_is_cancelled(tmp_path: Path):
    running = start(tmp_path, *slurm(tmp_path, "+x=1,2,3", "+sleep=300"))
    until(lambda: len(jobs_of(tmp_path)) == 3, 200)
    jobs = jobs_of(tmp_path)
    found = asked.cancel(tmp_path / "sweeps" / "toy", [])
    assert (found["answered"], found["sweeper"]) == (True, True)
    assert running.wait(60) == 130
    until(lambda: not of(jobs), 120)
    assert {(one.status, one.attempts) for one in trials(tmp_path)} == {(ledger.QUEUED, 0)}


def test_a_pause_holds_the_jobs_that_wait_until_it_is_over(tmp_path: Path):
    grid = slurm(tmp_path, "+x=1,2,3", "+sleep=1", "hydra.launcher.wait=false", "hydra.launcher.max_parallel=1")
    sweep(tmp_path, *grid)
    folder, jobs = tmp_path / "sweeps" / "toy", jobs_of(tmp_path)
    assert asked.pause(folder)["jobs"] == 3
    until(lambda: all(why.startswith("JobHeld") for why in of(jobs)), 120)
    assert of(jobs), "all three had run before they were held"
    begun = len(noted(tmp_path))
    assert begun < 6
    assert asked.resume(folder)["jobs"] == 3
    until(lambda: not of(jobs), 200)
    assert "3 done, 0 failed" in sweep(tmp_path, *grid)
