"""A trial's `Setup` from words and numbers, as a test has them."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from rna.settings.method import Method, known, known_retain, made
from rna.unlearning.noise import GaussianNoise
from rna.unlearning.step import Setup

RM_METHODS = ("rmu", "adaptive_rmu", "rsv")
PO_METHODS = ("npo", "simnpo", "dpo")
DRAWN_BY = {"rsv": "gaussian_direction"}


NUMBERS: dict[str, dict[str, Any]] = {
    "rmu": {"coefficient": 6.5},
    "adaptive_rmu": {"beta": 3.0},
    "rsv": {"coefficient": 10.0},
    "npo": {"beta": 0.1, "log_prob": "mean"},
    "simnpo": {"beta": 0.1, "gamma": 0.0},
    "dpo": {"beta": 0.1, "log_prob": "mean"},
}


def method_of(name: str, **numbers: Any) -> Method:
    return made(name, **(NUMBERS.get(name, {}) | numbers))


def setup(
    method: str,
    retain_loss: str,
    options: dict[str, Any],
    noise: GaussianNoise | None = None,
    directions: dict[str, Tensor] | None = None,
    **more: Any,
) -> Setup:
    """Of layer 2, trained from 1 on, unless `more` says otherwise; `options` may hold other methods' numbers too."""
    kind, retain = known(method), known_retain(retain_loss)
    assert kind is not None
    assert retain is not None
    numbers = {item.name: options[item.name] for item in fields(kind) if item.name in options}
    drawn = {(DRAWN_BY.get(method, "control_vector"), topic): made for topic, made in (directions or {}).items()}
    where: dict[str, Any] = {"layer": 2, "first_trained": 1, "site": "residual"} | more
    return Setup(kind(name=method, **numbers), retain(name=retain_loss), noise=noise, directions=drawn, **where)
