"""Trials on a real SLURM of one node: `tests/slurm/start-slurm.sh` brings it up, root only."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from rna.sweep import ledger
from tests.launchers.running import STORE, environment, noted, start, sweep, trials

pytestmark = pytest.mark.slurm


def slurm(folder: Path, *more: str) -> tuple[str, ...]:
    quick = (
        "hydra.launcher.submit_every=2",
        "hydra.launcher.ask_every=3",
        "hydra.launcher.time_min=20",
        f"hydra.sweep.dir={folder}/logs",
    )
    further = "hydra.launcher.extra={comment: of a test}"  # as the README has {qos: low}
    return ("hydra/launcher=slurm", *quick, further, *STORE, *more)


def until(happens: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def queue(form: str = "%i %j %T") -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-r", "-o", form], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_twelve_trials_in_one_array_one_of_them_failing(tmp_path: Path):
    grid = ("+x=1,2,3,4,5,6", "+y=0,1", "+fail=4")
    printed = sweep(tmp_path, *slurm(tmp_path, *grid), code=1)
    assert "10 done, 2 failed" in printed
    assert "+x=4 +y=0 failed: error: a bad cell" in printed
    assert Counter(words[0] for words in noted(tmp_path)) == {"begin": 12, "recorded": 10}
    assert len(list((tmp_path / "logs" / "slurm").glob("*_submission.sh"))) == 1
    assert "working on x1_y0" in Path(trials(tmp_path)[0].log or "").read_text()


def test_submitted_without_waiting_shown_by_status_and_collected_by_the_same_command(tmp_path: Path):
    grid = slurm(tmp_path, "+x=1,2,3", "+sleep=8", "hydra.launcher.wait=false")
    printed = sweep(tmp_path, *grid)
    assert "3 trials are with the cluster" in printed
    until(lambda: len(noted(tmp_path)) == 3)
    assert sorted(line.split()[1] for line in queue()) == ["x=1", "x=2", "x=3"]
    assert "3 trials are with the cluster" in sweep(tmp_path, *grid)  # nothing is submitted twice
    until(lambda: not queue())
    assert "3 done, 0 failed" in sweep(tmp_path, *grid)
    assert Counter(words[0] for words in noted(tmp_path)) == {"begin": 3, "recorded": 3}


def test_jobs_outlive_a_killed_sweeper_and_a_cancelled_one_runs_again(tmp_path: Path):
    grid = slurm(tmp_path, "+x=1,2,3", "+sleep=6")
    running = start(tmp_path, *grid)
    until(lambda: len(noted(tmp_path)) == 3 and all(trial.job for trial in trials(tmp_path)))
    running.send_signal(signal.SIGKILL)
    running.wait()
    subprocess.run(["scancel", trials(tmp_path)[1].job or ""], check=True)
    printed = sweep(tmp_path, *grid)
    assert "+x=2: killed" in printed
    assert "3 done, 0 failed" in printed
    assert Counter(words[1] for words in noted(tmp_path) if words[0] == "begin") == {"x1": 1, "x2": 2, "x3": 1}


def test_a_preempted_trial_is_requeued_and_a_restarted_controller_is_no_end(tmp_path: Path):
    running = start(tmp_path, *slurm(tmp_path, "+x=1,2", "+sleep=12"))
    until(lambda: len(noted(tmp_path)) == 2)
    cpus = subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["srun", "-p", "urgent", "-c", cpus, "true"], check=True, timeout=90, capture_output=True)
    root = Path("/tmp/rna-test-slurm")
    os.kill(int((root / "slurmctld.pid").read_text()), signal.SIGTERM)
    time.sleep(4)
    controller = shutil.which("slurmctld")
    assert controller
    subprocess.run([controller], check=True)
    assert running.wait(150) == 0, (tmp_path / "printed.log").read_text()
    assert {trial.status for trial in trials(tmp_path)} == {"done"}
    begun = Counter(words[1] for words in noted(tmp_path) if words[0] == "begin")
    assert (set(begun), max(begun.values())) == ({"x1", "x2"}, 2)
    assert {trial.attempts for trial in trials(tmp_path)} == {1}  # the same job, requeued


def test_training_goes_on_from_the_checkpoint_it_wrote_when_it_was_preempted(tmp_path: Path):
    """No checkpoint is due by itself, so that the one seen is the one of SLURM's warning."""
    settings = (
        "train.steps=80",
        "train.checkpoint_every=null",
        "eval.limit=4",
        "wandb=disabled",
        "model.retrained=null",
    )
    words = ("-m", "rna.run", "-m", "noise.nu=0.01", "baseline=skip", "hydra/launcher=slurm", f"output_dir={tmp_path}")
    words = (*words, "seed=0,1", "hydra.sweeper.study_name=toy", *settings)
    with (tmp_path / "printed.log").open("w") as stream:
        running = subprocess.Popen([sys.executable, *words], env=environment(), stdout=stream, stderr=stream)
    folder = tmp_path / "sweeps" / "toy"
    until(lambda: [t for t in ledger.trials(folder) if ledger.last_beat(folder, t).get("phase") == "training"], 90)
    cpus = subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True, check=True).stdout.split()[0]
    urgent = subprocess.Popen(["srun", "-p", "urgent", "-c", cpus, "true"])
    until(lambda: list(tmp_path.glob("trials/*/checkpoint.pt")))
    assert urgent.wait(90) == 0
    assert running.wait(200) == 0, (tmp_path / "printed.log").read_text()
    found = ledger.trials(folder)
    assert [(trial.status, trial.attempts) for trial in found] == [("done", 1)] * 2
    assert not list(tmp_path.glob("trials/*/checkpoint.pt"))


def test_a_trial_over_its_time_limit_is_tried_again(tmp_path: Path):
    """The warning comes after 10 of 60 seconds; the toy has no checkpoint, and is well the second time."""
    limits = ("hydra.launcher.time_min=1", "hydra.launcher.warn_s=50")
    printed = sweep(tmp_path, *slurm(tmp_path, "+x=1,2", "+hang=2", *limits))
    assert "2 done, 0 failed" in printed
    assert Counter(words[1] for words in noted(tmp_path) if words[0] == "begin") == {"x1": 1, "x2": 2}


def test_an_sbatch_that_fails_twice_is_tried_again_and_an_array_that_is_too_large_is_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The real one behind a script that first speaks as a busy controller does, and takes two trials at a time."""
    real_one = shutil.which("sbatch")
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "sbatch"
    script.write_text(
        f"""#!/bin/bash
echo . >>{tmp_path}/asked
if [ $(wc -l <{tmp_path}/asked) -le 2 ]; then
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1
fi
if grep -q "array=0-[2-9]" "${{@: -1}}"; then
    echo "sbatch: error: Batch job submission failed: Invalid job array specification" >&2; exit 1
fi
exec {real_one} "$@"
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    printed = sweep(tmp_path, *slurm(tmp_path, "+x=1,2,3,4"))
    assert printed.count("Socket timed out on send/recv operation; tried again in") == 2
    assert "4 done, 0 failed" in printed
    assert Counter(words[0] for words in noted(tmp_path)) == {"begin": 4, "recorded": 4}
    assert len(list((tmp_path / "logs" / "slurm").glob("*_submission.sh"))) == 2


def test_what_sbatch_refuses_is_one_line(tmp_path: Path):
    printed = sweep(tmp_path, *slurm(tmp_path, "+x=1", "hydra.launcher.partition=nosuch"), code=2)
    assert re.search("hydra/launcher=slurm: sbatch refused:.*invalid partition", printed)


def real(folder: Path, *more: str) -> tuple[subprocess.Popen[bytes], Path]:
    """Begin a sweep of `rna.run` itself, in jobs that are warned after ten seconds; the ledger's folder beside it."""
    words = ["-m", "rna.run", "-m", "hydra/launcher=slurm", "hydra.launcher.time_min=1", "hydra.launcher.warn_s=50"]
    words += [
        "hydra.launcher.submit_every=2",
        "hydra.launcher.ask_every=3",
        "hydra.sweeper.study_name=real",
        f"output_dir={folder}",
    ]
    words += ["noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled", *more]
    with (folder / "printed.log").open("a") as stream:
        running = subprocess.Popen([sys.executable, *words], env=environment(), stdout=stream, stderr=stream)
    return running, folder / "sweeps" / "real"


def test_a_trial_that_needs_many_times_its_time_limit_is_done_at_its_first_attempt(tmp_path: Path):
    """Training of about a minute in jobs of ten seconds, to the bit as one that nothing interrupted."""
    from safetensors.torch import load_file

    (tmp_path / "slow").mkdir()
    long = ("seed=0", "train.steps=500", "train.checkpoint_every=null", "eval.limit=16", "train.batch_size=8")
    running, folder = real(tmp_path / "slow", *long)
    assert running.wait(420) == 0, (tmp_path / "slow" / "printed.log").read_text()
    (found,) = ledger.trials(folder)
    assert (found.status, found.attempts) == ("done", 1)
    lives = Path(found.log or "").read_text().count("with RNA: loading 0/1")
    assert lives >= 3
    words = ["noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled", *long]
    command = [sys.executable, "-m", "rna.run", f"output_dir={tmp_path / 'whole'}", *words]
    subprocess.run(command, env=environment(), check=True, capture_output=True)
    deltas = [load_file(next((tmp_path / name).glob("trials/*/unlearned.safetensors"))) for name in ("slow", "whole")]
    assert all((deltas[0][name] == tensor).all() for name, tensor in deltas[1].items())
