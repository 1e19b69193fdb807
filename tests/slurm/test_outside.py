"""A user's own method and retain loss on SLURM, from an installed wheel: killed once, resumed, changed by one byte."""

import subprocess
import time
from pathlib import Path

import pytest

from rna.sweep import ledger
from tests.outside import EVERY, STEPS, Sweep

pytestmark = pytest.mark.slurm


@pytest.mark.faults  # by hand, with the matrix
def test_a_killed_job_of_ones_own_method_goes_on_and_a_changed_file_is_another_method(tmp_path: Path):
    sweep = Sweep(
        tmp_path,
        "hydra/launcher=slurm",
        "hydra.launcher.submit_every=2",
        "hydra.launcher.ask_every=3",
        "hydra.launcher.time_min=20",
    )
    running = sweep.start()
    while sweep.steps < STEPS:
        assert running.poll() is None, sweep.printed
        time.sleep(0.1)
    job = next(trial.job for trial in ledger.trials(sweep.output / "sweeps" / "mine") if trial.job)
    subprocess.run(["scancel", "--signal=KILL", "--full", job], check=True)
    assert running.wait(240) == 0, sweep.printed
    assert "killed" in sweep.printed
    assert "2 done, 0 failed" in sweep.printed
    assert 2 * STEPS <= sweep.steps <= 2 * STEPS + EVERY + 1
    first = sweep.keys()
    sweep.change()
    assert sweep.start().wait(240) == 0, sweep.printed
    assert len(first) == 2
    assert len(sweep.keys()) == 4
