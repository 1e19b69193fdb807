"""What SLURM says of jobs, on a real one: how they ended, what holds them, and what signals do."""

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.launchers.running import noted, start, sweep, trials
from tests.slurm.test_slurm import queue, slurm, until

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("hangups")]


def printed(folder: Path) -> str:
    return (folder / "printed.log").read_text()


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True)


@pytest.mark.skipif(
    not os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK), reason="SLURM cannot enforce memory here"
)
def test_want_of_memory_is_not_tried_again_with_the_same_memory(tmp_path: Path):
    """A step and a whole job that SLURM kills for their memory, and a program that says it itself."""
    (tmp_path / "step").mkdir()
    (tmp_path / "job").mkdir()
    memory = "hydra.launcher.mem_gb=0.5"
    step = start(tmp_path / "step", *slurm(tmp_path / "step", "+x=1,2,3", "+hog=2", "+short=3", memory))
    large = "hydra.launcher.setup=['head -c 1G /dev/zero | tail -n 1 || exit 1']"
    job = start(tmp_path / "job", *slurm(tmp_path / "job", "+x=1", large, memory))
    assert (step.wait(150), job.wait(150)) == (1, 1), printed(tmp_path / "step") + printed(tmp_path / "job")
    said = printed(tmp_path / "step")
    assert "1 done, 2 failed" in said
    advice = r"raise hydra.launcher.mem_gb=… \(now 0.5\)"
    assert re.search(rf"\+x=2 failed: out of memory: job \S+ was ended for want of memory; .*{advice}", said)
    assert re.search(rf"\+x=3 failed: out of memory: no room for 3 GiB; .*{advice}", said)
    assert Counter(words[1] for words in noted(tmp_path / "step") if words[0] == "begin") == {"x1": 1, "x2": 1, "x3": 1}
    assert re.search(rf"#0 \(no overrides\) failed: out of memory: .*{advice}", printed(tmp_path / "job"))
    state = "OUT_OF_MEMORY"
    failed = trials(tmp_path / "job")[0].job or ""
    assert (
        f"{failed} {state}"
        in subprocess.run(
            ["squeue", "-h", "-r", "-t", state, "-o", "%i %T"], capture_output=True, text=True, check=True
        ).stdout
    )


def test_held_jobs_are_told_and_a_node_that_fails_costs_no_attempt(tmp_path: Path):
    held = ("+hydra.launcher.extra.hold=true", "+hydra.launcher.extra.no-requeue=true")
    running = start(tmp_path, *slurm(tmp_path, "+x=1,2", "+sleep=15", *held))

    def word() -> set[str | None]:
        return {trial.cluster for trial in trials(tmp_path)}

    until(lambda: word() == {"PENDING (JobHeldUser)"})
    array = (trials(tmp_path)[0].job or "").partition("_")[0]
    until(lambda: f"#0 +x=1 and 1 more are held: JobHeldUser; scontrol release {array}\n" in printed(tmp_path))
    scontrol("release", array)
    until(lambda: word() == {"RUNNING"} and len(noted(tmp_path)) == 2)
    node = subprocess.run(["sinfo", "-h", "-o", "%n"], capture_output=True, text=True, check=True).stdout.strip()
    scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        until(lambda: printed(tmp_path).count("node failed (") == 2)
    finally:
        back = ["scontrol", "update", f"NodeName={node}", "State=RESUME"]
        subprocess.run(back, check=False, capture_output=True)  # slurmd may have told by itself that it is well
    until(lambda: word() == {"PENDING (JobHeldUser)"})
    again = (trials(tmp_path)[0].job or "").partition("_")[0]
    assert again != array
    scontrol("release", again)
    assert running.wait(120) == 0, printed(tmp_path)
    assert printed(tmp_path).count("are held") == 2
    assert [(trial.status, trial.attempts, trial.cluster) for trial in trials(tmp_path)] == [("done", 1, None)] * 2
    assert Counter(words[1] for words in noted(tmp_path) if words[0] == "begin") == {"x1": 2, "x2": 2}


def test_a_hangup_leaves_the_jobs_with_the_cluster_and_a_warning_is_told(tmp_path: Path):
    grid = slurm(tmp_path, "+x=1,2", "+sleep=15")
    running = start(tmp_path, *grid)
    until(lambda: len(noted(tmp_path)) == 2 and all(trial.job for trial in trials(tmp_path)))
    running.send_signal(signal.SIGUSR1)
    until(lambda: "SIGUSR1 came; 2 jobs stay with the cluster" in printed(tmp_path))
    assert running.poll() is None
    running.send_signal(signal.SIGHUP)
    assert running.wait(30) == 128 + signal.SIGHUP, printed(tmp_path)
    assert "stopped by SIGHUP" in printed(tmp_path)
    assert len(queue()) == 2
    assert "2 done, 0 failed" in sweep(tmp_path, *grid)
    assert Counter(words[1] for words in noted(tmp_path) if words[0] == "begin") == {"x1": 1, "x2": 1}


def test_a_trial_has_the_gpus_it_asks_for_and_what_can_never_start_is_told(tmp_path: Path):
    sweep(tmp_path, *slurm(tmp_path, "+x=1,2", "hydra.launcher.gpus_per_trial=2"))
    begun = [words for words in noted(tmp_path) if words[0] == "begin"]
    assert [words[-1] for words in begun] == ["0,1", "0,1"]
    assert [words[0] for words in noted(tmp_path)] == ["begin", "recorded"] * 2  # there are two GPUs
    failed = subprocess.run(
        ["sbatch", "--parsable", "--output=/dev/null", "--wrap", "false"], capture_output=True, text=True, check=True
    )
    never = f"+hydra.launcher.extra.dependency='afterok:{failed.stdout.strip()}'"
    (tmp_path / "never").mkdir()
    running = start(tmp_path / "never", *slurm(tmp_path / "never", "+x=3", never))
    until(lambda: "is waiting, maybe for ever: DependencyNeverSatisfied" in printed(tmp_path / "never"))
    running.send_signal(signal.SIGINT)
    assert running.wait(30) == 128 + signal.SIGINT
    subprocess.run(["scancel", trials(tmp_path / "never")[0].job or ""], check=True)
