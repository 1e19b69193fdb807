"""A disk that is really full: `rna.run` stops, says so, and goes on once there is room."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rna.sweep import ledger
from tests.launchers.running import environment

pytestmark = pytest.mark.slow


@pytest.fixture(params=["300k", "1500k"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of this size: too small for the token cache and records, or for checkpoints and tensors."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={request.param}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mounted, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sweep(folder: Path) -> subprocess.CompletedProcess[str]:
    words = ("-m", "seed=0,1,2", "noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled")
    words = (*words, "train.steps=6", "train.checkpoint_every=2", "eval.limit=4", "hydra.sweeper.study_name=s")
    command = [sys.executable, "-m", "rna.run", *words, f"output_dir={folder}"]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=240)


def test_a_full_disk_stops_the_sweep_and_the_same_command_finishes_it(small: Path):
    done = sweep(small)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "nothing that was written is lost: make room" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    before = {file: file.read_bytes() for file in small.glob("results/*.json")}
    subprocess.run(["mount", "-o", "remount,size=200m", str(small)], check=True)
    done = sweep(small)
    assert done.returncode == 0, done.stderr + done.stdout
    found = ledger.trials(small / "sweeps" / "s")
    assert [(one.status, one.attempts) for one in found] == [("done", 1)] * 3
    assert all(file.read_bytes() == content for file, content in before.items())
