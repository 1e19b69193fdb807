"""The paper's theory as pure functions: what its formulas say, and the estimators and tests to hold against them.

Variances are η (of what a forget-token does to a representation), ν (of RNA's noise) and μ (of RM's), as in the paper's
Sections 3 to 5; the rest of the package gives ν as a standard deviation.

Shapes: S samples, K projections or features, D dimensions; `...` is any shape that a sample has.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rna.analyze import parts
from rna.intervals import Z_95


@dataclass(frozen=True)
class Estimate:
    """A mean over samples with its standard error."""

    value: float
    stderr: float
    n: int

    @property
    def low(self) -> float:
        return self.value - Z_95 * self.stderr

    @property
    def high(self) -> float:
        return self.value + Z_95 * self.stderr


def estimate(values: Float[Tensor, "S"]) -> Estimate:
    """Mean and standard error of independent values.

    Raises:
        ValueError: for fewer than two values, which have no standard error.
    """
    if len(values) < 2:
        raise ValueError(f"{len(values)} sample: an interval needs at least 2")
    values = values.double()
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(len(values)), len(values))


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rademacher probes: ±1 with equal chance, so that E[v vᵀ] = I."""
    return torch.randint(0, 2, shape, generator=generator, device=generator.device).float() * 2 - 1


def hutchinson_trace(product: Callable[[Tensor], Tensor], probes_S: Float[Tensor, "S ..."]) -> Estimate:
    """Tr(A) = E[vᵀ A v] over random signs v, from products A v alone (Hutchinson 1989; arXiv:2501.19202, Eq. 9).

    Args:
        product: maps a stack of probes to the stack of their products.
    """
    return estimate((probes_S * product(probes_S)).flatten(1).sum(1))


def extreme_eigenvalues(
    product: Callable[[Tensor], Tensor], shape: tuple[int, ...], steps: int, generator: torch.Generator
) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of a symmetric A that Lanczos finds in `steps` products A v.

    Both lie inside the spectrum: a negative smallest one proves A not positive semidefinite.
    """
    vector = torch.randn(shape, generator=generator, device=generator.device)
    basis = [vector / vector.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(steps, vector.numel())):
        image = product(basis[-1])
        diagonal.append((image * basis[-1]).sum().item())
        for _ in range(2):  # orthogonal to all before, twice: once is not enough in float32
            for earlier in basis:
                image = image - (image * earlier).sum() * earlier
        size = image.norm().item()
        if size < 1e-6 * max(abs(value) for value in diagonal):
            break
        beside.append(size)
        basis.append(image / size)
    count = len(diagonal)
    tridiagonal = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    for index in range(count - 1):
        tridiagonal[index, index + 1] = tridiagonal[index + 1, index] = beside[index]
    values = torch.linalg.eigvalsh(tridiagonal)
    return values[0].item(), values[-1].item()


@dataclass(frozen=True)
class Sensitivity:
    """Of one input: the noise sensitivity, and what it would be if the noised Jacobian were the identity."""

    value: float
    to_identity: float


def noise_sensitivity(
    layer: Callable[[Tensor], Tensor],
    input_: Float[Tensor, "..."],
    noise_S: Float[Tensor, "S ..."],
    probes_S: Float[Tensor, "S ..."],
) -> Sensitivity:
    """E‖J(z+ξ) − J(z)‖²/‖J(z)‖² of a layer, in the Frobenius norm (arXiv:2501.19202, Eq. 33).

    ‖A‖² = E‖A v‖² over probes with E[v vᵀ] = I, so two Jacobian-vector products a sample do, and no Jacobian is made.
    Every sample has a noise and a probe of its own; with one noise and the unit vectors as probes it is exact.

    Args:
        layer: maps a stack of inputs to a stack of outputs, each on its own.
    """

    def squares(noise_S: Tensor, probes_S: Tensor) -> Float[Tensor, "S 3"]:
        inputs_S = input_.expand_as(noise_S).clone()  # a tangent cannot be laid over shared memory
        still_S = torch.func.jvp(layer, (inputs_S,), (probes_S,))[1]
        noised_S = torch.func.jvp(layer, (inputs_S + noise_S,), (probes_S,))[1]
        norms = [part.double().square().flatten(1).sum(1) for part in (noised_S - still_S, probes_S - still_S, still_S)]
        return torch.stack(norms, 1)

    change, to_identity, size = parts.run(squares, noise_S, probes_S, at_once=parts.FORWARD).sum(0).tolist()
    return Sensitivity(change / size, to_identity / size)


def rejection_paper(eta_over_nu: float, gradient_ratio: float) -> float:
    """P[ΔJ_rna/ΔJ_u ≤ 0] as Theorem 5.2 has it: ½ − (1/π)·arctan[√(η/ν)/(1 + ‖g_per‖/‖g‖)] (arXiv:2501.19202)."""
    return 0.5 - math.atan(math.sqrt(eta_over_nu) / (1 + gradient_ratio)) / math.pi


def rejection_exact(eta_over_nu: float, gradient_ratio: float) -> float:
    """The same with the scale of the proof's own Gaussians: ½ − (1/π)·arctan[√(η/ν)/√(1 + ‖g_per‖²/‖g‖²)].

    Deviation: the proof (Appendix B.2) adds the scales of two independent Gaussians where their variances add.
    """
    return 0.5 - math.atan(math.sqrt(eta_over_nu) / math.hypot(1, gradient_ratio)) / math.pi


def simulate_rejection(
    eta: float,
    nu: float,
    gradient: Float[Tensor, "D"],
    gradient_per: Float[Tensor, "D"],
    samples: int,
    generator: torch.Generator,
) -> Estimate:
    """The share of draws with (gᵀε + g_perᵀδ₁ − gᵀδ₂)/gᵀε ≤ 0: the proof's linear model as it stands (Eq. 28)."""

    def draw(variance: float) -> Tensor:
        shape = (samples, len(gradient))
        return math.sqrt(variance) * torch.randn(shape, generator=generator, device=generator.device)

    change_S = draw(eta) @ gradient
    change_rna_S = change_S + draw(nu) @ gradient_per - draw(nu) @ gradient
    return estimate((change_rna_S * change_S <= 0).float())


def chi_square_tail(value: float, freedom: float) -> float:
    """P[χ² ≥ value]."""
    half = torch.tensor([freedom, max(value, 0.0)], dtype=torch.float64) / 2
    return torch.special.gammaincc(half[0], half[1]).item()


def kolmogorov_smirnov(standard_S: Float[Tensor, "S"]) -> tuple[float, float]:
    """The largest distance of the values' distribution from N(0, 1), and its asymptotic p-value."""
    values, count = standard_S.double().sort().values, len(standard_S)
    normal = 0.5 * torch.erfc(-values / math.sqrt(2))
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    distance = torch.maximum((steps[1:] - normal).max(), (normal - steps[:-1]).max()).item()
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.2:
        return distance, 1.0
    tail = 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return distance, min(max(tail, 0.0), 1.0)


def covariance_test(samples_SK: Float[Tensor, "S K"], covariance_KK: Float[Tensor, "K K"]) -> tuple[float, float]:
    """Are zero-mean Gaussian samples of this covariance? (relative Frobenius error, p of the likelihood ratio).

    S·(tr W − log det W − K) of the whitened second moment W is χ² with K(K+1)/2 degrees of freedom, after Bartlett's
    correction. Needs S well above K.
    """
    samples_SK, covariance_KK = samples_SK.double(), covariance_KK.double()
    count, width = samples_SK.shape
    moment_KK = samples_SK.T @ samples_SK / count
    error = ((moment_KK - covariance_KK).norm() / covariance_KK.norm()).item()
    root = torch.linalg.cholesky(covariance_KK)
    white_SK = torch.linalg.solve_triangular(root, samples_SK.T, upper=False).T
    white_KK = white_SK.T @ white_SK / count
    ratio = (white_KK.trace() - torch.linalg.slogdet(white_KK).logabsdet - width).item()
    corrected = count * ratio * (1 - (2 * width + 1 - 2 / (width + 1)) / (6 * count))
    return error, chi_square_tail(corrected, width * (width + 1) / 2)


@dataclass(frozen=True)
class Isotropy:
    """What a sample says of N(0, ηI): Assumption 4.1 (arXiv:2501.19202). Each p is that of one of its parts alone."""

    eta: float  # mean square of a dimension
    mean_share: float  # of the energy E‖ε‖², what lies in the mean
    mean_p: float  # mean is zero
    effective_rank: float  # (tr C)²/tr C²: D for a multiple of the identity
    dimensions: int
    sphericity_p: float  # covariance is a multiple of the identity
    kurtosis: float  # median excess kurtosis of a dimension: 0 for a Gaussian
    not_normal: float  # the share of dimensions whose normality is rejected at 0.05/D


def isotropy(samples_SD: Float[Tensor, "S D"]) -> Isotropy:
    """Test for each part of `ε ~ N(0, ηI)`: mean (χ²), covariance (John's test, after Ledoit and Wolf), normality
    (Jarque and Bera, on each dimension)."""
    samples_SD = samples_SD.double()
    count, width = samples_SD.shape
    eta = samples_SD.square().mean().item()
    mean_D = samples_SD.mean(0)
    centred_SD = samples_SD - mean_D
    covariance_DD = centred_SD.T @ centred_SD / (count - 1)
    trace, square = covariance_DD.trace().item(), covariance_DD.square().sum().item()
    scaled_DD = covariance_DD * (width / trace)
    distance = (scaled_DD - torch.eye(width, dtype=torch.float64)).square().sum().item() / width
    excess = ((count - 1) * distance - width - 1) / 2  # N(0, 1) for spheres, however many dimensions there are
    standard_SD = centred_SD / centred_SD.square().mean(0).sqrt()
    skew_D, kurtosis_D = standard_SD.pow(3).mean(0), standard_SD.pow(4).mean(0) - 3
    bera_D = count * (skew_D.square() / 6 + kurtosis_D.square() / 24)
    rejected = [chi_square_tail(value, 2.0) < 0.05 / width for value in bera_D.tolist()]
    return Isotropy(
        eta=eta,
        mean_share=(mean_D.square().sum() / (width * eta)).item(),
        mean_p=chi_square_tail(count * mean_D.square().sum().item() / (trace / width), float(width)),
        effective_rank=trace**2 / square,
        dimensions=width,
        sphericity_p=0.5 * math.erfc(excess / math.sqrt(2)),
        kurtosis=kurtosis_D.median().item(),
        not_normal=sum(rejected) / width,
    )
