"""What a user asks of a sweep, checked before anything is started."""

import importlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from . import space as search_space
from .config import RnaOptunaConf

SAMPLERS = ("grid", "random", "tpe", "nsga2")
DIRECTIONS = ("minimize", "maximize")


def check_sampler(options: RnaOptunaConf, space: search_space.Space) -> str:
    """The sampler's name. Raises ValueError for one that does not exist, or does not fit the space."""
    sampler = options.sampler or "grid"
    if sampler not in SAMPLERS:
        raise ValueError(f"hydra.sweeper.sampler={sampler}: {search_space.nearest(sampler, SAMPLERS)}")
    for key, value, low in (
        ("n_jobs", options.n_jobs, 1),
        ("max_retries", options.max_retries, 0),
        ("pause_after", options.pause_after, 1),
    ):
        if value is not None and value < low:
            raise ValueError(f"hydra.sweeper.{key}={value}: must be a whole number ≥ {low}")
    if options.timeout is not None and not options.timeout >= 0:
        raise ValueError(f"hydra.sweeper.timeout={options.timeout:g}: must be a number of seconds ≥ 0, or null")
    if sampler == "grid":
        if endless := next((axis for axis in space.axes if axis.interval), None):
            raise ValueError(
                f"{endless.key}=interval({endless.low:g},{endless.high:g}): a grid needs values it can count; allowed: "
                "a list, choice(…), range(…), or hydra.sweeper.sampler=random, tpe, nsga2"
            )
        return sampler
    if space.grids:
        raise ValueError(f"hydra.sweeper.sampler={sampler}: draws from one space; with hydra.sweeper.grids: grid")
    if not space.axes:
        raise ValueError(f"hydra.sweeper.sampler={sampler}: nothing is swept; give a list, range or interval")
    if options.n_trials is None or options.n_trials < 1:
        raise ValueError(f"hydra.sweeper.n_trials={options.n_trials}: {sampler} needs a whole number ≥ 1")
    return sampler


def record_store(module: str) -> Any:
    """Raises ValueError for a module that is not there; what goes wrong within it is its own matter."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"hydra.sweeper.store={module}: no such module; allowed: null, or one that can be imported"
        ) from None


def check_objectives(given: Any, option: str = "objectives") -> dict[str, str]:
    """Raises ValueError for what is no mapping of metrics to directions."""
    if given is not None and not hasattr(given, "items"):
        raise ValueError(f"hydra.sweeper.{option}={given}: allowed: {{METRIC: minimize}}, {{METRIC: maximize}}")
    objectives = {str(metric): str(direction) for metric, direction in (given or {}).items()}
    for metric, direction in objectives.items():
        if direction not in DIRECTIONS:
            allowed = search_space.nearest(direction, DIRECTIONS)
            raise ValueError(f"hydra.sweeper.{option}.{metric}={direction}: {allowed}")
    return objectives


@dataclass(frozen=True)
class Constraint:
    """`METRIC <= BOUND` or `METRIC >= BOUND`."""

    metric: str
    sign: int
    bound: float

    def violation(self, metrics: dict[str, Any]) -> float:
        """At most 0 where it holds, as Optuna wants it."""
        return self.sign * (float(metrics[self.metric]) - self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.sign > 0 else '>='} {self.bound:g}"


def constraint(said: str) -> Constraint:
    """Raises ValueError for what is no constraint."""
    for sign, operator in ((1, "<="), (-1, ">=")):
        metric, found, bound = said.partition(operator)
        if found:
            try:
                return Constraint(metric.strip(), sign, float(bound))
            except ValueError:
                break
    raise ValueError(f"hydra.sweeper.constraints={said}: allowed: METRIC <= NUMBER, METRIC >= NUMBER")


def check_metrics(
    key: str,
    wanted: Sequence[str],
    names: Collection[str],
    why: Callable[[str], str] = lambda _metric: "no record has this metric",
) -> None:
    """Raises ValueError, with the reason and the nearest names, for a metric that no record has."""
    for metric in wanted:
        if metric not in names:
            raise ValueError(f"{key}={metric}: {why(metric)}; {search_space.nearest(metric, sorted(names))}")
