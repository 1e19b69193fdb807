"""What runs in a job of SLURM: a trial, and the same trial again when the job is requeued."""

import os
import signal
import subprocess
from typing import Any

from hydra_plugins.rna_gpu_pool_launcher._serve import JobFailed, serve

PATIENCE = 2  # requeues in which a trial may get no further


class NoProgress(RuntimeError):
    """A trial that its time limit leaves no time for."""

    reason = "no progress"


class SlurmTrial:
    """What runs in a job: the trial, and itself again when it is requeued."""

    marks: tuple[Any, ...] = ()  # how far it was at the requeues before

    def __init__(self, shared: bytes, overrides: list[str], number: int, log: str, title: str) -> None:
        self.shared, self.overrides, self.number, self.log, self.title = shared, overrides, number, log, title

    def __call__(self) -> bytes:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "update", f"JobId={job}", f"Name={self.title}"], check=False, capture_output=True)
        for number in (signal.SIGUSR1, signal.SIGHUP):  # some sites' warnings; by themselves they would kill
            signal.signal(number, signal.getsignal(signal.SIGUSR2))
        try:
            return serve(self.shared, self.overrides, self.number, self.log, None)
        except JobFailed as failure:
            return failure.args[0]

    def checkpoint(self) -> Any:
        """Submitit calls this at a warning: the same job, requeued, goes on from the checkpoint that training wrote.

        Raises:
            NoProgress: for a trial that was requeued before, and has got no further since.
        """
        import submitit

        from rna.sweep import ledger

        mark = ledger.mark()
        if self.marks[-PATIENCE:] == (mark,) * PATIENCE:
            where = " ".join(map(str, mark)) or "nothing"
            raise NoProgress(
                f"requeued {PATIENCE} times without progress ({where}): it needs a longer hydra.launcher.time_min, or "
                "train.checkpoint_every"
            )
        self.marks = (*self.marks, mark)[-PATIENCE:]
        return submitit.helpers.DelayedSubmission(self)
