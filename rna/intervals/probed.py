"""What a probe's record says with intervals: how much is known in each state, and how much a state brings back."""

from collections.abc import Mapping, Sequence
from typing import Any

from rna.intervals.estimate import Terms, difference, mean
from rna.intervals.score import Score, scores_of

State = Mapping[str, Mapping[str, Any]]  # task, or part of a perplexity -> metrics
BEFORE = "before"  # the state that is the model as it is


def parts(state: State, roles: Mapping[str, str], role: str, half: str) -> list[Score]:
    """The scores on a half of a state's tasks of a role; of a perplexity, which has no halves, of the forget topics."""
    if not roles:
        return [scores_of({**one}, name)["all"] for name, one in state.items() if name.startswith(f"{role}_")]
    of_role = [name for name in state if roles.get(name) == role]
    found = [scores_of({**state[name]}, name) for name in of_role]
    return [one.get(half, one["all"]) for one in found if one]


def known(state: State, roles: Mapping[str, str], half: str = "all", role: str = "forget") -> Terms | None:
    """The mean over the tasks of a role, in percent, or nats a token; None where the probe asked none of them."""
    scores = parts(state, roles, role, half)
    return mean(scores) if scores else None


def gain(metrics: Mapping[str, Any], roles: Mapping[str, str]) -> Terms | None:
    """What the state that its summary names knows more than the model as it is, on the `report` half; None of a probe
    without such a state."""
    if (best := metrics.get("state")) is None:
        return None
    after, before = (known(metrics["states"][name], roles, "report") for name in (best, BEFORE))
    return difference(after, before) if after and before else None


def states(metrics: Mapping[str, Any]) -> Sequence[str]:
    """The names of its states, the model as it is first; none of a probe that compares models."""
    return list(metrics["states"]) if "state" in metrics else []
