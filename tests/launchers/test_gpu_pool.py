"""The pool launcher: who gets which GPU, a log for each trial, warm workers, and none left behind."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
from hydra_plugins.rna_gpu_pool_launcher import _gpus
from hydra_plugins.rna_gpu_pool_launcher._gpus import assignment, visible_gpus

from tests.launchers.running import noted, start, sweep, trials

POOL = ("hydra/launcher=gpu_pool",)


def test_the_parents_gpus_and_no_others_are_visible():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "2,5"}) == ["2", "5"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-abc, MIG-d"}) == ["GPU-abc", "MIG-d"]
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0,-1,1"}) == ["0"]  # as CUDA reads it
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == []
    slices = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f,MIG-GPU-84fd49f2-48ad-50e8-9f2e-3bf0dfd47ccb/1/0"  # before R470
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": slices}) == slices.split(",")


WHOLE = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-c08d91cb-e324-655c-71ba-7570956445bc)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
"""
SLICED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-c08d91cb-e324-655c-71ba-7570956445bc)
  MIG 1c.3g.40gb  Device  0: (UUID: MIG-c788539f-c1ea-5a36-8b4d-9b07d024b1bb)
  MIG 1g.10gb     Device  1: (UUID: MIG-b4b2228d-6933-5839-bc0e-41ab9edb61c6)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77)
GPU 2: A100-SXM4-40GB (UUID: GPU-2fa5cf01-9520-1bc1-995b-cc0c6d9bca7c)
  MIG 1c.3g.20gb Device 0: (UUID: MIG-GPU-2fa5cf01-9520-1bc1-995b-cc0c6d9bca7c/1/0)
"""
SLICES = [
    "MIG-c788539f-c1ea-5a36-8b4d-9b07d024b1bb",
    "MIG-b4b2228d-6933-5839-bc0e-41ab9edb61c6",
    "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77",
    "MIG-GPU-2fa5cf01-9520-1bc1-995b-cc0c6d9bca7c/1/0",
]
NO_DRIVER = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest \
NVIDIA driver is installed and running."


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, listed: str, code: int = 0, wait: float = 0.0) -> None:
    """A program of that name on PATH which prints this."""
    (folder / "listed").write_text(listed)
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\n[ "$*" = -L ] || exit 64\nsleep {wait}\ncat {folder}/listed\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.mark.parametrize(("listed", "expected"), [(WHOLE, ["0", "1"]), (SLICED, SLICES), ("", [])])
def test_gpus_are_asked_of_the_driver_where_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], listed: str, expected: list[str]
):
    nvidia_smi(tmp_path, monkeypatch, listed)
    assert visible_gpus({}) == expected
    assert capfd.readouterr().err == ""


LOST = "Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error"


@pytest.mark.parametrize(
    ("listed", "code", "expected", "said"),
    [
        (f"{NO_DRIVER}\n", 9, [], f"failed ({NO_DRIVER[:-1]}): no GPU is used"),
        ("No devices were found\n", 6, [], "failed (No devices were found): no GPU is used"),
        (f"{WHOLE}{LOST}\n", 255, re.findall(r"GPU-[^)]+", WHOLE), f"failed ({LOST}): 2 GPUs that it lists are used"),
    ],
)
def test_an_nvidia_smi_that_fails_is_told_in_one_line_and_what_it_lists_is_used_by_uuid(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    listed: str,
    code: int,
    expected: list[str],
    said: str,
):
    nvidia_smi(tmp_path, monkeypatch, listed, code)
    assert visible_gpus({}) == expected
    printed = capfd.readouterr().err
    assert said in printed
    assert "CUDA_VISIBLE_DEVICES=0,1" in printed
    assert len(printed.splitlines()) == 1


def test_an_nvidia_smi_that_hangs_is_left_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_gpus, "ANSWERS", 0.5)
    nvidia_smi(tmp_path, monkeypatch, WHOLE, wait=600)
    began = time.monotonic()
    with pytest.raises(
        ValueError, match=r"has not answered in 0.5 s.*name the GPUs to use by CUDA_VISIBLE_DEVICES=0,1"
    ):
        visible_gpus({})
    assert time.monotonic() - began < 60


@pytest.mark.whole
def test_a_sweep_that_is_told_to_use_no_gpu_asks_no_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    nvidia_smi(tmp_path, monkeypatch, WHOLE, wait=600)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sweep(tmp_path, *POOL, "hydra.launcher.gpus=0", "hydra.launcher.processes=1", "+x=1")
    assert [words[3:] for words in noted(tmp_path)] == [[]]  # CUDA_VISIBLE_DEVICES= hides them


def devices(
    visible: list[str],
    gpus: int | None,
    trials_per_gpu: int,
    processes: int | None,
    cores: int,
    gpus_per_trial: int = 1,
) -> list[str]:
    made = assignment(visible, gpus, trials_per_gpu, gpus_per_trial, processes, cores)
    return [place.get("CUDA_VISIBLE_DEVICES", "any") for place in made]


def test_each_worker_has_one_gpu_and_every_gpu_is_used_before_one_is_shared():
    assert devices(["2", "5"], None, 1, None, 8) == ["2", "5"]
    assert devices(["2", "5"], None, 2, None, 8) == ["2", "5", "2", "5"]
    assert devices(["2", "5"], 1, 3, None, 8) == ["2", "2", "2"]
    assert devices(["2", "5"], 0, 1, 3, 8) == ["", "", ""]
    assert devices([], None, 1, None, 3) == ["any"] * 3
    assert devices([], None, 4, 2, 8) == ["any"] * 2


def test_a_worker_may_have_several_gpus_and_those_left_over_are_told(capfd: pytest.CaptureFixture[str]):
    assert devices(["0", "1", "2", "3"], None, 1, None, 8, 2) == ["0,1", "2,3"]
    assert capfd.readouterr().err == ""
    assert devices(["0", "1", "5", "7", "8"], None, 1, None, 8, 3) == ["0,1,5"]
    assert capfd.readouterr().err == "gpu_pool: 5 GPUs, 3 for each trial: 7, 8 left idle\n"
    assert devices(["0", "1", "2"], 2, 1, None, 8, 2) == ["0,1"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((["0", "1"], 3, 1, None, 8), "hydra.launcher.gpus=3: more than there are (0, 1 visible); allowed: 0 to 2"),
        ((["0"], None, 0, None, 8), "hydra.launcher.trials_per_gpu=0: must be a whole number ≥ 1"),
        (([], None, 1, 0, 8), "hydra.launcher.processes=0: must be a whole number ≥ 1"),
        ((["0"], None, 1, 2, 8), "hydra.launcher.processes=2: for a machine without a GPU"),
        ((["0", "1"], None, 1, None, 8, 0), "hydra.launcher.gpus_per_trial=0: must be a whole number ≥ 1"),
        (
            (["0", "1"], None, 2, None, 8, 2),
            "hydra.launcher.gpus_per_trial=2: not with hydra.launcher.trials_per_gpu=2; allowed: one of them",
        ),
        (
            (["0", "1"], None, 1, None, 8, 3),
            "hydra.launcher.gpus_per_trial=3: more than there are (0, 1 visible); allowed: 1 to 2",
        ),
        (
            (["0", "1"], 1, 1, None, 8, 2),
            "hydra.launcher.gpus_per_trial=2: more than there are (hydra.launcher.gpus=1); allowed: 1",
        ),
        (([], None, 1, None, 8, 2), "hydra.launcher.gpus_per_trial=2: more than there are (none visible); allowed: 1"),
        ((SLICES, None, 1, None, 8, 2), f"a process can use one MIG slice ({SLICES[0]}) and no more; allowed: 1"),
    ],
)
def test_what_cannot_be_assigned_is_refused(options: tuple[object, ...], said: str):
    with pytest.raises(ValueError, match=re.escape(said)):
        devices(*options)  # type: ignore[arg-type]


@pytest.mark.whole
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


@pytest.mark.whole
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
