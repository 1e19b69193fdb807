"""`hydra/launcher=slurm`: trials as tasks of job arrays, by submitit.

A trial is judged by what it wrote: a result file or a record is an outcome. Only of a job that is in no queue any more
and left neither, SLURM's word says why it ended. At SLURM's warning (preemption, time limit) training writes its
checkpoint and the job requeues itself. Jobs outlive the sweeper; the same command finds them again.

However many jobs there are, their folder is listed once in `LOOK` seconds and the queue once in `ask_every`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.rna_gpu_pool_launcher._serve import LOG, composed_job, failed_job, whole
from omegaconf import DictConfig

from ._job import SlurmTrial
from ._words import ENDS, HELD, STUCK, Word, accounted, queued_jobs, short_of_memory

LOOK = 2.0  # seconds between two listings of the folder
MISSING_FOR = 12.0  # seconds out of the queue and without a result, as a network's files may come late
MANY = 1000  # requeues of one trial
PATIENT_FOR = 600.0  # seconds between two tries of an sbatch that fails, at most
RESULT = "_0_result.pkl"  # of submitit
OUT_OF_MEMORY = "out of memory"
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
        self.words: dict[str, Word] = {}  # SLURM's id -> its word, at the last look
        self.told: set[tuple[str, str]] = set()  # arrays, and why trials of theirs wait, that were told already
        self.submitted = self.asked = self.looked = 0.0
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
        return not self.buffer and all(job in self.words and not self._over(job) for job in self.jobs.values())

    def waits(self, number: int) -> bool:
        """Whether a trial is with the cluster and does not run: submitted, queued, or requeued."""
        return self._word(number).state != "RUNNING"

    def word(self, number: int) -> str:
        """The cluster's own word for a trial, as PENDING (Resources)."""
        return str(self._word(number))

    def stuck(self) -> list[tuple[list[int], str]]:
        """Trials that wait for something that does not pass by itself, told once for each array and cause."""
        found: dict[tuple[str, str], list[int]] = {}
        for number, job in self.jobs.items():
            word = self._word(number)
            if word.state != "RUNNING" and word.state not in ENDS and STUCK.search(word.why):
                found.setdefault((job.partition("_")[0], word.why), []).append(number)
        new = {key: numbers for key, numbers in found.items() if key not in self.told}
        self.told = set(found)
        said: list[tuple[list[int], str]] = []
        for (array, why), numbers in new.items():
            job = self.jobs[numbers[0]] if len(numbers) == 1 else array
            said.append(
                (numbers, f"held: {why}; scontrol release {job}")
                if HELD.search(why)
                else (numbers, f"waiting, maybe for ever: {why}; scontrol show job {job}")
            )
        return said

    def _word(self, number: int) -> Word:
        return self.words.get(self.jobs.get(number, ""), Word("PENDING"))

    def _over(self, job: str) -> bool:
        return job not in self.words or self.words[job].state in ENDS

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
            self.jobs[number], self.words[job.job_id] = job.job_id, Word("PENDING")
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
            "gpus_per_node": options["gpus_per_trial"],
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
        left = self._left() if time.monotonic() - self.looked > LOOK else set()
        dead = self._dead() if self._asked() else []
        states = accounted(self.jobs[number] for number in dead) if dead else {}
        ended: list[tuple[int, JobReturn]] = []
        for number, job in list(self.jobs.items()):
            result = self._result(job) if job in left or number in dead else None
            if result is None and number in dead:
                result = self._died(job, states.get(job) or self.words.get(job, Word("")).state)
            if result is not None:
                del self.jobs[number]
                self.missing.pop(number, None)
                ended.append((number, result))
        return ended

    def _left(self) -> set[str]:
        """The jobs that have left something, by one listing."""
        self.looked = time.monotonic()
        if not self.jobs or not self.folder.exists():
            return set()
        with os.scandir(self.folder) as entries:
            return {entry.name.removesuffix(RESULT) for entry in entries if entry.name.endswith(RESULT)}

    def _asked(self) -> bool:
        """Look at the queue, if it is time; whether SLURM has answered."""
        if time.monotonic() - self.asked < self.options["ask_every"] or not self.jobs:
            return False
        self.asked = time.monotonic()
        queue = queued_jobs()
        self.words = self.words if queue is None else queue
        return queue is not None

    def _dead(self) -> set[int]:
        """The trials whose jobs were out of the queue at this look, and at one well before."""
        now = time.monotonic()
        gone = [number for number, job in self.jobs.items() if self._over(job)]
        self.missing = {number: self.missing.get(number, now) for number in gone}
        return {number for number in gone if now - self.missing[number] > MISSING_FOR}

    def _result(self, job: str) -> JobReturn | None:
        """What a job left behind; None if it left nothing."""
        import pickle

        import cloudpickle

        from rna import ends

        try:
            kind, value = pickle.loads((self.folder / f"{job}{RESULT}").read_bytes())
        except (FileNotFoundError, EOFError, pickle.UnpicklingError):
            return None
        if kind != "success":
            return failed_job(RuntimeError(str(value).strip().splitlines()[-1]))
        ended: JobReturn = cloudpickle.loads(value)
        if ended.status != JobStatus.FAILED:
            return ended
        error: BaseException = ended._return_value
        if getattr(error, "reason", None) == OUT_OF_MEMORY or ends.out_of_memory(error):
            return self._too_large(str(error) or type(error).__name__)
        return ended

    def _died(self, job: str, state: str) -> JobReturn:
        """The end of a job that left nothing, in SLURM's word where it still has one."""
        reason = ENDS.get(state, "killed")
        if reason == OUT_OF_MEMORY or short_of_memory(self.folder / f"{job}_0_log.err"):
            return self._too_large(f"job {job} was ended for want of memory")
        said = f"SLURM says {state}" if state in ENDS else "and SLURM does not remember it"
        error = RuntimeError(f"job {job} ended without a word, {said}")
        error.reason = reason  # type: ignore[attr-defined]
        return failed_job(error)

    def _too_large(self, message: str) -> JobReturn:
        """Want of memory: a job has its memory to itself, so that the same again would end the same."""
        has = self.options["mem_gb"]
        if "CUDA" in message:
            advice = "what helps too: a GPU that has more, by hydra.launcher.constraint=…"
        else:
            now = "what the partition gives" if has is None else f"{has:g}"
            advice = f"the same again would end the same: raise hydra.launcher.mem_gb=… (now {now})"
        error = RuntimeError(f"{message}; {advice}")
        error.reason, error.final = OUT_OF_MEMORY, True  # type: ignore[attr-defined]
        return failed_job(error)

    def stop(self, number: int) -> None:
        if number in self.jobs:
            subprocess.run(["scancel", self.jobs[number]], check=False, capture_output=True)

    def signal(self, number: int) -> None:
        """Jobs outlive the sweeper, and need no word from it."""
        said = f"{signal.Signals(number).name} came; {len(self.jobs)} jobs stay with the cluster"
        print(f"hydra/launcher=slurm: {said}; the same command finds them again", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Nothing to end."""
