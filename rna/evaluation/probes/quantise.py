"""Rounded weights: is forgetting a small change that rounding undoes?"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rna.settings import Probe

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from rna.decoder import Decoder
    from rna.evaluation.subject import Subject


@dataclass(kw_only=True)
class Quantise(Probe):
    """W̃ = s·round(W / s), s = max |W| / (2^(bits − 1) − 1), of each output channel or each group of its neighbouring
    inputs: round to nearest, symmetric, of all linear layers but the head (arXiv:2410.16454)."""

    roles: list[str] = field(default_factory=list)
    bits: list[int] = field(default_factory=lambda: [8, 4])
    groups: list[int] = field(default_factory=lambda: [0, 32])  # inputs that share a scale; 0: all of a channel

    label = "rounding"

    def __post_init__(self) -> None:
        if not self.bits or any(not 2 <= bits <= 16 for bits in self.bits):
            raise ValueError(f"bits={self.bits}: must be whole numbers from 2 to 16")
        if not self.groups or any(size < 0 for size in self.groups):
            raise ValueError(f"groups={self.groups}: must be whole numbers ≥ 0; 0: by channel")

    def begin(self, subject: "Subject") -> None:
        for name, weight in linear(subject.decoder).items():
            for size in self.groups:
                if size and weight.shape[1] % size:
                    raise ValueError(
                        f"probe.groups={self.groups}: {size} does not divide the {weight.shape[1]} inputs of {name}; "
                        "allowed: what divides all, or 0, by channel"
                    )

    def states(self, subject: "Subject") -> Generator[str]:
        from rna.decoder import model

        weights = linear(subject.decoder)
        for bits in self.bits:
            for size in self.groups:
                made = {name: rounded(weight, bits, size or weight.shape[1]) for name, weight in weights.items()}
                with model.installed(subject.decoder, made):
                    yield f"{bits} bits, {f'groups of {size}' if size else 'by channel'}"


def linear(decoder: "Decoder") -> "dict[str, Tensor]":
    """The weights of the layers' linear parts, by the model's name of each."""
    from torch import nn

    of = {id(module): name for name, module in decoder.model.named_modules()}
    found = (module for layer in decoder.layers for module in layer.modules() if isinstance(module, nn.Linear))
    return {f"{of[id(module)]}.weight": module.weight.data for module in found}


def rounded(weight: "Float[Tensor, 'out inputs']", bits: int, size: int) -> "Float[Tensor, 'out inputs']":
    """The weights with so many neighbouring inputs of an output on one grid of 2^bits − 1 points around zero."""
    parts = weight.float().unflatten(1, (-1, size))
    step = parts.abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    return (parts.div(step).nan_to_num_().round_() * step).flatten(1).to(weight)
