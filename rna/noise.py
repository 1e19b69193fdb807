"""Random Noise Augmentation: Gaussian noise on the frozen reference's hidden states of retain samples."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GaussianNoise:
    """Adds δ ~ N(0, σ²I) to the stream that leaves each of `layers`: fresh for every token, dimension and step.

    arXiv:2501.19202, Algorithm 1; several layers at once as in Appendix E.
    Deviation: `std` reads ν as a standard deviation, which is how the published values were produced; `variance`
    is the paper's letter, σ = √ν.
    """

    std: float | dict[int, float]  # of every layer, or by layer
    layers: tuple[int, ...]
    generator: torch.Generator

    def __call__(self, layer: int, hidden_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if layer not in self.layers:
            return hidden_BTD
        noise_BTD = torch.randn(hidden_BTD.shape, generator=self.generator, device=self.generator.device)
        std = self.std[layer] if isinstance(self.std, dict) else self.std
        return hidden_BTD + (std * noise_BTD).to(hidden_BTD)


@dataclass(frozen=True)
class Smoothing:
    """Noise while a model answers, in place of noise in training: randomised smoothing.

    p(y|x) = (1/k)·Σᵢ p(y|x, δᵢ), δᵢ ~ N(0, σ²I) on the stream that leaves each of `layers`, fresh for every token,
    dimension and draw (arXiv:1902.02918, Section 3, on hidden states). The draws belong to (seed, context), so that a
    question's answer depends on no other question.
    """

    std: float
    layers: tuple[int, ...]
    samples: int  # k
    seed: int


def standard_deviation(nu: float, scale: str) -> float:
    """σ of the noise: ν itself for `std`, √ν for `variance`."""
    return {"std": nu, "variance": nu**0.5}[scale]
