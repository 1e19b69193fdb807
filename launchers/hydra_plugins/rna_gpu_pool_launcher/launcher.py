"""`hydra/launcher=gpu_pool`: warm worker processes, each with a GPU or a share of one, or on the CPU of its own.

Imports, base model and caches are paid for once a worker. After a failure its place gets a fresh process. Each trial
has a log file in its folder. Ctrl-C and the end of the parent end every worker.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ._serve import LOG, JobFailed, composed_job, failed_job, serve, whole


class GpuPoolLauncher(Launcher):
    """The plugin: options as in `GpuPoolConf`."""

    wait, survives = True, False

    def __init__(self, gpus: int | None, trials_per_gpu: int, processes: int | None) -> None:
        self.assigned = assignment(visible_gpus(os.environ), gpus, trials_per_gpu, processes, os.cpu_count() or 1)
        self.pool: Any = None
        self.tickets: dict[int, int] = {}  # ticket -> job number
        self.jobs: dict[int, str] = {}  # a cluster's ids: none here
        self.shared: bytes = b""

    @property
    def places(self) -> int:
        return len(self.assigned)

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's own way in: all jobs of a batch, returned in their order once the last has ended."""
        found: dict[int, JobReturn] = {}
        try:
            for index, overrides in enumerate(job_overrides):
                self.start(list(overrides), initial_job_idx + index)
            while len(found) < len(job_overrides):
                found |= dict(self.poll(1.0))
        finally:
            self.close()
        jobs = enumerate(job_overrides, initial_job_idx)
        composed = ((n, composed_job(self.hydra_context, self.config, list(said), n)) for n, said in jobs)
        return [whole(found[number], config) for number, config in composed]

    def start(self, overrides: list[str], number: int, _title: str = "") -> str:
        """Queue a job, and say where its log will be."""
        import cloudpickle

        from rna.sweep import Pool

        if self.pool is None:
            setup_globals()
            self.pool = Pool(self.assigned)
            about = (self.hydra_context, self.task_function, self.config, Singleton.get_state(), sys.path)
            self.shared = cloudpickle.dumps(about)
        composed = composed_job(self.hydra_context, self.config, overrides, number)
        log = Path(str(composed.hydra.sweep.dir)).absolute() / str(composed.hydra.sweep.subdir) / LOG
        self.tickets[self.pool.submit(serve, self.shared, overrides, number, str(log))] = number
        return str(log)

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        """The jobs that have ended, waiting up to `timeout` seconds for one to."""
        import cloudpickle

        ended: list[tuple[int, JobReturn]] = []
        for event in self.pool.events(timeout) if self.pool is not None else []:
            if not event.done:
                continue
            number = self.tickets.pop(event.ticket)
            if event.error is None:
                ended.append((number, cloudpickle.loads(event.value)))
            elif isinstance(event.error, JobFailed):
                ended.append((number, cloudpickle.loads(event.error.args[0])))
            else:
                ended.append((number, failed_job(event.error)))
        return ended

    def stop(self, number: int) -> None:
        """Kill the worker that has this job, asleep or not; the pool reports it, and starts another."""
        ticket = next((ticket for ticket, job in self.tickets.items() if job == number), None)
        if self.pool is not None and ticket is not None:
            self.pool.kill(ticket)

    def signal(self, number: int) -> None:
        """Hand a signal on to the jobs in work."""
        if self.pool is not None:
            self.pool.signal(number)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None


# Who gets which GPU


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; torch is not asked, nor imported."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        devices = [device.strip() for device in named.split(",")]
        return devices[: next((i for i, device in enumerate(devices) if device in ("", "-1")), len(devices))]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(index) for index, line in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def assignment(
    visible: list[str], gpus: int | None, trials_per_gpu: int, processes: int | None, cores: int
) -> list[dict[str, str]]:
    """The environment of each worker: its GPU, round the GPUs first; on a machine without any, nothing.

    Raises:
        ValueError: for more GPUs than there are, or numbers below 1.
    """
    for key, value in (("gpus", gpus), ("trials_per_gpu", trials_per_gpu), ("processes", processes)):
        if value is not None and value < (0 if key == "gpus" else 1):
            raise ValueError(f"hydra.launcher.{key}={value}: must be a whole number ≥ {0 if key == 'gpus' else 1}")
    if gpus is not None and gpus > len(visible):
        there = f"{', '.join(visible)} visible" if visible else "none visible"
        raise ValueError(f"hydra.launcher.gpus={gpus}: more than there are ({there}); allowed: 0 to {len(visible)}")
    used = visible if gpus is None else visible[:gpus]
    if used:
        if processes is not None:
            raise ValueError(
                f"hydra.launcher.processes={processes}: for a machine without a GPU; here "
                "hydra.launcher.trials_per_gpu, or hydra.launcher.gpus=0 to use none"
            )
        return [{"CUDA_VISIBLE_DEVICES": device} for _ in range(trials_per_gpu) for device in used]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if visible else {}
    return [dict(hidden) for _ in range(processes or cores)]
