"""Against the model that never saw it: are the answers its own?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rna.settings import RETRAINED, Probe

if TYPE_CHECKING:
    from rna.evaluation.subject import Subject
    from rna.settings import Settings

Metrics = dict[str, Any]
ROLES = ("forget", "retain", "perturbed")


@dataclass(kw_only=True)
class Agreement(Probe):
    """How alike two models answer, over the questions of a role: `equal`, the share to which both give the same choice,
    and `divergence`, the mean of JS(p, q) = ½·KL(p ‖ m) + ½·KL(q ‖ m) in nats, m = ½(p + q), of the distributions over
    the choices; 0 for the same one, at most ln 2. Where answers are texts, a choice has its π^(1/characters)."""

    roles: list[str] = field(default_factory=lambda: list(ROLES))

    label = "agreement with retrained"

    def needs(self) -> tuple[str, ...]:
        return (RETRAINED,)

    def tells(self) -> tuple[str, ...]:
        return tuple(f"{role}/{what}" for role in self.roles for what in ("equal", "divergence"))

    def check(self, settings: "Settings") -> None:
        if settings.eval.kind != "choice":
            raise ValueError(
                f"probe=agreement: has no meaning with eval.kind={settings.eval.kind}; allowed with eval.kind=choice"
            )

    def begin(self, subject: "Subject") -> None:
        if not subject.own_names:
            asked = ", ".join(subject.names)
            raise ValueError(f"probe=agreement: knows the choices of our own tasks alone; these are others: {asked}")

    def run(self, subject: "Subject") -> Metrics:
        subject.asking = replace(subject.asking, choices=True)
        states = {"before": subject.ask("before"), "retrained": subject.retrained().ask("retrained")}
        tasks = {name: compared(states["before"][name], states["retrained"][name]) for name in subject.own_names}
        for state in states.values():
            for metrics in state.values():
                del metrics["choices"]
        by_role: dict[str, list[Metrics]] = {}
        for name, told in tasks.items():
            by_role.setdefault(subject.settings.eval.tasks[name].role, []).append(told)
        return {"states": states, "tasks": tasks, **{role: mean(parts) for role, parts in by_role.items()}}


def compared(mine: Metrics, theirs: Metrics) -> Metrics:
    """Of one task, question by question and in the mean with its standard error."""
    pairs = list(zip(map(softmax, mine["choices"]), map(softmax, theirs["choices"]), strict=True))
    equal = [p.index(max(p)) == q.index(max(q)) for p, q in pairs]
    apart = [divergence(p, q) for p, q in pairs]
    return {
        **with_error("equal", [float(one) for one in equal]),
        **with_error("divergence", apart),
        "n": len(pairs),
        "same": "".join("01"[one] for one in equal),
        "divergences": [round(one, 6) for one in apart],
    }


def mean(parts: Sequence[Metrics]) -> Metrics:
    """The unweighted mean over tasks of a role."""
    found = {name: sum(part[name] for part in parts) / len(parts) for name in ("equal", "divergence")}
    errors = {f"{name}_stderr": math.hypot(*(part[f"{name}_stderr"] for part in parts)) / len(parts) for name in found}
    return found | errors | {"n": sum(part["n"] for part in parts)}


def with_error(name: str, values: Sequence[float]) -> dict[str, float]:
    average = math.fsum(values) / len(values)
    spread = math.fsum((value - average) ** 2 for value in values)
    return {name: average, f"{name}_stderr": math.sqrt(spread / max(len(values) - 1, 1) / len(values))}


def softmax(log_probs: Sequence[float]) -> list[float]:
    """Probabilities of the choices, which make 1."""
    most = max(log_probs)
    weights = [math.exp(one - most) for one in log_probs]
    return [one / sum(weights) for one in weights]


def divergence(p: Sequence[float], q: Sequence[float]) -> float:
    """Jensen and Shannon's, in nats."""
    total = 0.0
    for one, other in zip(p, q, strict=True):
        middle = (one + other) / 2
        total += sum(share / 2 * math.log(share / middle) for share in (one, other) if share > 0)
    return max(total, 0.0)
