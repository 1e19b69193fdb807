"""What a sweep optimises, and what a trial's metrics are worth by that."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rna.sweep import Trial, ledger

from ._checks import DIRECTIONS, Constraint, check_metrics, check_objectives
from .config import RnaOptunaConf
from .space import nearest

NO_OBJECTIVE = "no objective"
CONSTRAINTS = "constraints:"  # as Optuna's `Trial.set_constraint` names them


@dataclass(frozen=True)
class Goals:
    """The objectives, metric -> direction, and the constraints."""

    objectives: dict[str, str]
    constraints: list[Constraint]

    def judge(self, trial: Trial) -> None:
        """Set a finished trial's status, objective values and constraints from its metrics.

        One without a number for each of them has failed, alone: for want of an objective, or as it is not finite.
        """
        forget_constraints(trial)
        trial.values = None
        try:
            check_metrics("hydra.sweeper.objectives", list(self.objectives), trial.metrics)
            check_metrics("hydra.sweeper.constraints", [item.metric for item in self.constraints], trial.metrics)
        except ValueError as error:
            trial.status, trial.reason, trial.message = ledger.FAILED, NO_OBJECTIVE, str(error)
            return
        wanted = dict.fromkeys([*self.objectives, *(item.metric for item in self.constraints)])
        numbers = {metric: trial.metrics[metric] for metric in wanted}
        odd = {metric: value for metric, value in numbers.items() if value is None or not math.isfinite(value)}
        if odd:
            trial.status, trial.reason = ledger.FAILED, NO_OBJECTIVE if None in odd.values() else "not finite"
            trial.message = ", ".join(f"{metric}={value}" for metric, value in odd.items())
            return
        trial.status, trial.values = ledger.DONE, [float(numbers[metric]) for metric in self.objectives]
        trial.reason = trial.message = None
        for item in self.constraints:
            trial.attributes[f"{CONSTRAINTS}{item}"] = item.violation(trial.metrics)


def forget_constraints(trial: Trial) -> None:
    """Take from a trial what it was worth by constraints, which may be another life's."""
    trial.attributes = {key: value for key, value in trial.attributes.items() if not key.startswith(CONSTRAINTS)}


def goals(
    options: RnaOptunaConf,
    constraints: list[Constraint],
    store: Any,
    address: dict[str, Any] | None,
    trials: Iterable[Trial] = (),
) -> Goals:
    """What the user asks for, or else the record store's choice, or else the returned value.

    Args:
        address: one of a record, which tells the metrics that there will be; None without a record store.
        trials: of earlier lives, which tell the metrics that there are, without a record store.

    Raises:
        ValueError: for a direction or a metric that does not exist.
    """
    given = check_objectives(options.objectives)
    if options.direction not in DIRECTIONS:
        raise ValueError(f"hydra.sweeper.direction={options.direction}: {nearest(options.direction, DIRECTIONS)}")
    if address is None:
        objectives = given or {"value": options.direction}
        names, why = {metric for trial in trials for metric in trial.metrics}, _unknown
        if not names:  # nothing is known before the first trial has returned
            return Goals(objectives, constraints)
    else:
        objectives = given or store.objectives(address)
        names, why = store.names(address), partial(store.absent, address)
    check_metrics("hydra.sweeper.objectives", list(objectives), names, why)
    check_metrics("hydra.sweeper.constraints", [item.metric for item in constraints], names, why)
    return Goals(objectives, constraints)


def _unknown(_metric: str) -> str:
    return "no trial has returned this metric"
