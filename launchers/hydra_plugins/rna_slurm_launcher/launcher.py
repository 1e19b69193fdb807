"""`hydra/launcher=slurm`: trials as tasks of job arrays, by submitit.

A trial is judged by what it wrote, never by SLURM's word for its end: a result file or a record is an outcome, a job
that is in no queue any more and left neither was killed. At SLURM's warning (preemption, time limit) training writes
its checkpoint and the job requeues itself. Jobs outlive the sweeper; the same command finds them again.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.rna_gpu_pool_launcher._serve import LOG, composed_job, failed_job, whole
from omegaconf import DictConfig

from ._job import SlurmTrial

MISSING_FOR = 12.0  # seconds out of the queue and without a result, as a network's files may come late
MANY = 1000  # requeues of one trial
PATIENT_FOR = 600.0  # seconds between two tries of an sbatch that fails, at most
LARGE = re.compile(r"array index|job array spec|MaxArraySize", re.I)
PASSING = re.compile(  # what sbatch says where the same call may do another time
    rf"timed? ?out|unable to contact|temporarily|connection|socket|zero bytes|submit ?(job)?s? ?limit|MaxSubmit|"
    rf"accounting/QOS policy|{LARGE.pattern}",
    re.I,
)


class SlurmLauncher(Launcher):
    """The plugin: options as in `SlurmConf`."""

    survives = True  # its jobs go on when the sweeper ends

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.folder = Path(options["folder"]).absolute()
        if shutil.which("sbatch") is None:
            raise ValueError("hydra/launcher=slurm: no sbatch on this machine; allowed here: basic, gpu_pool")
        self.buffer: list[tuple[list[str], int, str, str]] = []
        self.jobs: dict[int, str] = {}  # job number -> SLURM's id
        self.missing: dict[int, float] = {}
        self.states: dict[str, str] = {}  # SLURM's id -> its word, at the last look
        self.submitted = self.asked = 0.0
        self.shared = b""
        self.array: int | None = None  # trials in one array, at most
        self.patient_until, self.refusals = 0.0, 0

    @property
    def places(self) -> int:
        return self.options["max_in_flight"]

    @property
    def wait(self) -> bool:
        return self.options["wait"]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Hydra's own way in: all jobs of a batch, returned in their order once the last has ended."""
        found: dict[int, JobReturn] = {}
        for index, overrides in enumerate(job_overrides):
            self.start(list(overrides), initial_job_idx + index)
        while len(found) < len(job_overrides):
            found |= dict(self.poll(1.0))
        jobs = enumerate(job_overrides, initial_job_idx)
        composed = ((n, composed_job(self.hydra_context, self.config, list(said), n)) for n, said in jobs)
        return [whole(found[number], config) for number, config in composed]

    def start(self, overrides: list[str], number: int, title: str = "") -> str:
        """Take a job for the next array, and say where its log will be."""
        setup_globals()
        composed = composed_job(self.hydra_context, self.config, overrides, number)
        log = Path(str(composed.hydra.sweep.dir)).absolute() / str(composed.hydra.sweep.subdir) / LOG
        self.buffer.append(
            (overrides, number, str(log), re.sub(r"[^\w.=-]+", "-", title).strip("-") or f"trial-{number}")
        )
        return str(log)

    def adopt(self, number: int, job: str) -> None:
        """Watch a job that an earlier sweeper submitted."""
        self.jobs[number] = job

    def settled(self) -> bool:
        """Whether all is submitted, and SLURM has all of it."""
        self.flush()
        queue = queued_jobs()
        return queue is None or set(self.jobs.values()) <= set(queue)

    def waits(self, number: int) -> bool:
        """Whether a trial is with the cluster and does not run: submitted, queued, or requeued."""
        return self.states.get(self.jobs.get(number, ""), "PENDING") != "RUNNING"

    def flush(self) -> None:
        """Submit what has gathered, as one array; what SLURM has no room or no time for now, later and in smaller ones.

        Raises:
            ValueError: with what sbatch says, if it refuses for good.
        """
        import cloudpickle
        import submitit

        if not self.buffer or time.monotonic() < self.patient_until:
            return
        some = self.buffer[: self.array]
        about = (self.hydra_context, self.task_function, self.config, Singleton.get_state(), sys.path)
        self.shared = self.shared or cloudpickle.dumps(about)
        executor = submitit.AutoExecutor(folder=self.folder, cluster="slurm", slurm_max_num_timeout=MANY)
        executor.update_parameters(**self._parameters())
        try:
            with executor.batch():
                submitted = [executor.submit(SlurmTrial(self.shared, *item)) for item in some]
        except (submitit.core.utils.FailedJobError, subprocess.CalledProcessError) as error:
            said = " ".join(str(error).split())[-300:]
            if not PASSING.search(said):
                raise ValueError(f"hydra/launcher=slurm: sbatch refused: {said}") from None
            self._be_patient(len(some), said)
            return
        for (_, number, _, _), job in zip(some, submitted, strict=True):
            self.jobs[number] = job.job_id
        del self.buffer[: len(some)]
        self.submitted, self.refusals = time.monotonic(), 0

    def _be_patient(self, size: int, said: str) -> None:
        """Wait before the next try, twice as long each time; where the array was too large, halve it instead."""
        if LARGE.search(said) and size > 1:
            self.array = size // 2
            return
        seconds = min(self.options["submit_every"] * 2**self.refusals, PATIENT_FOR)
        self.refusals += 1
        self.patient_until = time.monotonic() + seconds
        print(f"hydra/launcher=slurm: sbatch: {said}; tried again in {seconds:.0f} s", file=sys.stderr, flush=True)

    def _parameters(self) -> dict[str, Any]:
        options = self.options
        wanted = {
            "name": str(self.config.hydra.sweeper.get("study_name") or self.config.hydra.job.name),
            "timeout_min": options["time_min"],
            "cpus_per_task": options["cpus"],
            "mem_gb": options["mem_gb"],
            "gpus_per_node": options["gpus"],
            "slurm_partition": options["partition"],
            "slurm_account": options["account"],
            "slurm_constraint": options["constraint"],
            "slurm_array_parallelism": options["max_parallel"],
            "slurm_signal_delay_s": options["warn_s"],
            "slurm_setup": list(options["setup"]) or None,
            "slurm_additional_parameters": dict(options["extra"] or {}) or None,
        }
        return {key: value for key, value in wanted.items() if value is not None}

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        """The jobs that have ended, submitting first what has gathered."""
        if self.buffer and (not self.submitted or time.monotonic() - self.submitted > self.options["submit_every"]):
            self.flush()
        time.sleep(timeout)
        ended: list[tuple[int, JobReturn]] = []
        queue = self._queue()
        for number, job in list(self.jobs.items()):
            result = self._result(job)
            if result is None and queue is not None and job not in queue:
                since = self.missing.setdefault(number, time.monotonic())
                if time.monotonic() - since > MISSING_FOR:
                    result = self._result(job) or _died(job)
            elif queue is not None:
                self.missing.pop(number, None)
            if result is not None:
                del self.jobs[number]
                ended.append((number, result))
        return ended

    def _queue(self) -> dict[str, str] | None:
        """This user's jobs; None where it is not time to ask, or the controller does not answer."""
        if time.monotonic() - self.asked < self.options["ask_every"] or not self.jobs:
            return None
        self.asked = time.monotonic()
        queue = queued_jobs()
        self.states = self.states if queue is None else queue
        return queue

    def _result(self, job: str) -> JobReturn | None:
        """What a job left behind; None if it left nothing."""
        import pickle

        import cloudpickle

        path = self.folder / f"{job}_0_result.pkl"
        try:
            kind, value = pickle.loads(path.read_bytes())
        except (FileNotFoundError, EOFError, pickle.UnpicklingError):
            return None
        if kind == "success":
            return cloudpickle.loads(value)
        return failed_job(RuntimeError(str(value).strip().splitlines()[-1]))

    def stop(self, number: int) -> None:
        if number in self.jobs:
            subprocess.run(["scancel", self.jobs[number]], check=False, capture_output=True)

    def signal(self, number: int) -> None:
        """Nothing to tell: jobs outlive the sweeper."""

    def close(self) -> None:
        """Nothing to end."""


def queued_jobs() -> dict[str, str] | None:
    """This user's jobs in SLURM's queue, id -> state; None if the controller does not answer."""
    try:
        listed = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i %T", "--me"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return None
    return dict(line.split()[:2] for line in listed.stdout.splitlines() if line.strip())


def _died(job: str) -> JobReturn:
    error = RuntimeError(f"job {job} ended without a word: killed, cancelled, or over its time or memory")
    error.reason = "killed"  # type: ignore[attr-defined]
    return failed_job(error)
