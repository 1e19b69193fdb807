"""What runs in a job of SLURM: a trial, and the same trial again when the job is requeued."""

import os
import subprocess
from typing import Any

from hydra_plugins.rna_gpu_pool_launcher._serve import JobFailed, serve


class SlurmTrial:
    """What runs in a job: the trial, and itself again when it is requeued."""

    def __init__(self, shared: bytes, overrides: list[str], number: int, log: str, title: str) -> None:
        self.shared, self.overrides, self.number, self.log, self.title = shared, overrides, number, log, title

    def __call__(self) -> bytes:
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "update", f"JobId={job}", f"Name={self.title}"], check=False, capture_output=True)
        try:
            return serve(self.shared, self.overrides, self.number, self.log, None)
        except JobFailed as failure:
            return failure.args[0]

    def checkpoint(self) -> Any:
        """Submitit calls this at a warning: the same job, requeued, goes on from the checkpoint that training wrote."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)
