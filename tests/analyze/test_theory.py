"""The theory's functions against full Jacobians, closed forms and distributions that are known."""

import math

import pytest
import torch
from torch import nn

from rna.analyze import theory


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def curved():
    """A layer of 6 dimensions with a curved middle, and an input."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)).requires_grad_(False), torch.randn(6)


def full(layer, input_, noise):
    before, after = torch.func.jacrev(layer)(input_), torch.func.jacrev(layer)(input_ + noise)
    return ((after - before).square().sum() / before.square().sum()).item()


def test_noise_sensitivity_is_exact_with_the_unit_vectors_as_probes(curved):
    layer, input_ = curved
    noise = torch.randn(6, generator=source())
    found = theory.noise_sensitivity(layer, input_, noise.expand(6, 6), torch.eye(6))
    assert found.value == pytest.approx(full(layer, input_, noise), rel=1e-5)
    before = torch.func.jacrev(layer)(input_)
    distance = (torch.eye(6) - before).square().sum() / before.square().sum()
    assert found.to_identity == pytest.approx(distance.item(), rel=1e-5)


def test_noise_sensitivity_by_random_probes_meets_the_full_jacobians(curved):
    """20,000 pairs of noise and probe, against the mean over 500 noises of the exact ratio, in ± 4 standard errors."""
    layer, input_ = curved
    exact = theory.estimate(
        torch.tensor([full(layer, input_, noise) for noise in torch.randn(500, 6, generator=source())])
    )
    noise_SD = torch.randn(20_000, 6, generator=source(1))
    found = theory.noise_sensitivity(layer, input_, noise_SD, theory.signs((20_000, 6), source(2)))
    assert abs(found.value - exact.value) < 4 * exact.stderr + 0.02 * exact.value


def test_a_linear_layer_is_insensitive_to_noise():
    layer = nn.Linear(4, 4)
    found = theory.noise_sensitivity(layer, torch.ones(4), torch.randn(8, 4, generator=source()), torch.ones(8, 4))
    assert found.value < 1e-10


def test_the_trace_is_that_of_the_matrix():
    """Over random signs, Var(vᵀAv) = 2·Σ over i≠j of A_ij², so the standard error is known too."""
    matrix = torch.randn(12, 12, generator=source())
    matrix = matrix + matrix.T
    found = theory.hutchinson_trace(lambda v: v @ matrix, theory.signs((4000, 12), source(1)))
    off = matrix - matrix.diag().diag()
    assert found.stderr == pytest.approx(math.sqrt(2 * off.square().sum().item() / 4000), rel=0.1)
    assert abs(found.value - matrix.trace().item()) < 4 * found.stderr


def test_lanczos_finds_both_ends_of_the_spectrum():
    basis, _ = torch.linalg.qr(torch.randn(40, 40, generator=source()))
    matrix = basis @ torch.diag(torch.cat([torch.tensor([-3.0, 7.0]), torch.linspace(-1, 2, 38)])) @ basis.T
    low, high = theory.extreme_eigenvalues(lambda v: matrix @ v, (40,), 20, source(1))
    assert (low, high) == (pytest.approx(-3, abs=1e-3), pytest.approx(7, abs=1e-3))


def test_lanczos_stops_where_the_space_is_exhausted():
    assert theory.extreme_eigenvalues(lambda v: 2 * v, (5,), 20, source()) == (pytest.approx(2), pytest.approx(2))


@pytest.mark.parametrize(
    ("eta_over_nu", "ratio", "paper", "exact"),
    [
        (1.0, 0.0, 0.25, 0.25),  # arctan 1 = π/4, in both
        (4.0, 1.0, 0.25, 0.5 - math.atan(math.sqrt(2)) / math.pi),  # √4/(1+1) = 1; √4/√2 = √2
        (2.0, 1.0, 0.5 - math.atan(math.sqrt(0.5)) / math.pi, 0.25),
    ],
)
def test_rejection_by_hand(eta_over_nu, ratio, paper, exact):
    assert theory.rejection_paper(eta_over_nu, ratio) == pytest.approx(paper)
    assert theory.rejection_exact(eta_over_nu, ratio) == pytest.approx(exact)


@pytest.mark.parametrize(("eta", "nu", "ratio"), [(1.0, 1.0, 1.0), (4.0, 1.0, 2.0), (0.5, 2.0, 0.5)])
def test_the_proofs_own_model_follows_the_exact_formula_and_not_the_papers(eta, nu, ratio):
    gradient = torch.randn(8, generator=source(3))
    other = torch.randn(8, generator=source(4))
    other = other * (ratio * gradient.norm() / other.norm())
    found = theory.simulate_rejection(eta, nu, gradient, other, 200_000, source(5))
    assert abs(found.value - theory.rejection_exact(eta / nu, ratio)) < 4 * found.stderr
    assert abs(found.value - theory.rejection_paper(eta / nu, ratio)) > 10 * found.stderr


def test_one_sample_has_no_interval():
    with pytest.raises(ValueError, match="1 sample: an interval needs at least 2"):
        theory.estimate(torch.ones(1))


@pytest.mark.parametrize(("value", "freedom", "tail"), [(3.841, 1.0, 0.05), (124.342, 100.0, 0.05), (9.210, 2.0, 0.01)])
def test_the_tail_of_chi_square_is_the_tables(value, freedom, tail):
    assert theory.chi_square_tail(value, freedom) == pytest.approx(tail, abs=1e-4)


def test_kolmogorov_smirnov_knows_a_normal_distribution_by_its_scale():
    values = torch.randn(2000, generator=source())
    assert theory.kolmogorov_smirnov(values)[1] > 0.05
    assert theory.kolmogorov_smirnov(1.2 * values)[1] < 1e-3
    assert theory.kolmogorov_smirnov(values + 0.2)[1] < 1e-3


def test_kolmogorov_smirnov_rejects_as_often_as_it_says():
    """At 0.05, 400 true nulls are rejected 20 ± 4·4.4 times."""
    rejected = sum(theory.kolmogorov_smirnov(row)[1] < 0.05 for row in torch.randn(400, 200, generator=source(1)))
    assert 2 < rejected < 38


def test_the_covariance_test_rejects_as_often_as_it_says_and_sees_a_wrong_covariance():
    root = torch.randn(6, 6, generator=source())
    covariance = root @ root.T
    draws = [torch.randn(300, 6, generator=source(seed)) @ root.T for seed in range(200)]
    rejected = sum(theory.covariance_test(draw, covariance)[1] < 0.05 for draw in draws)
    assert 1 <= rejected < 23
    error, p = theory.covariance_test(draws[0], 1.5 * covariance)
    assert p < 1e-6
    assert error > 0.2


def test_isotropy_accepts_a_round_gaussian_and_names_what_is_wrong_otherwise():
    round_ = 0.3 * torch.randn(600, 20, generator=source(2))
    found = theory.isotropy(round_)
    assert found.eta == pytest.approx(0.09, rel=0.05)
    assert min(found.mean_p, found.sphericity_p) > 0.01
    assert found.effective_rank > 18
    assert found.not_normal <= 0.05

    shifted = theory.isotropy(round_ + 0.1)
    assert shifted.mean_p < 1e-6
    assert shifted.mean_share == pytest.approx(0.01 / 0.1, rel=0.2)
    stretched = theory.isotropy(round_ * torch.linspace(0.2, 3, 20))
    assert stretched.sphericity_p < 1e-6
    assert stretched.effective_rank < 15
    heavy = theory.isotropy(round_.sign() * round_.square())
    assert heavy.not_normal > 0.9
    assert heavy.kurtosis > 3


def test_isotropy_is_calibrated_where_there_are_more_dimensions_than_samples():
    found = [theory.isotropy(torch.randn(60, 128, generator=source(seed))).sphericity_p for seed in range(60)]
    assert sum(p < 0.05 for p in found) < 10
