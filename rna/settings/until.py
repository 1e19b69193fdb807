"""Where a training stops: at the interim evaluation at which a metric has reached its target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rna.settings import roles
from rna.settings.fields import EvalSettings, Settings

PERPLEXITY_PARTS = ("retain", "retain_after", "perturbed", "neutral")
FORGET_NLL = "interim/forget/nll"  # of the forget set's training documents, whatever else is asked
FALL, RISE = "fall", "rise"
ALIKE = 3.0  # points of forget accuracy on the questions reported, in the mean over seeds: no further apart is matched
TOO_FAR = f"more than {ALIKE:g} points apart in the mean"  # why trainings that reached their target are not
Report = Mapping[str, float]


def interim_metrics(settings: Settings) -> list[str]:
    """What evaluations on the way tell: accuracies and mean log-probabilities of the right answer, and the forget set's
    log-loss where `train.until` asks for it; or log-losses."""
    told, until = _told(settings), until_of(settings)
    return told if until is None or until.metric in told else [*told, until.metric]


def _told(settings: Settings) -> list[str]:
    if settings.eval.kind == "perplexity":
        if settings.eval.interim_roles is not None:
            return []
        forget = [f"forget_{topic}" for topic in settings.data.topics]
        return [f"interim/{part}/nll" for part in (*forget, *PERPLEXITY_PARTS)]
    roles = dict.fromkeys(settings.eval.tasks[name].role for name in interim_tasks(settings.eval))
    return [f"interim/{role}/{what}" for what in ("acc", "log_prob") for role in roles]


def interim_tasks(options: EvalSettings) -> list[str]:
    """The tasks that evaluations on the way ask: of those whose questions are answered right or wrong."""
    asked = [role.name for role in roles.ROLES] if options.interim_roles is None else options.interim_roles
    return [name for name, task in options.tasks.items() if task.role in asked and roles.BY_NAME[task.role].scored]


@dataclass(frozen=True)
class Until:
    """A metric of the evaluations on the way, and the value that it must reach, `patience` evaluations in a row."""

    metric: str
    at: float
    direction: str  # fall: to `at` or below | rise: to it or above
    patience: int

    def reached(self, curve: Sequence[Report]) -> bool:
        """Whether a training with this course, a report a step, has come to its end."""
        found = [report[self.metric] for report in curve if self.metric in report][-self.patience :]
        below = [value <= self.at if self.direction == FALL else value >= self.at for value in found]
        return len(below) == self.patience and all(below)

    def outcome(self, curve: Sequence[Report]) -> dict[str, Any]:
        """What a record says of it: the last step, the value there, and whether that was the target."""
        values = [report[self.metric] for report in curve if self.metric in report]
        return {
            "metric": self.metric,
            "at": self.at,
            "reached": self.reached(curve),
            "step": len(curve),
            "value": values[-1] if values else None,
        }

    def said(self) -> str:
        return f"{'≤' if self.direction == FALL else '≥'} {self.at:g}"


def until_of(settings: Settings) -> Until | None:
    """`train.until` of checked settings; None for the base and others that are not trained beside those that are."""
    return read_back(settings.train.until) if settings.method.trains else None


def read_back(checked: Mapping[str, Mapping[str, Any]] | None) -> Until | None:
    """`train.until` as checked settings, and records, have it."""
    if checked is None:
        return None
    ((metric, parts),) = checked.items()
    return Until(metric, **parts)


def left_out_for(reached: bool, known: bool) -> str:
    """Why a pair of trainings with one `train.until` has no part in a matched comparison; nothing where it has.

    Args:
        reached: whether both got to their target.
        known: whether the forget accuracy, or log-loss, of both is.
    """
    if not reached:
        return "did not reach the target"
    return "" if known else "without a forget score"


def alike(apart: Sequence[float]) -> bool:
    """Whether pairs with these differences of forget accuracy, in points, are matched: their mean tells.

    A training stops where its accuracy on some questions is at the target; on others it is a few points off by chance.
    Leaving out single pairs for that would choose among seeds by their luck.
    """
    return abs(math.fsum(apart) / len(apart)) <= ALIKE + 1e-9  # 32 and 29 % are floats


def read_until(settings: Settings) -> dict[str, dict[str, Any]] | None:
    """`train.until`, given as {METRIC: VALUE} or with all its parts, as the latter:
    {METRIC: {at: VALUE, direction: fall | rise, patience: COUNT}}.

    Raises:
        ValueError: naming what is wrong and what is allowed.
    """
    given = settings.train.until
    if given is None:
        return None
    said = f"train.until={given}"
    if not isinstance(given, dict) or len(given) != 1:
        raise ValueError(f"{said}: must be one metric with its target, as {{eval/forget/acc: 0.35}}")
    if not settings.method.trains:
        raise ValueError(f"{said}: has no meaning with method={settings.method.name}, which trains nothing")
    if settings.eval.interim_every is None:
        raise ValueError(f"{said}: is judged at evaluations on the way; give eval.interim_every=STEPS")
    ((name, target),) = given.items()
    allowed = [*_told(settings), FORGET_NLL]
    metric = str(name).replace("eval/", "interim/", 1)
    if metric not in allowed:
        from rna.settings.config import nearest

        raise ValueError(f"{said}: {nearest(metric, allowed)}, each also as eval/…")
    parts: dict[str, Any] = dict(target) if isinstance(target, dict) else {"at": target}
    forgets = RISE if metric.endswith("/nll") else FALL
    found = ({"direction": forgets} if metric.startswith("interim/forget") else {}) | {"patience": 1} | parts
    if unknown := set(found) - {"at", "direction", "patience"}:
        raise ValueError(f"{said}: {min(unknown)} is unknown; allowed: at, direction, patience")
    at, patience = found.get("at"), found["patience"]
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise ValueError(f"{said}: at={at} must be a finite number")
    if found.get("direction") not in (FALL, RISE):
        raise ValueError(f"{said}: direction={found.get('direction')}: must be said; allowed: {FALL}, {RISE}")
    if type(patience) is not int or patience < 1:
        raise ValueError(f"{said}: patience={patience} must be a whole number ≥ 1")
    if metric.endswith("/acc") and not 0 <= at <= 1:
        raise ValueError(f"{said}: at={at}: an accuracy is in [0, 1]")
    return {metric: {"at": float(at), "direction": found["direction"], "patience": patience}}
