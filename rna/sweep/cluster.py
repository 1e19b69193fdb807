"""What a sweep asks of SLURM for jobs that it knows by their ids."""

import shutil
import subprocess
from collections.abc import Sequence

AT_ONCE = 100  # ids in one call


def check(jobs: Sequence[str]) -> None:
    """Raises ValueError if there are jobs, and this machine cannot tell the cluster of them."""
    if jobs and shutil.which("scancel") is None:
        some = ", ".join(jobs[:3]) + (", …" if len(jobs) > 3 else "")
        raise ValueError(f"{len(jobs)} trials are with SLURM ({some}), and this machine has no scancel; nothing done")


def cancel(jobs: Sequence[str]) -> None:
    """End jobs, running or not; those that have ended by now do no harm."""
    _call(["scancel"], jobs)


def hold(jobs: Sequence[str]) -> None:
    """Keep jobs that wait from being started."""
    _call(["scontrol", "hold"], jobs)


def release(jobs: Sequence[str]) -> None:
    """Let held jobs be started."""
    _call(["scontrol", "release"], jobs)


def _call(words: list[str], jobs: Sequence[str]) -> None:
    for start in range(0, len(jobs), AT_ONCE):
        subprocess.run([*words, *jobs[start : start + AT_ONCE]], check=False, capture_output=True)
