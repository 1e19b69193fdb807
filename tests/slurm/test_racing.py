"""A race on SLURM: each block is a job of its own, and a job that is preempted asks no question twice."""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from rna.sweep import ledger
from tests.slurm.test_to_the_bit import begin

pytestmark = pytest.mark.slurm
WORDS = ("method=npo", "retain=kl", "train.steps=20", "train.lr=2e-5,2e-3", "seed=0,1", "noise=none")
RACE = ("baseline=skip", "model.retrained=null", "wandb=disabled", "eval.race=true", "hydra.launcher.time_min=20")


@pytest.mark.faults  # by hand, with the matrix
def test_a_race_goes_on_where_its_jobs_are_cancelled_and_its_sweeper_is_killed(tmp_path: Path):
    running, folder = begin(tmp_path, *WORDS, *RACE)
    printed = tmp_path / "printed.log"

    def blocks() -> list[Path]:
        return sorted(tmp_path.glob("trials/*/block-*.json"))

    while len(blocks()) < 2:
        assert running.poll() is None, printed.read_text()
        time.sleep(0.2)
    job = next((trial.job for trial in ledger.trials(folder) if trial.job), None)
    if job is not None:
        subprocess.run(["scontrol", "requeue", job], check=False)
    running.kill()
    running.wait()
    before = {file: file.read_bytes() for file in blocks()}
    again, _ = begin(tmp_path, *WORDS, *RACE)
    assert again.wait(400) == 0, printed.read_text()
    assert {file: file.read_bytes() for file in before} == before
    told = json.loads((folder / "race.json").read_text())
    assert told["asked"] < told["of"]
    assert re.search(r"race: \d+ of \d+ answers on the select half", printed.read_text())
    assert {trial.status for trial in ledger.trials(folder)} == {ledger.DONE, ledger.PRUNED}
