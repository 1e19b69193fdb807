"""Pruned sweeps, with real trials that tell their curves; and the pruners by hand."""

import time
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.rna_optuna_sweeper import _pruning

from rna.sweep import ledger
from rna.sweep.ledger import Trial
from tests.launchers.running import STORE, noted, start, study, sweep, trials

POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=2")
OPTIONS = {"every": 2, "startup_trials": 2, "warmup_steps": 0, "reduction_factor": 3}
PRUNE = ("hydra.sweeper.pruner=median", "hydra.sweeper.pruning.every=5", "hydra.sweeper.pruning.startup_trials=2")
GOOD, BAD = ("0.3", "0.2"), ("5", "6", "7")  # loss = (x - 0.3)²


def judge(name: str, **options: int) -> _pruning.Referee:
    return _pruning.referee(name, OPTIONS | options, {}, {"loss": "minimize"}, None, "a sweep")


def test_the_median_ends_what_is_worse_than_half_of_the_finished_trials_at_the_same_step():
    referee = judge("median")
    for number, value in enumerate((1.0, 3.0)):
        referee.learn(Trial(number, [], status=ledger.DONE, curve=[(2, value + 1), (4, value)]))
    assert not referee.judge(Trial(2, []), [(2, 2.9)])  # the median at step 2 is 3
    assert not referee.judge(Trial(2, []), [(2, 2.9), (4, 1.9)])  # at step 4 it is 2
    assert referee.judge(Trial(3, []), [(2, 3.1)])
    assert not judge("median").judge(Trial(3, []), [(2, 3.1)])  # nothing finished to compare with


def test_a_metric_that_is_maximised_is_pruned_from_below():
    referee = _pruning.referee(
        "median", OPTIONS, {"interim/retain/acc": "maximize"}, {"loss": "minimize"}, None, "a sweep"
    )
    for number in range(2):
        referee.learn(Trial(number, [], status=ledger.DONE, curve=[(2, 0.5)]))
    assert not referee.judge(Trial(2, []), [(2, 0.6)])
    assert referee.judge(Trial(3, []), [(2, 0.4)])


def test_hyperband_keeps_the_best_third_at_each_rung():
    referee = judge("hyperband")
    referee.learn(Trial(0, [], status=ledger.DONE, curve=[(step, 0.1) for step in range(2, 60, 2)]))
    ended = [referee.judge(Trial(n, []), [(step, float(n)) for step in range(2, 60, 2)]) for n in range(1, 13)]
    assert 0 < sum(ended) < 12  # brackets differ in how early they look
    assert sum(ended[6:]) >= sum(ended[:6])


def test_a_curve_is_means_between_the_steps_that_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trial = Trial(0, [], token="abc", address={"key": "K"})
    ledger.save(tmp_path, trial)
    ledger.write_json(tmp_path / "sweep.json", {"watched": {"metric": "loss", "every": 2}})
    monkeypatch.setenv(ledger.OWNER, ledger.owner_value(tmp_path, trial))
    values = [1.0, 3.0, 5.0, 9.0, 4.0]
    for step, value in enumerate(values, 1):
        ledger.report("K", step, {"loss": value, "other": 0.0})
        ledger.report("its plain twin", step, {"loss": -1.0})
    told = ledger.read_curve(ledger.curve_path(tmp_path, trial))
    assert told == [(2, 2.0), (4, 7.0)] == ledger.thinned(list(enumerate(values, 1)), 2)
    trial.status, trial.token, trial.message = ledger.PRUNED, "", "pruned at step 4: loss=7"
    ledger.save(tmp_path, trial)
    with pytest.raises(ledger.Pruned, match="trial 0: pruned at step 4: loss=7"):
        ledger.report("K", 6, {"loss": 1.0})


@pytest.mark.slow
def test_a_sweep_ends_its_bad_trials_early_and_shows_the_curves(tmp_path: Path):
    cells = ",".join((*GOOD, *BAD))
    printed = sweep(tmp_path, *POOL, *STORE, f"+x={cells}", "+steps=200", "+pace=0.01", *PRUNE)
    assert "2 done, 3 pruned, 0 failed" in printed
    assert "pruned at step" in printed
    steps = {name: int(step) for _, name, step in (line for line in noted(tmp_path) if line[0] == "step")}
    assert all(steps[f"x{x}"] == 200 for x in GOOD)
    assert all(steps[f"x{x}"] < 150 for x in BAD)
    begun = [line for line in noted(tmp_path) if line[0] == "begin"]
    assert len({name for _, name, *_ in begun}) == len(begun) == 5
    assert len({process for _, _, process, *_ in begun}) == 2  # a worker whose trial was pruned stays warm
    assert [state for _, state, _, _ in study(tmp_path)] == ["COMPLETE"] * 2 + ["PRUNED"] * 3
    again = sweep(tmp_path, *POOL, *STORE, f"+x={cells}", "+steps=200", "+pace=0.01", *PRUNE)
    assert "2 done, 3 pruned, 0 failed" in again
    told = {trial.status: trial.curve for trial in trials(tmp_path)}
    assert [step for step, _ in told[ledger.DONE]] == list(range(5, 201, 5))
    assert told[ledger.PRUNED]
    other = (
        "hydra.sweeper.pruning.every=50",
    )  # at other steps: what was told is forgotten, what is recorded read anew
    assert "2 done, 3 pruned" in sweep(
        tmp_path, *POOL, *STORE, f"+x={cells}", "+steps=200", "+pace=0.01", *PRUNE, *other
    )
    told = {trial.status: trial.curve for trial in trials(tmp_path)}
    assert [step for step, _ in told[ledger.DONE]] == [50, 100, 150, 200]
    assert told[ledger.PRUNED] == []
    assert len([line for line in noted(tmp_path) if line[0] == "begin"]) == 5


@pytest.mark.slow
def test_a_launcher_that_blocks_and_an_app_without_records_are_pruned_too(tmp_path: Path):
    more = ("+steps=60", "+pace=0.02", *PRUNE, "hydra.sweeper.pruning.startup_trials=1")
    printed = sweep(tmp_path, "+x=0.3,5", *more)
    assert "1 done, 1 pruned, 0 failed" in printed


@pytest.mark.slow
def test_after_a_kill_the_finished_curves_are_known_and_the_pruned_stay_pruned(tmp_path: Path):
    cells = ",".join((*GOOD, *BAD))
    arguments = (*POOL, *STORE, f"+x={cells}", "+steps=100", "+pace=0.02", *PRUNE)
    process = start(tmp_path, *arguments)
    deadline = time.monotonic() + 60
    while not any(trial.status == ledger.PRUNED for trial in trials(tmp_path)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    early = {trial.number for trial in trials(tmp_path) if trial.over}
    printed = sweep(tmp_path, *arguments)
    assert "2 done, 3 pruned, 0 failed" in printed
    begun = [line[1] for line in noted(tmp_path) if line[0] == "begin"]
    cell_of = {trial.number: f"x{trial.params['x']}" for trial in trials(tmp_path)}
    assert all(begun.count(cell_of[number]) == 1 for number in early)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["hydra.sweeper.pruner=medan"], "hydra.sweeper.pruner=medan: did you mean 'median'"),
        (["hydra.sweeper.pruner=median", "+hydra.sweeper.prune_by.los=minimize"], "hydra.sweeper.prune_by=los"),
        (["hydra.sweeper.pruner=median", "+hydra.sweeper.prune_by.loss=down"], "hydra.sweeper.prune_by.loss=down"),
        (
            [  # before any trial is drawn
                "hydra.sweeper.sampler=random",
                "hydra.sweeper.n_trials=2",
                "hydra.sweeper.pruner=median",
                "+hydra.sweeper.prune_by.los=minimize",
            ],
            "hydra.sweeper.prune_by=los",
        ),
        (["hydra.sweeper.pruner=median", "hydra.sweeper.pruning.every=0"], "hydra.sweeper.pruning.every=0"),
        (
            ["hydra.sweeper.pruner=hyperband", "hydra.sweeper.objectives={loss: minimize, x: minimize}"],
            "works with one objective; here are 2: loss, x",
        ),
    ],
)
def test_what_cannot_be_pruned_is_said_in_one_line(tmp_path: Path, said: list[Any], expected: str):
    printed = sweep(tmp_path, *STORE, "+x=1,2", *said, code=2)
    assert printed.startswith("error: ")
    assert expected in printed
    assert noted(tmp_path) == []
