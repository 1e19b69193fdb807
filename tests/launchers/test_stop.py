"""Signals while a sweep or a trial runs, on Hydra's own launcher and in a pool: `rna.run` itself, real checkpoints.

Those that a terminal sends reach every process of it, workers too.
"""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rna.sweep import ledger
from tests.launchers.running import environment

LONG = ("train.steps=3000", "train.checkpoint_every=null")
ENDLESS = ("train.steps=3000", "train.grad_accumulation=100000")  # its first step takes hours
SEEDS = ("-m", "seed=0,1", "hydra.sweeper.study_name=s")
POOL = (*SEEDS, "hydra/launcher=gpu_pool", "hydra.launcher.processes=1")
slow, faults = pytest.mark.slow, pytest.mark.faults
pytestmark = pytest.mark.usefixtures("hangups")


def begun(folder: Path, *words: str, **more: Any) -> subprocess.Popen[bytes]:
    """The program in a session of its own, as at a terminal."""
    common = ("noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled", "train_only=true")
    command = [sys.executable, "-m", "rna.run", *words, f"output_dir={folder}", *common]
    with (folder / "printed.log").open("a") as stream:
        streams = {"stdout": stream, "stderr": stream} | more
        return subprocess.Popen(command, env=environment(), start_new_session=True, **streams)


def printed(folder: Path) -> str:
    return (folder / "printed.log").read_text(errors="replace")


def until(running: subprocess.Popen[bytes], folder: Path, happens: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not happens():
        assert running.poll() is None, printed(folder)
        assert time.monotonic() < deadline, printed(folder)
        time.sleep(0.05)


def steps(folder: Path, phase: str = "training") -> int | None:
    """How far the sweep's trial in work says it is; None before the phase."""
    sweep = folder / "sweeps" / "s"
    told = [ledger.last_beat(sweep, one) for one in ledger.trials(sweep)]
    return next((one["done"] for one in told if one.get("phase") == phase), None)


def until_training(folder: Path, running: subprocess.Popen[bytes]) -> None:
    until(running, folder, lambda: steps(folder) is not None)


def nobody_is_left(running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(["pgrep", "-s", str(running.pid)], capture_output=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        (SEEDS, signal.SIGINT),
        pytest.param(SEEDS, signal.SIGTERM, marks=faults),
        pytest.param(SEEDS, signal.SIGHUP, marks=faults),
        pytest.param(POOL, signal.SIGINT, marks=faults),
        pytest.param(POOL, signal.SIGTERM, marks=faults),
        pytest.param(POOL, signal.SIGHUP, marks=slow),
    ],
)
def test_a_stop_ends_within_a_step_and_its_checkpoint_and_costs_no_attempt(
    launcher: tuple[str, ...], number: int, tmp_path: Path
):
    running = begun(tmp_path, *launcher, *LONG)
    until_training(tmp_path, running)
    os.killpg(running.pid, number)
    assert running.wait(120) == 128 + number, printed(tmp_path)
    said = f"stopped by {signal.Signals(number).name}; the same command goes on where this one was"
    assert printed(tmp_path).count(said) == 1
    assert len(list(tmp_path.glob("trials/*/checkpoint.pt"))) == 1
    assert {(one.status, one.attempts) for one in ledger.trials(tmp_path / "sweeps" / "s")} == {("queued", 0)}
    assert not list(tmp_path.glob("results/*.json"))
    nobody_is_left(running)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGHUP, marks=slow), pytest.param(signal.SIGTERM, marks=faults)]
)
def test_a_trial_alone_writes_its_checkpoint_at_a_stop(number: int, tmp_path: Path):
    running = begun(tmp_path, *LONG)
    until(running, tmp_path, lambda: "training 0" in printed(tmp_path) or "training 1/" in printed(tmp_path))
    os.killpg(running.pid, number)
    assert running.wait(120) == 128 + number, printed(tmp_path)
    assert f"stopped by {signal.Signals(number).name}; the same command goes on" in printed(tmp_path)
    assert "Traceback" not in printed(tmp_path)
    assert len(list(tmp_path.glob("trials/*/checkpoint.pt"))) == 1


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param((), marks=faults),
        pytest.param(SEEDS, marks=faults),
        pytest.param(POOL, marks=slow),
    ],
)
def test_usr1_writes_a_checkpoint_is_said_and_ends_nothing(launcher: tuple[str, ...], tmp_path: Path):
    running = begun(tmp_path, *launcher, *LONG)
    if launcher:
        until(running, tmp_path, lambda: steps(tmp_path, "loading") is not None)  # there is nothing to write yet
        os.killpg(running.pid, signal.SIGUSR1)
        until_training(tmp_path, running)
    else:
        until(running, tmp_path, lambda: "training 1/" in printed(tmp_path))
    os.killpg(running.pid, signal.SIGUSR1)
    until(running, tmp_path, lambda: list(tmp_path.glob("trials/*/checkpoint.pt")))
    until(running, tmp_path, lambda: "SIGUSR1: a warning" in printed(tmp_path))
    if launcher:
        before = steps(tmp_path) or 0
        until(running, tmp_path, lambda: (steps(tmp_path) or 0) > before)
        assert [one.attempts for one in ledger.trials(tmp_path / "sweeps" / "s")] == [1, 0]
    os.killpg(running.pid, signal.SIGTERM)
    assert running.wait(120) == 128 + signal.SIGTERM, printed(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [SEEDS, pytest.param(POOL, marks=faults)])
def test_a_second_ctrl_c_ends_at_once_in_a_step_of_hours(launcher: tuple[str, ...], tmp_path: Path):
    running = begun(tmp_path, *launcher, *ENDLESS)
    until(running, tmp_path, lambda: steps(tmp_path, "loading") is not None)
    time.sleep(8)  # in its first step by now, or on the way there: nothing tells
    os.killpg(running.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        running.wait(3)
    os.killpg(running.pid, signal.SIGINT)
    assert running.wait(50) == 128 + signal.SIGINT, printed(tmp_path)  # sooner than the patience with checkpoints ends
    assert printed(tmp_path).count("stopped by SIGINT") == 1
    assert "Traceback" not in printed(tmp_path)
    nobody_is_left(running)


@pytest.mark.parametrize("launcher", [pytest.param((), marks=slow), pytest.param(POOL, marks=faults)])
def test_a_terminal_that_is_closed_leaves_a_checkpoint_and_no_process(launcher: tuple[str, ...], tmp_path: Path):
    """Each word to it is an error from then on."""
    ours, theirs = pty.openpty()
    controlled = ["setsid", "--ctty", "--wait"]
    command = [sys.executable, "-m", "rna.run", *launcher, f"output_dir={tmp_path}", "noise.nu=0.01", *LONG]
    command += ["baseline=skip", "model.retrained=null", "wandb=disabled", "train_only=true"]
    running = subprocess.Popen(
        [*controlled, *command], env=environment(), stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    seen = b""
    while b"training" not in seen or b"0:00:0" not in seen:
        seen += os.read(ours, 4096)
    time.sleep(3)
    os.close(ours)
    assert running.wait(120) == 128 + signal.SIGHUP, seen
    assert len(list(tmp_path.glob("trials/*/checkpoint.pt"))) == 1


def tensors(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("trials/*/*.safetensors")}


@faults
@pytest.mark.parametrize("launcher", [SEEDS, POOL])
def test_five_ctrl_c_cost_no_attempt_and_change_no_bit(launcher: tuple[str, ...], tmp_path: Path):
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    few = ("train.steps=40", "train.checkpoint_every=null")
    for folder in (disturbed, whole):
        folder.mkdir()
    for _ in range(5):
        running = begun(disturbed, *launcher, *few)
        until_training(disturbed, running)
        os.killpg(running.pid, signal.SIGINT)
        assert running.wait(120) == 128 + signal.SIGINT, printed(disturbed)
        assert {one.attempts for one in ledger.trials(disturbed / "sweeps" / "s") if one.status == "queued"} == {0}
        nobody_is_left(running)
    assert list(disturbed.glob("trials/*/checkpoint.pt"))
    for folder in (disturbed, whole):
        assert begun(folder, *launcher, *few).wait(900) == 0, printed(folder)
    assert {(one.status, one.attempts) for one in ledger.trials(disturbed / "sweeps" / "s")} == {("done", 1)}
    assert len(tensors(whole)) == 2
    assert tensors(disturbed) == tensors(whole)
