"""Which trials are not worth their end: Optuna's pruners, asked for each point of a trial's curve.

The trials tell their curves by files, so that a pruned sweep works with every launcher and storage, and goes on after a
kill; the pruner's own study lies in memory and is made anew at each start.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from rna.sweep import Trial, ledger

from .space import nearest

PRUNERS = ("median", "hyperband")
ENDS = {ledger.DONE: TrialState.COMPLETE, ledger.PRUNED: TrialState.PRUNED, ledger.FAILED: TrialState.FAIL}


@dataclass
class Referee:
    """A pruner, and the curves it knows."""

    metric: str
    direction: str
    every: int
    pruner: Any
    study: Any
    ids: dict[int, int] = field(default_factory=dict)  # trial number -> its id in the study
    told: dict[int, int] = field(default_factory=dict)  # trial number -> how many points were taken in

    @property
    def watched(self) -> dict[str, Any]:
        """What a trial needs to know to tell its curve."""
        return {"metric": self.metric, "every": self.every}

    def judge(self, trial: Trial, curve: Sequence[tuple[int, float]]) -> bool:
        """Take in what is new of a trial's curve; return whether it should end here."""
        if trial.number not in self.ids:
            self._add(trial, TrialState.RUNNING)
        storage, known = self.study._storage, self.ids[trial.number]
        for step, value in curve[self.told[trial.number] :]:
            storage.set_trial_intermediate_value(known, step, value)
            self.told[trial.number] += 1
            if self.pruner.prune(self.study, storage.get_trial(known)):
                return True
        return False

    def learn(self, trial: Trial) -> None:
        """Take in how a trial ended; of one that is tried again, nothing stays."""
        end = ENDS.get(trial.status, TrialState.FAIL)
        if not trial.curve and end == TrialState.COMPLETE:
            end = TrialState.FAIL
        if trial.number not in self.ids:
            self._add(trial, end)
            return
        values = [trial.curve[-1][1]] if end == TrialState.COMPLETE else None
        self.study._storage.set_trial_state_values(self.ids.pop(trial.number), end, values)
        del self.told[trial.number]

    def _add(self, trial: Trial, state: TrialState) -> None:
        over = state != TrialState.RUNNING
        values = [trial.curve[-1][1]] if state == TrialState.COMPLETE else None
        points = dict(trial.curve) if over else {}
        made = create_trial(state=state, values=values, intermediate_values=points)
        self.study.add_trial(made)
        if not over:
            self.ids[trial.number] = self.study.get_trials(deepcopy=False)[-1]._trial_id
            self.told[trial.number] = 0


def referee(
    name: str,
    options: Mapping[str, Any],
    prune_by: Mapping[str, str],
    objectives: Mapping[str, str],
    curves: Sequence[str] | None,
    study: str,
) -> Referee:
    """The pruner of this name.

    Args:
        prune_by: metric -> direction; empty for the objective's own course.
        curves: the metrics whose course can be watched; None if the app has no record store, and knows by itself.
        study: the sweep's name; Hyperband draws each trial's bracket from it, so that a resumed sweep draws as before.

    Raises:
        ValueError: for an unknown pruner or metric, several objectives, an option that is out of range.
    """
    if name not in PRUNERS:
        raise ValueError(f"hydra.sweeper.pruner={name}: {nearest(name, PRUNERS)}")
    if len(objectives) > 1:
        raise ValueError(
            f"hydra.sweeper.pruner={name}: works with one objective; "
            f"here are {len(objectives)}: {', '.join(objectives)}"
        )
    if len(prune_by) > 1:
        raise ValueError(f"hydra.sweeper.prune_by={dict(prune_by)}: allowed: one metric")
    metric, direction = next(iter((prune_by or objectives).items()))
    if not prune_by and metric.startswith("eval/"):
        metric = "interim/" + metric.removeprefix("eval/")
    if curves is not None and metric not in curves:
        hint = "; eval.interim_every=STEPS gives interim/…" if not any("interim/" in one for one in curves) else ""
        raise ValueError(f"hydra.sweeper.prune_by={metric}: no trial tells its course; {nearest(metric, curves)}{hint}")
    least = {"every": 1, "startup_trials": 0, "warmup_steps": 0, "reduction_factor": 2}
    for key, low in least.items():
        if not isinstance(options[key], int) or options[key] < low:
            raise ValueError(f"hydra.sweeper.pruning.{key}={options[key]}: must be a whole number ≥ {low}")
    if name == "median":
        pruner: Any = optuna.pruners.MedianPruner(
            n_startup_trials=options["startup_trials"], n_warmup_steps=options["warmup_steps"]
        )
    else:
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=max(options["every"], options["warmup_steps"]), reduction_factor=options["reduction_factor"]
        )
    known = optuna.create_study(study_name=study, direction=direction)
    return Referee(metric, direction, options["every"], pruner, known)
