"""Random Noise Augmentation: Gaussian noise on the frozen reference's hidden states of retain samples."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Philox4x64-10 (Salmon et al., SC 2011, doi:10.1145/2063384.2063405): multipliers and what the key grows by.
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
ROUNDS = 10
LOW, WORD = 2**32 - 1, 2**64


@dataclass
class Normals:
    """Standard normal numbers by key and counter: the same on a CPU and on every GPU, but for a float's rounding.

    A draw's row r is a stream of its own, and its i-th number depends on (key, draw, r, i) alone: neither the batch's
    padding nor the device on which it is made has a part in it, and `drawn` is all that a checkpoint needs.
    """

    key: int
    drawn: int = 0

    def __call__(self, rows: int, size: int, device: torch.device) -> Float[Tensor, "rows size"]:
        blocks = -(-size // 8)  # of four 64-bit words, a number for each half of them
        if device.type == "cpu":
            bits = np.stack([self._by_numpy(row, blocks) for row in range(rows)])
            halves = torch.from_numpy(bits.view(np.int32))
        else:
            halves = philox(self.key, self.drawn, rows, blocks, device).view(torch.int32)
        self.drawn += 1
        return box_muller(halves)[:, :size]

    def _by_numpy(self, row: int, blocks: int) -> "np.ndarray[tuple[int], np.dtype[np.uint64]]":
        counter = np.array([0, row, self.drawn, 0], dtype=np.uint64)
        return np.random.Philox(key=self.key, counter=counter).random_raw(4 * blocks)


def philox(key: int, draw: int, rows: int, blocks: int, device: torch.device) -> Int[Tensor, "rows words"]:
    """The random words of `np.random.Philox(key, counter=[0, row, draw, 0])` for each row, by integer arithmetic."""
    first = torch.arange(1, blocks + 1, device=device).expand(rows, -1)
    second = torch.arange(rows, device=device)[:, None].expand(-1, blocks)
    words = [first, second, torch.full_like(first, draw), torch.zeros_like(first)]
    low_key, high_key = key % WORD, key // WORD
    for _ in range(ROUNDS):
        (high0, low0), (high1, low1) = (_product(m, words[i]) for m, i in zip(MULTIPLIERS, (0, 2), strict=True))
        words = [high1 ^ words[1] ^ _signed(low_key), low1, high0 ^ words[3] ^ _signed(high_key), low0]
        low_key, high_key = (low_key + WEYL[0]) % WORD, (high_key + WEYL[1]) % WORD
    return torch.stack(words, -1).flatten(1)


def _signed(word: int) -> int:
    """The 64-bit word as torch's int64 has it."""
    return word - WORD if word >= WORD // 2 else word


def _product(factor: int, words: Tensor) -> tuple[Tensor, Tensor]:
    """The high and the low 64 bits of an unsigned product: torch multiplies modulo 2^64."""
    low, high = words & LOW, (words >> 32) & LOW
    factor_low, factor_high = factor & LOW, factor >> 32
    carry = ((factor_low * low) >> 32) & LOW
    middle = factor_high * low + carry
    other = factor_low * high + (middle & LOW)
    top = factor_high * high + ((middle >> 32) & LOW) + ((other >> 32) & LOW)
    return top, words * _signed(factor)


def box_muller(halves: Int[Tensor, "rows even"]) -> Float[Tensor, "rows even"]:
    """√(−2 ln u)·(cos 2πw, sin 2πw) of neighbours, from their highest 24 bits: u in (0, 1], w in [0, 1)."""
    uniform = (halves >> 8) & 0xFFFFFF
    radius = (uniform[:, 0::2] + 1).float().mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = uniform[:, 1::2].float().mul_(2 * math.pi * 2.0**-24)
    return torch.stack((radius * angle.cos(), radius.mul_(angle.sin_())), -1).flatten(1)


@dataclass(frozen=True)
class GaussianNoise:
    """Adds δ ~ N(0, σ²I) to the stream that leaves each of `layers`: fresh for every token, dimension and step.

    arXiv:2501.19202, Algorithm 1; several layers at once as in Appendix E.
    Deviation: `std` reads ν as a standard deviation, which is how the published values were produced; `variance`
    is the paper's letter, σ = √ν.
    """

    std: float | dict[int, float]  # of every layer, or by layer
    layers: tuple[int, ...]
    normals: Normals
    official: bool = False  # rounded to the stream's dtype before it is scaled, as the authors' released code draws it

    def __call__(self, layer: int, hidden_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        if layer not in self.layers:
            return hidden_BTD
        rows, tokens, width = hidden_BTD.shape
        noise_BTD = self.normals(rows, tokens * width, hidden_BTD.device).view(rows, tokens, width)
        std = self.std[layer] if isinstance(self.std, dict) else self.std
        if self.official:
            return hidden_BTD + std * noise_BTD.to(hidden_BTD.dtype)
        return hidden_BTD + (std * noise_BTD).to(hidden_BTD.dtype)


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
