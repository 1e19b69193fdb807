"""Trials on a real SLURM of one node: `tests/slurm/start-slurm.sh` brings it up, root only."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launchers.running import STORE, noted, start, sweep, trials

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


def until(happens: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def queue(form: str = "%i %j %T") -> list[str]:
    listed = subprocess.run(["squeue", "-h", "-r", "-o", form], capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_twelve_trials_in_arrays_one_of_them_failing(tmp_path: Path):
    grid = ("+x=1,2,3,4,5,6", "+y=0,1", "+fail=4", "hydra.launcher.submit_every=10")
    printed = sweep(tmp_path, *slurm(tmp_path, *grid), code=1)
    assert "10 done, 2 failed" in printed
    assert "+x=4 +y=0 failed: error: a bad cell" in printed
    assert Counter(words[0] for words in noted(tmp_path)) == {"begin": 12, "recorded": 10}
    arrays = len(list((tmp_path / "logs" / "slurm").glob("*_submission.sh")))
    assert arrays <= 3  # the first is submitted at once, with the cells that are composed by then
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
    grid = slurm(tmp_path, "+x=1,2,3", "+sleep=20")
    running = start(tmp_path, *grid)
    until(lambda: len(noted(tmp_path)) == 3 and all(trial.job for trial in trials(tmp_path)))
    running.send_signal(signal.SIGKILL)
    running.wait()
    subprocess.run(["scancel", trials(tmp_path)[1].job or ""], check=True)
    printed = sweep(tmp_path, *grid)
    assert "+x=2: cancelled (job" in printed
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
