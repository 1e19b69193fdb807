"""What SLURM says of jobs: in its queue, which keeps those that ended for a while, and in its accounting."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ENDS = {  # SLURM's word for the end of a job, and the reason that a sweep gives
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted",
    "FAILED": "killed",
    "COMPLETED": "killed",  # it left no result, whatever its exit code
}
HELD = re.compile(r"JobHeld|JobHoldMaxRequeue|\bheld\b", re.I)
STUCK = re.compile(  # why a job that waits may wait for ever; what others' jobs hold up passes
    rf"{HELD.pattern}|NeverSatisfied|BadConstraints|(?<!Run)Minutes|PerJob|WallDuration|Invalid|NotAllowed|"
    r"Partition(Down|Inactive|NodeLimit|TimeLimit)|ReqNodeNotAvail|NodeDown",
    re.I,
)
SHORT_OF_MEMORY = re.compile(r"slurmstepd.*(oom-kill event|exceeded \w* ?memory limit)")


class Word(NamedTuple):
    """A job's state in SLURM's words, and why it waits."""

    state: str
    why: str = "None"

    def __str__(self) -> str:
        return self.state if self.why == "None" else f"{self.state} ({self.why})"


def queued_jobs() -> dict[str, Word] | None:
    """This user's jobs by id, those too that ended within SLURM's MinJobAge; None if the controller does not answer."""
    listed = _asked("squeue", "-h", "-r", "--me", "-t", "all", "-o", "%i|%T|%r")
    if listed is None:
        return None
    rows = (line.strip().split("|", 2) for line in listed.splitlines())
    return {job: Word(state, why) for job, state, why in rows}


def accounted(jobs: Iterable[str]) -> dict[str, str]:
    """How jobs ended by SLURM's accounting; those that it does not know are left out, and all where there is none.

    Where a step ran out of memory, so did the job, whose own word may be FAILED.
    """
    found: dict[str, str] = {}
    listed = _asked("sacct", "-n", "-P", "-o", "JobID,State", "-j", ",".join(jobs)) or ""
    for line in listed.splitlines():
        step, _, said = line.partition("|")
        job, state = step.partition(".")[0], (said.split() or [""])[0]  # "CANCELLED by 1000"
        if state in ENDS and (job not in found or state == "OUT_OF_MEMORY"):
            found[job] = state
    return found


def short_of_memory(log: Path) -> bool:
    """Whether SLURM wrote so into a job's own log: the word for the whole job may tell no more than its exit code."""
    try:
        return SHORT_OF_MEMORY.search(log.read_text(errors="replace")[-4000:]) is not None
    except OSError:
        return False


def _asked(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
