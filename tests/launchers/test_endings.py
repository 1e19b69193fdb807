"""How a trial whose job ended without an outcome goes on: tried again, left for the next life, or failed."""

import errno
import re
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.rna_gpu_pool_launcher.launcher import Faulted, NoPlaceLeft
from hydra_plugins.rna_optuna_sweeper import space
from hydra_plugins.rna_optuna_sweeper._checks import constraint
from hydra_plugins.rna_optuna_sweeper._endings import Endings, Records
from hydra_plugins.rna_optuna_sweeper._following import follower
from hydra_plugins.rna_optuna_sweeper._goals import Goals, goals
from hydra_plugins.rna_optuna_sweeper._outcomes import failed
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._storage import open_storage
from hydra_plugins.rna_optuna_sweeper.config import RnaOptunaConf
from optuna.storages.journal import JournalFileBackend, JournalStorage

from rna.ends import Interrupted
from rna.settings import compose
from rna.store import lookup
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.pool import WorkerDied
from tests.launchers.running import STORE, environment, noted, sweep, trials


class DiskFull(RuntimeError):
    reason = "disk full"


ELSEWHERE, OWN = Faulted("CUDA error: ECC; on GPU 1", True), Faulted("CUDA error: assert; on GPU 1", False)
STALE = OSError(errno.ESTALE, "Stale file handle")


def endings(folder: Path, trial: Trial, *constraints: str, pause_after: int | None = None) -> Endings:
    goals = Goals({"value": "minimize"}, [constraint(said) for said in constraints])
    mirror = follower(open_storage(None, folder), folder, space.Space((), ()), goals.objectives, [trial])
    return Endings(
        folder=folder,
        records=Records(None, goals, None),
        mirror=mirror,
        brain=None,
        referee=None,
        said=Said(folder),
        max_retries=2,
        queue=deque(),
        pause_after=pause_after,
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


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        ({"value": 1.0, "cost": None}, "no objective"),
        ({"value": 1.0}, "no objective"),
        ({"value": None, "cost": 1.0}, "no objective"),
        ({"value": 1.0, "cost": float("nan")}, "not finite"),
    ],
)
def test_a_trial_without_a_number_for_a_constraint_fails_alone_and_is_judged_anew_without_it(
    tmp_path: Path, metrics: dict[str, float | None], reason: str
):
    trial = Trial(0, [], status=ledger.RUNNING, token="t", attempts=1, seconds=1.0)
    ledger.save(tmp_path, trial)
    ended = JobReturn()
    ended.status, ended.return_value = JobStatus.COMPLETED, metrics
    endings(tmp_path, trial, "cost <= 1").end(trial, ended, stopping=False)
    (kept,) = ledger.trials(tmp_path)
    assert (kept.status, kept.reason, kept.values) == (ledger.FAILED, reason, None)
    assert "cost" in (kept.message or "") or "value=None" in (kept.message or "")
    assert Records(None, Goals({"value": "minimize"}, []), None).recall(kept) is (reason == "no objective")
    assert kept.status == (ledger.DONE if reason == "no objective" and metrics["value"] else ledger.FAILED)


class OwnCode(RuntimeError):
    reason = "own code"


A, B = "a file of /data/0 is missing, see KEY1a2b", "a file of /data/1 is missing, see KEY3c"


@pytest.mark.parametrize(
    ("fates", "paused_after"),
    [
        ([RuntimeError(A), RuntimeError(B), RuntimeError(A)], 3),
        ([OwnCode(A), OwnCode(B), OwnCode(A), OwnCode(A)], 3),
        ([RuntimeError(A), 0.5, RuntimeError(B), RuntimeError(A)], None),
        ([RuntimeError(A), OwnCode(A), RuntimeError(A), OwnCode(A)], None),
        ([RuntimeError(A), RuntimeError("something else altogether"), RuntimeError(A)], None),
        ([ValueError(A)] * 4, None),
        ([ArithmeticError(A)] * 4, None),
        ([RuntimeError(A), ValueError(A), RuntimeError(B), RuntimeError(B)], 4),
        ([None, None, None], 3),
    ],
)
def test_as_many_alike_failures_in_a_row_pause_the_sweep(
    tmp_path: Path, fates: list[object], paused_after: int | None, capsys: pytest.CaptureFixture[str]
):
    many = [Trial(n, [], status=ledger.RUNNING, token="t", attempts=3, seconds=1.0) for n in range(len(fates))]
    ending, found = endings(tmp_path, many[0], pause_after=3), None
    for trial, fate in zip(many, fates, strict=True):
        ended = JobReturn()
        ended.status, ended.return_value = JobStatus.COMPLETED, fate
        ending.end(trial, failed(fate) if isinstance(fate, Exception) else ended, stopping=False)
        if ending.paused and found is None:
            found = trial.number + 1
    assert found == paused_after
    assert capsys.readouterr().err.count("paused: ") == (paused_after is not None)


@pytest.mark.whole
@pytest.mark.parametrize(
    "launcher", [(), pytest.param(("hydra/launcher=gpu_pool", "hydra.launcher.processes=2"), marks=pytest.mark.slow)]
)
def test_a_paused_sweep_starts_nothing_more_and_the_same_command_runs_the_rest(
    tmp_path: Path, launcher: tuple[str, ...]
):
    common = (*launcher, *STORE, "+x=1,2,3,4,5,6,7,8,9", "+fail=all")
    printed = sweep(tmp_path, *common, code=1)
    (said,) = [line for line in printed.splitlines() if "paused: " in line]
    assert "failed one after another for the same reason, error: a bad cell" in said
    assert "python -m rna.sweep retry toy" in said
    first = {words[1] for words in noted(tmp_path)}
    assert 3 <= len(first) <= 4  # at most one more was in work
    printed = sweep(tmp_path, *common[:-1], code=1)  # mended: as the failures of before are still there
    assert "paused: " not in printed
    assert f"{9 - len(first)} done, {len(first)} failed" in printed
    assert "paused: " not in sweep(tmp_path, *common, "hydra.sweeper.pause_after=1", code=1)


@pytest.mark.whole
def test_without_a_pause_every_trial_has_its_turn(tmp_path: Path):
    printed = sweep(tmp_path, "+x=1,2,3,4,5", "+fail=all", "hydra.sweeper.pause_after=null", code=1)
    assert "0 done, 5 failed" in printed


@pytest.mark.whole
def test_constraints_are_those_of_the_present_command_in_ledger_study_and_sampler(tmp_path: Path):
    """One that was loosened or removed marks no trial any more, not one that ended in an earlier life either."""
    common = ("+x=interval(0,1)", "hydra.sweeper.sampler=tpe", "hydra.sweeper.n_trials=4", *STORE)
    for said in ("['x <= 0.1']", "['x <= 0.9', 'loss <= 1']", "[]"):
        sweep(tmp_path, *common, f"hydra.sweeper.constraints={said}")
        bounds = [constraint(item) for item in said.strip("[]").replace("'", "").split(", ") if item]
        wanted = [{str(item): item.violation(trial.metrics) for item in bounds} for trial in trials(tmp_path)]
        kept = [{key: value for key, value in one.attributes.items() if "constr" in key} for one in trials(tmp_path)]
        assert kept == [{f"constraints:{key}": value for key, value in one.items()} for one in wanted]
        assert [one.constraints for one in mirrored(tmp_path)] == wanted
    assert {one.state.name for one in mirrored(tmp_path)} == {"COMPLETE"}


def mirrored(folder: Path) -> list[Any]:
    journal = JournalStorage(JournalFileBackend(str(folder / "sweeps" / "toy" / "journal.log")))
    return optuna.load_study(study_name="toy", storage=journal).get_trials()


@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["~eval.tasks.related"], {"constraints": ["eval/related/acc <= 0.5"]}, "no task of eval.tasks has the role"),
        (
            [],
            {"objectives": {"eval/ngram/acc": "minimize"}},
            "=eval/ngram/acc: no task of eval.tasks has the role ngram",
        ),
        (["train_only=true"], {"constraints": ["eval/forget/acc <= 1"]}, "train_only=true evaluates nothing"),
        ([], {"constraints": ["eval/forgt/acc <= 1"]}, "no record has this metric; did you mean 'eval/forget/acc'?"),
    ],
)
def test_a_metric_that_no_record_will_have_is_refused_before_the_start_with_the_reason(
    tmp_path: Path, words: list[str], options: dict[str, Any], said: str
):
    where = lookup.address(compose([f"output_dir={tmp_path}", *words], None))
    bounds = [constraint(text) for text in options.get("constraints", [])]
    with pytest.raises(ValueError, match=re.escape(said)):
        goals(RnaOptunaConf(objectives=options.get("objectives")), bounds, lookup, where)


@pytest.mark.whole
def test_the_real_program_says_so_in_one_line(tmp_path: Path):
    words = (
        "seed=0",
        f"output_dir={tmp_path}",
        "wandb=disabled",
        "hydra.sweeper.objectives={eval/ngram/acc: minimize}",
    )
    command = [sys.executable, "-m", "rna.run", "-m", *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=120)
    said = "error: hydra.sweeper.objectives=eval/ngram/acc: no task of eval.tasks has the role ngram; "
    assert (done.returncode, done.stderr[: len(said)]) == (2, said)
    assert not list(tmp_path.glob("trials/*"))
