"""A trial's `Setup` from words and numbers, as a test has them."""

from dataclasses import fields
from typing import Any

from torch import Tensor

from rna.settings.method import known, known_retain
from rna.unlearning.noise import GaussianNoise
from rna.unlearning.step import Setup

DRAWN_BY = {"rsv": "gaussian_direction"}


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
