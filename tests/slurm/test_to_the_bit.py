"""`rna.run` itself on SLURM, with real checkpoints: what interrupts it leaves no trace in the trained tensors."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rna.sweep import ledger
from tests.launchers.running import environment
from tests.slurm.test_slurm import until

pytestmark = pytest.mark.slurm
WHAT = ("noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled", "train_only=true")
STEPS = 100
TRAINING = (*WHAT, "seed=0,1", f"train.steps={STEPS}")


def begin(folder: Path, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Begin a sweep on SLURM; the ledger's folder beside it."""
    folder.mkdir(exist_ok=True)
    quick = ("hydra.launcher.submit_every=2", "hydra.launcher.ask_every=3", "hydra.sweeper.study_name=real")
    command = [sys.executable, "-m", "rna.run", "-m", "hydra/launcher=slurm", *quick, f"output_dir={folder}", *words]
    with (folder / "printed.log").open("a") as stream:
        return subprocess.Popen(command, env=environment(), stdout=stream, stderr=stream), folder / "sweeps" / "real"


def tensors(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """What each trial has trained, by its key."""
    return {file.parent.name: load_file(file) for file in folder.glob("trials/*/unlearned.safetensors")}


def same(found: dict[str, dict[str, torch.Tensor]], wanted: dict[str, dict[str, torch.Tensor]]) -> bool:
    return {key: one.keys() for key, one in found.items()} == {key: one.keys() for key, one in wanted.items()} and all(
        torch.equal(found[key][name], tensor) for key, one in wanted.items() for name, tensor in one.items()
    )


def progress(folder: Path) -> dict[int, tuple[str, int]]:
    """By trial: its phase, and how far that is."""
    told = {trial.number: ledger.last_beat(folder, trial) for trial in ledger.trials(folder)}
    return {number: (one["phase"], one["done"]) for number, one in told.items() if one}


def trained(folder: Path, steps: int) -> bool:
    """Whether both trials are in the midst of training, so many steps far."""
    told = progress(folder)
    return len(told) == 2 and all(phase == "training" and done >= steps for phase, done in told.values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Both trials on Hydra's own launcher."""
    folder = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "rna.run", "-m", f"output_dir={folder}", *TRAINING]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    found = tensors(folder)
    assert len(found) == 2
    return found


def test_a_preempted_trial_goes_on_from_the_checkpoint_of_slurms_warning(
    tmp_path: Path, undisturbed: dict[str, dict[str, torch.Tensor]]
):
    """No checkpoint is due by itself, so that the one seen is the one of the warning."""
    running, folder = begin(tmp_path, *TRAINING, "train.checkpoint_every=null")
    until(lambda: trained(folder, 10), 240)
    cpus = subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True, check=True).stdout.split()[0]
    urgent = subprocess.Popen(["srun", "-p", "urgent", "-c", cpus, "true"])
    until(lambda: list(tmp_path.glob("trials/*/checkpoint.pt")))
    assert urgent.wait(90) == 0
    assert running.wait(400) == 0, (tmp_path / "printed.log").read_text()
    assert [(trial.status, trial.attempts) for trial in ledger.trials(folder)] == [("done", 1)] * 2
    assert not list(tmp_path.glob("trials/*/checkpoint.pt"))
    assert same(tensors(tmp_path), undisturbed)


@pytest.mark.faults  # by hand, with the matrix
def test_a_killed_sweeper_a_killed_job_and_a_job_that_was_warned(
    tmp_path: Path, undisturbed: dict[str, dict[str, torch.Tensor]]
):
    """The jobs go on without their sweeper. USR1 and HUP, some sites' warnings, requeue a job; kill -9 costs a try."""
    words = (*TRAINING, "train.checkpoint_every=20")
    running, folder = begin(tmp_path, *words)
    until(lambda: trained(folder, 25) and all(trial.job for trial in ledger.trials(folder)), 240)
    running.kill()
    running.wait()
    first, second = ledger.trials(folder)
    os.kill(ledger.last_beat(folder, first)["pid"], signal.SIGKILL)
    before = ledger.last_beat(folder, second)["pid"]
    subprocess.run(["scancel", "--signal=USR1", second.job or ""], check=True)
    until(lambda: "Caught signal SIGUSR1" in log_of(tmp_path, second))
    running, _ = begin(tmp_path, *words)
    until(lambda: again_in_training(folder, second, before), 240)
    subprocess.run(["scancel", "--signal=HUP", second.job or ""], check=True)
    assert running.wait(400) == 0, (tmp_path / "printed.log").read_text()
    assert "Caught signal SIGHUP" in log_of(tmp_path, second)
    printed = (tmp_path / "printed.log").read_text()
    assert printed.count("tried again") == printed.count(f": killed (job {first.job} ended without a word") == 1
    assert [(trial.status, trial.attempts) for trial in ledger.trials(folder)] == [("done", 2), ("done", 1)]
    assert same(tensors(tmp_path), undisturbed)


def again_in_training(folder: Path, trial: ledger.Trial, before: int) -> bool:
    """Whether it trains in another process than before."""
    told = ledger.last_beat(folder, trial)
    return told.get("phase") == "training" and told["pid"] != before


def log_of(folder: Path, trial: ledger.Trial) -> str:
    """What submitit wrote of a trial's job over all its lives, into its own logs and, while the trial ran, into its."""
    files = [*folder.glob(f"**/slurm/{trial.job}_0_log.*"), Path(trial.log or "")]
    return "".join(file.read_text() for file in files if file.exists())


@pytest.mark.faults
def test_a_trial_that_needs_more_than_its_time_limit_is_done_at_its_first_attempt(tmp_path: Path):
    """Training of a minute and its evaluation, in jobs that SLURM warns after 25 to 50 seconds, as it comes about.

    Of these a busy machine needs twenty to begin: with many less a trial gets no further, and is told so.
    """
    long = (*WHAT, "seed=0", "train.steps=400", "train.checkpoint_every=null", "train.batch_size=8")
    long = (*long, "train_only=false", "eval.limit=16")
    limits = ("hydra.launcher.time_min=2", "hydra.launcher.warn_s=70")
    running, folder = begin(tmp_path / "slow", *limits, *long)
    assert running.wait(600) == 0, (tmp_path / "slow" / "printed.log").read_text()
    (found,) = ledger.trials(folder)
    assert (found.status, found.attempts) == ("done", 1)
    lives = Path(found.log or "").read_text().count("with RNA: loading 0/1")
    assert lives >= 2
    command = [sys.executable, "-m", "rna.run", f"output_dir={tmp_path / 'whole'}", *long]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    assert same(tensors(tmp_path / "slow"), tensors(tmp_path / "whole"))
