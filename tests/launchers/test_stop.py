"""A stop on Hydra's own launcher, whose trials run in the sweep's process: `rna.run` itself, with real checkpoints."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rna.sweep import ledger
from tests.launchers.running import environment

LONG = ("train.steps=3000", "train.checkpoint_every=null")


def begun(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    common = ("noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled", "train_only=true")
    command = [sys.executable, "-m", "rna.run", "-m", "seed=0,1", f"output_dir={folder}", *common]
    command += ["hydra.sweeper.study_name=s", *words]
    with (folder / "printed.log").open("w") as stream:
        return subprocess.Popen(command, env=environment(), stdout=stream, stderr=stream)


def until_training(folder: Path, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    sweep = folder / "sweeps" / "s"
    while not [one for one in ledger.trials(sweep) if ledger.last_beat(sweep, one).get("phase") == "training"]:
        assert running.poll() is None, (folder / "printed.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_within_a_step_and_its_checkpoint_and_costs_no_attempt(number: int, tmp_path: Path):
    running = begun(tmp_path, *LONG)
    until_training(tmp_path, running)
    running.send_signal(number)
    asked = time.monotonic()
    assert running.wait(60) == 128 + number, (tmp_path / "printed.log").read_text()
    assert time.monotonic() - asked < 20
    assert f"stopped by {signal.Signals(number).name}" in (tmp_path / "printed.log").read_text()
    assert len(list(tmp_path.glob("trials/*/checkpoint.pt"))) == 1
    assert {(one.status, one.attempts) for one in ledger.trials(tmp_path / "sweeps" / "s")} == {("queued", 0)}
    assert not list(tmp_path.glob("results/*.json"))
