"""What runs in a worker: one job after another, each with its log.

Hydra executes every module of its plugins again at each start but for those whose name begins like this one's; a class
that crosses a pipe must not be made twice.
"""

import copy
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict

LOG = "trial.log"
TOLD_TO_END = ("pruned", "cancelled")  # reasons of a trial that ended in good order


class JobFailed(RuntimeError):
    """A job that failed, with what Hydra returned of it: raised so that its worker is not used again."""


def serve(shared: bytes, overrides: list[str], number: int, log: str, _tell: Any) -> bytes:
    """In a worker: one job, with what it prints in its log."""
    import cloudpickle

    context, function, config, state, path = cloudpickle.loads(shared)
    sys.path[:] = path
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    with Path(log).open("a", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    try:
        fresh_peaks()
        Singleton.set_state(state)
        setup_globals()
        composed = composed_job(context, config, overrides, number)
        ended = run_job(
            hydra_context=context,
            task_function=function,
            config=composed,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if ended.status == JobStatus.FAILED and getattr(ended._return_value, "reason", None) not in TOLD_TO_END:
            import traceback

            traceback.print_exception(ended._return_value)
    except BaseException as stop:  # Hydra 1.4 hangs its own return on it, which holds it in turn: no pickle ends that
        for name in [name for name, value in vars(stop).items() if not isinstance(value, int | float | str)]:
            delattr(stop, name)
        raise
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number_of, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number_of)
            os.close(copy)
    ended.cfg = ended.hydra_cfg = None  # `whole` composes them again where wanted; a pipe need not carry them
    if ended.status == JobStatus.FAILED:
        pickled = _pickled_failure(ended)
        if getattr(ended._return_value, "reason", None) in TOLD_TO_END:
            return pickled  # ended in good order: this worker stays warm
        raise JobFailed(pickled)
    return cloudpickle.dumps(ended)


def _pickled_failure(ended: JobReturn) -> bytes:
    """The failure as it is, or in words where it does not survive a pipe."""
    import cloudpickle

    try:
        pickled = cloudpickle.dumps(ended)
        cloudpickle.loads(pickled)
        return pickled
    except Exception:  # an error with a constructor of its own kind
        error: Any = ended._return_value
        words = RuntimeError(f"{type(error).__name__}: {error}")
        words.reason = getattr(error, "reason", "error")  # type: ignore[attr-defined]
        ended.return_value = words
        return cloudpickle.dumps(ended)


def composed_job(context: HydraContext, config: DictConfig, overrides: list[str], number: int) -> DictConfig:
    composed = context.config_loader.load_sweep_config(config, overrides)
    with open_dict(composed):
        composed.hydra.job.id = str(number)
        composed.hydra.job.num = number
    return composed


def whole(ended: JobReturn, composed: DictConfig) -> JobReturn:
    """What a job returned with the configurations that Hydra's own sweepers expect there, task and Hydra apart."""
    task = copy.deepcopy(composed)
    with flag_override(task, ["struct", "readonly"], [False, False]):
        del task["hydra"]
    hydra = OmegaConf.masked_copy(composed, "hydra")
    ended.cfg, ended.hydra_cfg = task, hydra
    if ended.overrides is None:  # it died before it could say them
        ended.overrides = composed.hydra.overrides.task
    return ended


def failed_job(error: BaseException) -> JobReturn:
    if isinstance(error, SystemExit):
        error = RuntimeError(f"it ended with exit code {error.code}")
    made = JobReturn()
    made.status, made.return_value = JobStatus.FAILED, error
    return made


def fresh_peaks() -> None:
    """Begin the process's peak memory anew, so that a trial's is its own and not that of one before it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
