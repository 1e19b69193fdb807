"""A GPU that is broken takes no trial with it, a trial that breaks on every GPU is judged, and nothing is lost."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra_plugins.rna_gpu_pool_launcher._places import Places

from rna import ends
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from tests.launchers import broken
from tests.launchers.running import STORE, environment, noted, sweep, trials

POOL = ("hydra/launcher=gpu_pool",)
GPUS = "0,1,2,3"


def places(*said: str) -> Places:
    return Places(said)


def test_a_place_is_set_aside_after_two_faults_with_no_trial_done_well_between():
    judged = places("a", "b", "c", "d", "a", "b")
    assert not judged.fault("b", 1, "ECC")
    judged.well("b", 2)
    assert not judged.fault("b", 3, "ECC")
    assert judged.closed == set()
    assert judged.barred(3) == {1, 5}
    assert not judged.fault("b", 4, "ECC")
    assert judged.working == ["a", "c", "d"]
    assert judged.closed == {1, 5}  # whoever shares it


def test_a_fault_that_follows_the_trial_is_the_trials_own_and_its_places_are_acquitted():
    judged = places("a", "b", "c", "d")
    assert [judged.fault(place, 7, "launch failure") for place in "abc"] == [False, False, True]
    assert judged.faults == {"a": [], "b": [], "c": []}
    two = places("a", "b")
    assert [two.fault(place, 7, "launch failure") for place in "ab"] == [False, True]
    one = places("a")
    assert not one.fault("a", 7, "launch failure")
    one.well("a", 8)
    assert one.fault("a", 7, "launch failure")
    assert one.working == ["a"]


def test_places_that_are_broken_do_not_make_a_trial_guilty():
    judged = places("a", "b", "c", "d")
    for place, trial in (("a", 1), ("b", 2), ("c", 3), ("b", 1), ("c", 2), ("a", 3)):
        assert not judged.fault(place, trial, "ECC")
    assert judged.working == ["d"]
    alone = places("a")
    assert not any(alone.fault("a", 7, "ECC") for _ in range(2))
    assert alone.working == []


def test_a_failed_assertion_is_held_against_the_trial_and_against_no_place():
    judged = places("a", "b", "c", "d")
    assert not judged.fault("a", 1, "CUDA error: device-side assert triggered")
    assert not judged.fault("a", 2, "CUDA error: device-side assert triggered")
    assert judged.working == ["a", "b", "c", "d"]
    assert judged.fault("b", 1, "CUDA error: device-side assert triggered")


@pytest.mark.parametrize(
    ("error", "device", "memory"),
    [
        (torch.AcceleratorError(broken.ECC), True, False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True, False),
        (RuntimeError("CUDA driver initialization failed, you might not have a CUDA gpu."), True, False),
        (RuntimeError("CUDA driver error: unknown error"), True, False),
        (RuntimeError("No CUDA GPUs are available"), True, False),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`"), True, False),
        (RuntimeError("NCCL Error 1: unhandled cuda error"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False, True),
        (torch.AcceleratorError("CUDA error: out of memory"), False, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), False, True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False, False),
        (ValueError("CUDA error: in a user's own words"), False, False),
    ],
)
def test_torchs_words_for_a_device_and_for_memory(error: Exception, device: bool, memory: bool):
    assert (ends.device_failed(error), ends.out_of_memory(error)) == (device, memory)


def well(found: list[Trial]) -> list[tuple[str, int]]:
    return [(trial.status, trial.attempts) for trial in found]


@pytest.mark.whole
def test_a_broken_gpu_costs_no_trial_and_no_attempt(tmp_path: Path):
    arguments = (*POOL, *STORE, "+x=0,1,2,3,4,5,6,7", "+sleep=2", "+broken=2")
    printed = sweep(tmp_path, *arguments, CUDA_VISIBLE_DEVICES=GPUS)
    assert well(trials(tmp_path)) == [("done", 1)] * 8
    begun = sum(words[0] == "begin" and words[3] == "2" for words in noted(tmp_path))
    assert begun == printed.count("on GPU 2") <= 2, printed
    assert printed.count("set aside for the rest of this run") == (begun == 2)


@pytest.mark.slow
def test_where_every_gpu_is_broken_the_sweep_stops_says_so_and_the_same_command_finishes_it(tmp_path: Path):
    arguments = (*POOL, *STORE, "+x=0,1,2,3,4,5", "+sleep=0.2")
    printed = sweep(tmp_path, *arguments, "+broken=all", code=1, CUDA_VISIBLE_DEVICES="0,1")
    assert "every place of the pool is set aside: mend the devices" in printed
    assert "nothing that was written is lost: give the same command again" in printed
    assert well(trials(tmp_path)) == [("queued", 0)] * 6
    (tmp_path / "mended").touch()
    sweep(tmp_path, *arguments, "+broken=all", CUDA_VISIBLE_DEVICES="0,1")
    assert well(trials(tmp_path)) == [("done", 1)] * 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "tries"),
    [
        ("CUDA error: device-side assert triggered", 2),
        ("CUDA error: misaligned address", 3),
    ],
)
def test_a_trial_that_faults_on_every_gpu_fails_alone(tmp_path: Path, said: str, tries: int):
    arguments = ("+x=0,1,2,3,4,5,6,7", "+sleep=0.2", "+faulty=2", f"+fault='{said}'")
    printed = sweep(tmp_path, *POOL, *STORE, *arguments, code=1, CUDA_VISIBLE_DEVICES=GPUS)
    found = trials(tmp_path)
    assert [trial.number for trial in found if trial.status == "failed"] == [2]
    assert found[2].reason == "device"
    assert "the trial's own failure" in (found[2].message or "")
    assert well(found[:2] + found[3:]) == [("done", 1)] * 7
    devices = [words[3] for words in noted(tmp_path) if words[:2] == ["begin", "x2"]]
    assert len(set(devices)) == len(devices) == tries
    assert "set aside" not in printed


def rna(folder: Path, *words: str, **more: str) -> tuple[list[Trial], dict[str, str], str]:
    """A sweep of `rna.run` in a pool: its trials, their tensors' digests by key, and what it said."""
    short = ("baseline=skip", "model.retrained=null", "train_only=true", "train.steps=4", "train.checkpoint_every=2")
    words = (*words, *short, *POOL, f"output_dir={folder}", "wandb=disabled", "hydra.sweeper.study_name=s")
    command = [sys.executable, "-m", "rna.run", "-m", *words]
    done = subprocess.run(
        command, env=environment(**more), cwd=folder.parent, capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stderr + done.stdout
    files = folder.glob("trials/*/unlearned.safetensors")
    tensors = {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return ledger.trials(folder / "sweeps" / "s"), tensors, done.stderr


@pytest.mark.faults
def test_rna_itself_loses_nothing_to_a_broken_gpu_and_trains_the_same_bits(tmp_path: Path):
    words = ("seed=0,1,2,3,4,5", "noise.nu=0.01,0.02", "model.device=cpu")
    path = broken.on_path(tmp_path / "site", "rna.trial", broken.BACKWARD)
    found, tensors, said = rna(
        tmp_path / "disturbed", *words, CUDA_VISIBLE_DEVICES=GPUS, PYTHONPATH=path, BROKEN_GPUS="2"
    )
    assert well(found) == [("done", 1)] * 12
    assert said.count("uncorrectable ECC error encountered") == 2, said
    assert said.count("GPU 2, the second fault there: set aside") == 1
    whole, undisturbed, _ = rna(tmp_path / "whole", *words, CUDA_VISIBLE_DEVICES="0,1")
    assert well(whole) == [("done", 1)] * 12
    assert len(tensors) == 12
    assert tensors == undisturbed


@pytest.mark.faults
def test_a_trial_in_the_pool_runs_over_two_pretended_gpus_of_its_own(tmp_path: Path):
    words = ("seed=0,1", "noise.nu=0.01", "method=npo", "retain_loss=kl")
    placed = "model.device_map={model.embed_tokens:0,model.rotary_emb:0,model.layers.0:0,model.layers.1:0,"
    placed += "model.layers.2:1,model.layers.3:1,model.norm:1,lm_head:1}"
    path = broken.on_path(tmp_path / "site", "rna.trial", broken.PRETENDED)
    noted = str(tmp_path / "gpus.log")
    found, tensors, _ = rna(
        tmp_path / "two",
        *words,
        placed,
        "hydra.launcher.gpus_per_trial=2",
        CUDA_VISIBLE_DEVICES=GPUS,
        PYTHONPATH=path,
        PRETENDED=noted,
    )
    assert well(found) == [("done", 1)] * 2
    assert sorted(Path(noted).read_text().splitlines()) == ["0,1", "2,3"]
    _, plain, _ = rna(tmp_path / "one", *words, "hydra.launcher.processes=1", CUDA_VISIBLE_DEVICES="")
    assert len(tensors) == 2
    assert tensors == plain
