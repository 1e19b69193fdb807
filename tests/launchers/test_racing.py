"""Races of real trials: fewer questions, the winner of the whole sweep, whatever is killed on the way."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra_plugins.rna_optuna_sweeper import space
from hydra_plugins.rna_optuna_sweeper._racing import Racing
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._todo import Todo

from rna.sweep import Trial, ledger
from rna.sweep.race import Race
from tests.launchers.running import ROOT
from tests.sweep.racing import MadeUp, rules

METHOD = ("method=npo", "retain=kl", "train.steps=10", "train.lr=2e-5,2e-3", "noise=none", "seed=0,1")
RACE = (
    "baseline=skip",
    "model.retrained=null",
    "eval.limit=300",
    "wandb=disabled",
    "hydra.sweeper.study_name=r",
    "eval.race=true",
)
POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=2")
ALL = ("-m", *METHOD, *RACE, *POOL)


def started(output: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rna.run", *words, f"output_dir={output}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ran(output: Path, *words: str, code: int = 0) -> str:
    running = started(output, *words)
    printed, _ = running.communicate(timeout=400)
    assert running.returncode == code, printed
    assert "Traceback" not in printed, printed
    return printed


def race_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "sweeps" / "r" / "race.json").read_text())


def best_of(output: Path) -> str:
    """The setting that leads on the select half."""
    done = [trial for trial in ledger.trials(output / "sweeps" / "r") if trial.status == ledger.DONE]
    scores: dict[str, list[float]] = {}
    for trial in done:
        name = " ".join(item for item in trial.cell if not item.startswith("seed="))
        scores.setdefault(name, []).append(trial.metrics["eval/perturbed/select/acc"])
    return max(scores, key=lambda name: sum(scores[name]) / len(scores[name]))


def kept(output: Path) -> dict[str, str]:
    """Each answered block by its file's name."""
    files = sorted(output.glob("trials/*/block-*.json"))
    return {file.name: json.dumps(json.loads(file.read_text())["tasks"], sort_keys=True) for file in files}


@pytest.mark.slow
def test_a_race_that_is_killed_goes_on_and_asks_nothing_twice(tmp_path: Path):
    output = tmp_path / "outputs"
    killed = started(output, *ALL)
    while len(kept(output)) < 5:
        assert killed.poll() is None, killed.communicate()[0]
        time.sleep(0.05)
    os.killpg(killed.pid, 9)
    killed.wait()
    before = {file: file.read_bytes() for file in output.glob("trials/*/block-*.json")}
    printed = ran(output, *ALL)
    assert {file: file.read_bytes() for file in before} == before
    told = race_of(output)
    assert f"{told['asked']} of {told['of']} answers on the select half" in printed
    assert told["asked"] < told["of"]
    assert all(one["blocks"] == told["blocks"] or one["out"] for one in told["settings"].values())
    trials = ledger.trials(output / "sweeps" / "r")
    assert {trial.status for trial in trials} == {ledger.DONE, ledger.PRUNED}
    assert not list(output.glob("results/*block*"))
    stopped = next(trial for trial in trials if trial.status == ledger.PRUNED)
    assert stopped.reason == "raced"
    assert re.match(r"stopped by the race: eval/perturbed/acc [\d.]+ % after \d of \d blocks", stopped.message or "")
    again = ran(output, *ALL)  # nothing is left to do
    assert "done already" in again
    assert race_of(output) == told


@pytest.mark.slow
def test_a_race_finds_the_winner_that_the_whole_sweep_has(tmp_path: Path):
    output = tmp_path / "outputs"
    ran(output, *ALL)
    winner = best_of(output)
    ran(output, *(word.replace("eval.race=true", "eval.race=false") for word in ALL))
    assert {trial.status for trial in ledger.trials(output / "sweeps" / "r")} == {ledger.DONE}
    assert not (output / "sweeps" / "r" / "race.json").exists()
    assert best_of(output) == winner


def _address(number: int) -> dict[str, Any]:
    return {"group": f"{number // 2}", "n": number}


class Sweep:
    """Settings of two seeds each, whose trials answer what they are asked as soon as they are started."""

    def __init__(self, folder: Path, *shares: float) -> None:
        questions = np.random.default_rng(0).permutation(400)
        right = np.array([[questions < share * 400] * 2 for share in shares], dtype=np.int8)
        self.made, self.there = MadeUp({"perturbed": right}), dict.fromkeys(range(2 * len(shares)), 0)
        self.trials = [
            Trial(n, [f"x={n // 2}", f"seed={n % 2}"], address={"group": f"{n // 2}", "n": n}) for n in self.there
        ]
        todo = Todo(self.trials, space.parse([]), "grid", None)
        race = Race(rules(len(shares)))
        self.racing = Racing(race, self, folder, todo, Said(folder), finalists=1)

    def answered(self, address: dict[str, Any], _tasks: Any) -> list[dict[str, Any]]:
        return self.made.blocks(address["n"] // 2, address["n"] % 2, self.there[address["n"]])

    def work(self, trial: Trial) -> None:
        assert trial.race is not None
        trial.status = ledger.RUNNING
        self.there[trial.number] = trial.race["blocks"]
        assert self.racing.ended(trial)
        assert trial.status == ledger.QUEUED

    def begin(self, trials: list[Trial]) -> None:
        for trial in trials:
            assert self.racing.starts(trial)
            self.work(trial)
            assert not self.racing.starts(trial)  # it waits for its next turn


def test_one_block_after_another_until_one_setting_is_left_for_the_whole_evaluation(tmp_path: Path):
    sweep = Sweep(tmp_path, 0.5, 0.9, 0.52)
    sweep.begin(sweep.trials)
    while (trial := sweep.racing.next(busy=False)) and trial.race and trial.race["blocks"] is not None:
        sweep.work(trial)
    assert trial is not None
    assert trial.cell[0] == "x=1"
    assert trial.race is not None
    for one in sweep.trials[2:4]:
        one.status = ledger.DONE
    assert sweep.racing.next(busy=False) is None
    assert {one.number for one in sweep.racing.stopped()} == {0, 1, 4, 5}
    assert sweep.there[0] < sweep.there[2] == 5


def test_who_is_ahead_waits_for_half_of_the_others_unless_nothing_is_in_work(tmp_path: Path):
    sweep = Sweep(tmp_path, 0.9, 0.8, 0.7, 0.6)
    sweep.begin(sweep.trials[:2])
    assert sweep.racing.next(busy=True) is None
    ahead = sweep.racing.next(busy=False)
    assert ahead is not None
    assert ahead.number == 0
    sweep.begin(sweep.trials[2:4])
    assert sweep.racing.next(busy=True) is not None


@pytest.mark.parametrize("status", [ledger.FAILED, ledger.DONE])
def test_a_seed_that_answers_no_more_holds_up_no_setting(tmp_path: Path, status: str):
    sweep = Sweep(tmp_path, 0.9, 0.8)
    sweep.begin(sweep.trials)
    sweep.trials[0].status = status  # failed, or evaluated whole by another command
    asked: list[int] = []
    while (trial := sweep.racing.next(busy=False)) and trial.race and trial.race["blocks"] is not None:
        asked.append(trial.number)
        sweep.work(trial)
    assert trial is not None
    assert trial.number == 1
    assert asked.count(1) == 4


REFUSED = {
    "-m sweep=noise_scale eval.race=true": "eval.race=True: sweep=noise_scale feeds a figure or a table",
    "eval.race=true": "eval.race=True: settings race in a sweep; give -m",
    "-m seed=0,1 eval.race=true train_only=true": "train_only=true asks none",
    "-m seed=0,1 eval.race=true,false": "eval.race is swept",
    "-m noise.nu=interval(0.01,0.1) eval.race=true hydra.sweeper.sampler=tpe hydra.sweeper.n_trials=3": "allowed: grid",
    "-m seed=0,1 eval.race=true hydra.sweeper.pruner=median": "the race prunes",
    "-m seed=0,1 eval.race=true hydra.sweeper.objectives={eval/perturbed/report/acc:maximize}": "on the select half",
    "-m seed=0,1 eval.race=true hydra.sweeper.race.error=0": "above 0 and below 0.5",
}


@pytest.mark.whole
@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_race_is_refused_in_a_line(words: str, tmp_path: Path):
    printed = ran(tmp_path / "outputs", *words.split(), code=2)
    assert REFUSED[words] in printed
    assert len(printed.strip().splitlines()) == 1, printed
