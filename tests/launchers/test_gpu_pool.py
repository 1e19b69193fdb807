"""The pool launcher: who gets which GPU, a log for each trial, warm workers, and none left behind."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from hydra_plugins.rna_gpu_pool_launcher.launcher import assignment, visible_gpus

from tests.launchers.running import noted, start, sweep, trials

POOL = ("hydra/launcher=gpu_pool",)


def test_the_parents_gpus_and_no_others_are_visible():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-abc, MIG-d"}) == ["GPU-abc", "MIG-d"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,-1,1"}) == ["0"]  # as CUDA reads it
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []


def test_gpus_are_asked_of_the_driver_where_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho '  MIG 1g'\necho 'GPU 1: A (UUID: y)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert visible_gpus({}) == ["0", "1"]


def test_each_worker_has_one_gpu_and_every_gpu_is_used_before_one_is_shared():
    def devices(*options: object) -> list[str]:
        return [place.get("CUDA_VISIBLE_DEVICES", "any") for place in assignment(*options)]  # type: ignore[arg-type]

    assert devices(["2", "5"], None, 1, None, 8) == ["2", "5"]
    assert devices(["2", "5"], None, 2, None, 8) == ["2", "5", "2", "5"]
    assert devices(["2", "5"], 1, 3, None, 8) == ["2", "2", "2"]
    assert devices(["2", "5"], 0, 1, 3, 8) == ["", "", ""]
    assert devices([], None, 1, None, 3) == ["any"] * 3
    assert devices([], None, 4, 2, 8) == ["any"] * 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((["0", "1"], 3, 1, None, 8), "hydra.launcher.gpus=3: more than there are (0, 1 visible); allowed: 0 to 2"),
        ((["0"], None, 0, None, 8), "hydra.launcher.trials_per_gpu=0: must be a whole number ≥ 1"),
        (([], None, 1, 0, 8), "hydra.launcher.processes=0: must be a whole number ≥ 1"),
        ((["0"], None, 1, 2, 8), "hydra.launcher.processes=2: for a machine without a GPU"),
    ],
)
def test_what_cannot_be_assigned_is_refused(options: tuple[object, ...], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        assignment(*options)  # type: ignore[arg-type]


def test_workers_stay_warm_see_their_gpu_and_a_failure_costs_one_of_them(tmp_path: Path):
    sweep(tmp_path, *POOL, "+x=1,2,3,4,5,6", "+fail=3", "+sleep=0.3", code=1, CUDA_VISIBLE_DEVICES="6,7")
    begun = [words for words in noted(tmp_path) if words[0] == "begin"]
    by_device = {device: {words[2] for words in begun if words[3] == device} for device in ("6", "7")}
    assert sum(len(processes) for processes in by_device.values()) == 3  # two, and one after the failure
    assert all(by_device.values())
    for trial in trials(tmp_path):
        log = Path(trial.log or "").read_text()
        assert f"working on x{trial.number + 1}\n" in log
        assert log.count("working on") == 1
        assert ("RuntimeError: a bad cell" in log) == (trial.number == 2)


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, *(pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGKILL))],
)
def test_however_the_sweep_ends_no_child_is_left(tmp_path: Path, number: signal.Signals):
    running = start(tmp_path, *POOL, "hydra.launcher.processes=2", "+x=1,2,3", "+sleep=60")
    while len(noted(tmp_path)) < 2:
        time.sleep(0.05)
    workers = [words[2] for words in noted(tmp_path)]
    running.send_signal(number)
    assert running.wait(30) == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [pid for pid in workers if alive(pid)] == []
