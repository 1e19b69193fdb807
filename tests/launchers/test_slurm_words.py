"""Which reason a sweep gives for a job that left nothing, by what SLURM's commands say: stand-ins speak for them here.

The real ones, of which one machine's SLURM has no accounting, are asked in `tests/slurm/test_words.py`.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.rna_slurm_launcher import launcher
from hydra_plugins.rna_slurm_launcher._words import HELD, STUCK, Word, accounted, queued_jobs

SACCT = """17_0|FAILED
17_0.batch|FAILED
17_0.0|OUT_OF_MEMORY
17_1|CANCELLED by 1000
17_2|RUNNING
17_3|NODE_FAIL
17_4|TIMEOUT"""


@pytest.fixture
def speak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Let a command of SLURM say something."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def say(name: str, words: str, code: int = 0) -> None:
        (tmp_path / "bin").mkdir(exist_ok=True)
        script = tmp_path / "bin" / name
        script.write_text(f"#!/bin/bash\ncat <<'END'\n{words}\nEND\nexit {code}\n")
        script.chmod(0o755)

    say("sbatch", "")
    return say


def ends_of(folder: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> dict[int, Any]:
    """The errors with which jobs 17_0, 17_1 and so on end, by their number."""
    monkeypatch.setattr(launcher, "MISSING_FOR", 0.0)
    made = launcher.SlurmLauncher(folder=str(folder), ask_every=0.0, mem_gb=2.0)
    for number in range(count):
        made.adopt(number, f"17_{number}")
    ended = dict([*made.poll(0.01), *made.poll(0.01)])
    return {number: one._return_value for number, one in ended.items()}


def test_the_accounting_knows_what_the_queue_has_forgotten(speak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    speak("sacct", SACCT)
    speak("squeue", "17_5|RUNNING|None")
    found = ends_of(tmp_path, monkeypatch, 6)
    reasons = {number: error.reason for number, error in found.items()}
    assert reasons == {0: "out of memory", 1: "cancelled", 2: "killed", 3: "node failed", 4: "timeout"}
    assert found[0].final
    assert "raise hydra.launcher.mem_gb=… (now 2)" in str(found[0])
    assert "does not remember" in str(found[2])
    assert "NODE_FAIL" in str(found[3])


def test_where_there_is_no_accounting_the_queue_says_it(speak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    speak("sacct", "Slurm accounting storage is disabled", code=1)
    speak("squeue", "17_0|PREEMPTED|None\n17_1|BOOT_FAIL|None\n17_2|FAILED|NonZeroExitCode\n17_3|PENDING|Resources")
    (tmp_path / "17_2_0_log.err").write_text(
        "slurmstepd-vm: error: StepId=17_2.0 exceeded memory limit (326057984 > 209715200), being killed\n"
    )
    found = ends_of(tmp_path, monkeypatch, 4)
    assert {n: error.reason for n, error in found.items()} == {0: "preempted", 1: "node failed", 2: "out of memory"}


def test_a_queue_that_does_not_answer_ends_nothing(speak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    speak("squeue", "slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert queued_jobs() is None
    assert ends_of(tmp_path, monkeypatch, 2) == {}


def test_words(speak: Any):
    speak("squeue", "17_0|PENDING|launch failed requeued held\n18|RUNNING|None")
    assert {job: str(word) for job, word in (queued_jobs() or {}).items()} == {
        "17_0": "PENDING (launch failed requeued held)",
        "18": "RUNNING",
    }
    speak("sacct", "")
    assert accounted(["18"]) == {}
    assert str(Word("PENDING")) == "PENDING"


@pytest.mark.parametrize(
    ("why", "held", "stuck"),
    [
        ("JobHeldUser", True, True),
        ("JobHeldAdmin", True, True),
        ("launch failed requeued held", True, True),
        ("DependencyNeverSatisfied", False, True),
        ("BadConstraints", False, True),
        ("AssocGrpCPUMinutesLimit", False, True),
        ("QOSMaxWallDurationPerJobLimit", False, True),
        ("PartitionTimeLimit", False, True),
        ("AssocGrpCPURunMinutesLimit", False, False),
        ("QOSMaxJobsPerUserLimit", False, False),
        ("Priority", False, False),
        ("Resources", False, False),
        ("Dependency", False, False),
        ("JobArrayTaskLimit", False, False),
    ],
)
def test_what_may_hold_a_job_for_ever(why: str, held: bool, stuck: bool):
    assert (bool(HELD.search(why)), bool(STUCK.search(why))) == (held, stuck)
