"""What a sweep optimises, and what a trial's metrics are worth by that."""

import math
from dataclasses import dataclass
from typing import Any

from rna.sweep import Trial, ledger

from ._checks import DIRECTIONS, Constraint, check_metrics, check_objectives
from .config import RnaOptunaConf
from .space import nearest


@dataclass(frozen=True)
class Goals:
    """The objectives, metric -> direction, and the constraints."""

    objectives: dict[str, str]
    constraints: list[Constraint]

    def judge(self, trial: Trial) -> None:
        """Set a finished trial's status, objective values and constraints from its metrics.

        Raises:
            ValueError: for a metric that it does not have.
        """
        check_metrics("hydra.sweeper.objectives", list(self.objectives), list(trial.metrics))
        check_metrics("hydra.sweeper.constraints", [item.metric for item in self.constraints], list(trial.metrics))
        values = [trial.metrics[metric] for metric in self.objectives]
        if any(value is None or not math.isfinite(value) for value in values):
            said = ", ".join(f"{metric}={value}" for metric, value in zip(self.objectives, values, strict=True))
            trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, "not finite", said, None
            return
        trial.status, trial.values = ledger.DONE, [float(value) for value in values]
        trial.reason = trial.message = None
        for item in self.constraints:  # under the names that Optuna's `Trial.set_constraint` gives them
            trial.attributes[f"constraints:{item}"] = item.violation(trial.metrics)


def goals(options: RnaOptunaConf, constraints: list[Constraint], store: Any, address: dict[str, Any] | None) -> Goals:
    """What the user asks for, or else the record store's choice, or else the returned value.

    Args:
        address: one of a record, which tells the metrics that there will be; None without a record store.

    Raises:
        ValueError: for a direction or a metric that does not exist.
    """
    given = check_objectives(options.objectives)
    if options.direction not in DIRECTIONS:
        raise ValueError(f"hydra.sweeper.direction={options.direction}: {nearest(options.direction, DIRECTIONS)}")
    if address is None:
        return Goals(given or {"value": options.direction}, constraints)
    names = store.names(address)
    check_metrics("hydra.sweeper.objectives", list(given), names)
    check_metrics("hydra.sweeper.constraints", [item.metric for item in constraints], names)
    return Goals(given or store.objectives(address), constraints)
