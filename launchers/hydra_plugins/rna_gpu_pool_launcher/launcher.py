"""`hydra/launcher=gpu_pool`: warm worker processes, each with GPUs or a share of one, or on the CPU of its own.

Imports, base model and caches are paid for once a worker. After a failure its place gets a fresh process. A place whose
device fails is set aside. Each trial has a log file in its folder. Ctrl-C and the end of the parent end every worker.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from ._gpus import assignment, visible_gpus
from ._places import Places
from ._serve import LOG, JobFailed, composed_job, failed_job, serve, whole


class Faulted(RuntimeError):
    """A job that a device ended; `elsewhere` says whether it had better be tried on another."""

    reason = "device"

    def __init__(self, said: str, elsewhere: bool) -> None:
        super().__init__(said)
        self.elsewhere = elsewhere


class NoPlaceLeft(RuntimeError):
    """Every place was set aside: nothing more can be run here."""

    reason = "no place"


class GpuPoolLauncher(Launcher):
    """The plugin: options as in `GpuPoolConf`."""

    wait, survives = True, False

    def __init__(self, gpus: int | None, trials_per_gpu: int, processes: int | None, gpus_per_trial: int = 1) -> None:
        from rna.settings import cores

        visible = [] if gpus == 0 else visible_gpus(os.environ)
        self.assigned = assignment(visible, gpus, trials_per_gpu, gpus_per_trial, processes, cores.available())
        devices = [place.get("CUDA_VISIBLE_DEVICES", "") for place in self.assigned]
        self.judged = Places(tuple(f"GPU {one}" if one else f"process {at}" for at, one in enumerate(devices)))
        self.broken = ""  # what was said of the last place that was set aside
        self.pool: Any = None
        self.tickets: dict[int, int] = {}  # ticket -> job number
        self.jobs: dict[int, str] = {}  # a cluster's ids: none here
        self.shared: bytes = b""

    @property
    def places(self) -> int:
        """How many trials there is room for, on the places that work."""
        return len(self.assigned) - len(self.judged.closed)

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
        barred = self.judged.barred(number)
        self.tickets[self.pool.submit(serve, self.shared, overrides, number, str(log), barred=barred)] = number
        return str(log)

    def waits(self, number: int) -> bool:
        """Whether a job has no worker yet, and so nothing to say."""
        return self.pool is not None and any(self.tickets.get(waiting[0]) == number for waiting in self.pool.waiting)

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        """The jobs that have ended, waiting up to `timeout` seconds for one to.

        One that ended by a fault of its device, and may run again elsewhere, has an error with `elsewhere`.
        """
        ended: list[tuple[int, JobReturn]] = []
        for event in self.pool.events(timeout) if self.pool is not None else []:
            if event.done:
                number = self.tickets.pop(event.ticket)
                ended.append((number, self._judged(number, event.place, _returned(event))))
        if self.pool is not None:
            self.pool.closed = self.judged.closed
        if not self.places and self.pool is not None:
            no_place = NoPlaceLeft(self._none_left())
            ended += [(self.tickets.pop(ticket), failed_job(no_place)) for ticket in self.pool.cancel_waiting()]
        return ended

    def _judged(self, number: int, place: int, ended: JobReturn) -> JobReturn:
        """What came of a job, and whose fault it is if a device failed: its place's, unless it follows the trial."""
        from rna.ends import device_failed

        name = self.judged.names[place]
        error: Any = ended._return_value
        if ended.status == JobStatus.COMPLETED or getattr(error, "reason", None) == "pruned":
            self.judged.well(name, number)
        if ended.status == JobStatus.COMPLETED or not device_failed(error):
            return ended
        before, been = self.judged.working, list(self.judged.been.get(number, []))
        said = f"{(str(error).splitlines() or [type(error).__name__])[0]}; on {name}"
        if self.judged.fault(name, number, said):
            others = f" as on {', '.join(been)}" if been else ""
            return failed_job(Faulted(f"{said}{others}: the trial's own failure", False))
        if name in before and name not in self.judged.working:
            said = self.broken = f"{said}, the second fault there: set aside for the rest of this run"
        return failed_job(Faulted(said, True) if self.judged.working else NoPlaceLeft(self._none_left()))

    def _none_left(self) -> str:
        return (
            "every place of the pool is set aside: mend the devices, or name others by CUDA_VISIBLE_DEVICES; the last "
            f"fault: {self.broken}"
        )

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


def _returned(event: Any) -> JobReturn:
    """What a job returned, or how it failed."""
    import cloudpickle

    if event.error is None:
        return cloudpickle.loads(event.value)
    return cloudpickle.loads(event.error.args[0]) if isinstance(event.error, JobFailed) else failed_job(event.error)
