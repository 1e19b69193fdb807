"""How a trial whose job ended without an outcome goes on: tried again, left for the next life, or failed."""

import errno
from collections import deque
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.rna_gpu_pool_launcher.launcher import Faulted, NoPlaceLeft
from hydra_plugins.rna_optuna_sweeper import _study, space
from hydra_plugins.rna_optuna_sweeper._endings import Endings, Records
from hydra_plugins.rna_optuna_sweeper._goals import Goals
from hydra_plugins.rna_optuna_sweeper._outcomes import failed
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._storage import open_storage

from rna.ends import Interrupted
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.pool import WorkerDied


class DiskFull(RuntimeError):
    reason = "disk full"


ELSEWHERE, OWN = Faulted("CUDA error: ECC; on GPU 1", True), Faulted("CUDA error: assert; on GPU 1", False)
STALE = OSError(errno.ESTALE, "Stale file handle")


def endings(folder: Path, trial: Trial) -> Endings:
    goals = Goals({"value": "minimize"}, [])
    mirror = _study.mirror(open_storage(None, folder), folder, space.Space((), ()), goals.objectives, [trial])
    return Endings(
        folder=folder,
        records=Records(None, goals, None),
        mirror=mirror,
        brain=None,
        referee=None,
        said=Said(folder),
        max_retries=2,
        queue=deque(),
    )


@pytest.mark.parametrize(
    ("error", "attempts", "stopping", "expected", "counted", "again"),
    [
        (WorkerDied(9), 2, False, ledger.QUEUED, 2, True),
        (WorkerDied(9), 3, False, ledger.FAILED, 3, False),
        (WorkerDied(9), 3, True, ledger.QUEUED, 2, False),
        (Interrupted(15), 3, False, ledger.QUEUED, 2, True),
        (Interrupted(15), 3, True, ledger.QUEUED, 2, False),
        (DiskFull("no space"), 3, False, ledger.QUEUED, 2, False),
        (NoPlaceLeft("no space"), 3, False, ledger.QUEUED, 2, False),
        (ELSEWHERE, 3, False, ledger.QUEUED, 2, True),
        (ELSEWHERE, 3, True, ledger.QUEUED, 2, False),
        (OWN, 1, False, ledger.FAILED, 1, False),
        (STALE, 3, False, ledger.QUEUED, 2, True),
        (STALE, 3, True, ledger.QUEUED, 2, False),
        (RuntimeError("a bad cell"), 1, False, ledger.FAILED, 1, False),
        (RuntimeError("a bad cell"), 1, True, ledger.FAILED, 1, False),
    ],
)
def test_what_may_end_otherwise_is_tried_again_and_a_stop_or_a_full_disk_counts_against_no_trial(
    tmp_path: Path, error: Exception, attempts: int, stopping: bool, expected: str, counted: int, again: bool
):
    trial = Trial(0, [], status=ledger.RUNNING, token="t", attempts=attempts)
    ledger.save(tmp_path, trial)
    ending = endings(tmp_path, trial)
    ending.end(trial, failed(error), stopping=stopping)
    (kept,) = ledger.trials(tmp_path)
    assert (kept.status, kept.token, kept.attempts) == (expected, "", counted)
    assert list(ending.queue) == ([trial] if again else [])
    assert ending.full == ("no space" if isinstance(error, DiskFull | NoPlaceLeft) else None)


def test_a_file_system_that_ends_a_trial_again_and_again_ends_the_sweep(tmp_path: Path):
    first, second = (Trial(number, [], status=ledger.RUNNING, token="t", attempts=1) for number in range(2))
    ending = endings(tmp_path, first)
    for trial in (first, second, first, second):
        trial.attempts = 1
        ending.end(trial, failed(STALE), stopping=False)
    assert ending.full is None
    ended = JobReturn()
    ended.status, ended.return_value = JobStatus.COMPLETED, 1.0
    third = Trial(2, [], status=ledger.RUNNING, token="t", attempts=1, seconds=1.0)
    ending.end(third, ended, stopping=False)
    for _ in range(3):
        assert ending.full is None
        first.attempts = 1
        ending.end(first, failed(STALE), stopping=False)
    assert ending.full == str(STALE)
    assert (first.status, first.attempts) == (ledger.QUEUED, 0)


def test_on_a_full_disk_nothing_is_tried_again(tmp_path: Path):
    first, second = (Trial(number, [], status=ledger.RUNNING, token="t", attempts=1) for number in range(2))
    ending = endings(tmp_path, first)
    ending.end(first, failed(DiskFull("no space")), stopping=False)
    ending.end(second, failed(WorkerDied(9)), stopping=False)
    assert [(trial.status, trial.attempts) for trial in ledger.trials(tmp_path)] == [(ledger.QUEUED, 0)] * 2
    assert not ending.queue


@pytest.mark.parametrize("value", [None, {"other": 1.0}, "much"])
def test_a_trial_without_the_objective_fails_alone(tmp_path: Path, value: object):
    trial = Trial(0, [], status=ledger.RUNNING, token="t", attempts=1, seconds=1.0)
    ledger.save(tmp_path, trial)
    ended = JobReturn()
    ended.status, ended.return_value = JobStatus.COMPLETED, value
    endings(tmp_path, trial).end(trial, ended, stopping=False)
    (kept,) = ledger.trials(tmp_path)
    assert (kept.status, kept.reason) == (ledger.FAILED, "no objective")
    assert kept.message
