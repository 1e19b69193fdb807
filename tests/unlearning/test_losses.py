"""Each equation against numbers worked out by hand, with log σ(x) = −log(1 + exp(−x))."""

from math import exp, log

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from rna.unlearning import losses

U = tensor([0.6, 0.8])  # of norm 1


def source(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def log_odds(*odds: float) -> Tensor:
    """One token's logits whose probabilities are in these proportions."""
    return tensor([odds]).log()


def test_control_vector_has_unit_norm_and_no_negative_element():
    vector_D = losses.control_vector(500, source(0))
    assert vector_D.shape == (500,)
    assert_close(vector_D.norm(), tensor(1.0))
    assert (vector_D >= 0).all()


def test_control_vector_is_uniform_before_it_is_divided():
    """Elements of U[0, 1) have mean 1/2 and mean square 1/3, so their mean over their root mean square is √3/2."""
    vector_D = losses.control_vector(100_000, source(0))
    assert_close(vector_D.mean() / vector_D.square().mean().sqrt(), tensor(3**0.5 / 2), atol=5e-3, rtol=0)


def test_gaussian_direction_has_unit_norm_and_both_signs():
    vector_D = losses.gaussian_direction(500, source(0))
    assert_close(vector_D.norm(), tensor(1.0))
    assert 0.4 < (vector_D < 0).float().mean() < 0.6


@pytest.mark.parametrize("draw", [losses.control_vector, losses.gaussian_direction])
def test_directions_depend_on_their_generator_alone(draw):
    first = draw(16, source(3))
    torch.rand(5)
    before = torch.get_rng_state()
    assert draw(16, source(3)).equal(first)
    assert torch.get_rng_state().equal(before)
    assert not draw(16, source(4)).equal(first)


def test_rmu_target():
    """6.5·(0.6, 0.8) = (3.9, 5.2)."""
    assert_close(losses.rmu_target(U, 6.5), tensor([3.9, 5.2]))


def test_adaptive_rmu_target_scales_with_each_tokens_norm():
    """Norms 5 and 2 with β = 3: 15·(0.6, 0.8) = (9, 12) and 6·(0.6, 0.8) = (3.6, 4.8)."""
    hidden_ref = tensor([[3.0, -4.0], [0.0, 2.0]])
    assert_close(losses.adaptive_rmu_target(U, hidden_ref.norm(dim=-1), 3.0), tensor([[9.0, 12.0], [3.6, 4.8]]))


def test_rsv_target_steps_away_from_the_reference():
    """(1, 2) + 10·(0.6, −0.8) = (7, −6) and (0, −1) + (6, −8) = (6, −9)."""
    target = losses.rsv_target(tensor([0.6, -0.8]), tensor([[1.0, 2.0], [0.0, -1.0]]), 10.0)
    assert_close(target, tensor([[7.0, -6.0], [6.0, -9.0]]))


def test_the_reference_gets_no_gradient():
    hidden_ref = torch.ones(2, 2, requires_grad=True)
    assert not losses.rsv_target(U, hidden_ref, 3.0).requires_grad


@pytest.mark.parametrize(
    ("value", "with_slope"),
    [
        (losses.target_log_probs, losses.target_log_probs_and_slope),
        (losses.log_prob_mse, losses.log_prob_mse_and_slope),
        (losses.log_prob_kl, losses.log_prob_kl_and_slope),
    ],
)
def test_slopes_in_closed_form_are_autograds(value, with_slope):
    source = torch.Generator().manual_seed(0)
    logits, other = (3 * torch.randn(5, 7, generator=source) for _ in range(2))
    extra = torch.tensor([0, 6, 3, 3, 1]) if value is losses.target_log_probs else other
    leaf = logits.clone().requires_grad_()
    values = value(leaf, extra)
    (slopes,) = torch.autograd.grad(values.sum(), leaf)
    fused, slope = with_slope(logits.clone(), extra.clone())
    assert_close(fused, values, rtol=1e-5, atol=1e-6)
    assert_close(slope, slopes, rtol=1e-5, atol=1e-6)


def test_representation_mse_is_a_mean_over_tokens_and_dimensions():
    """(1² + 1² + 3² + 3²)/4 = 5, with one target for all tokens."""
    hidden = tensor([[1.0, 2.0], [3.0, 4.0]])
    assert_close(losses.representation_mse(hidden, tensor([0.0, 1.0])), tensor(5.0))


def test_representation_mse_with_a_target_for_each_token():
    """(1² + 0² + 0² + 2²)/4 = 1.25."""
    hidden, target = tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[0.0, 2.0], [3.0, 2.0]])
    assert_close(losses.representation_mse(hidden, target), tensor(1.25))


def test_representation_mse_is_computed_in_float32():
    """0.01² = 1e-4 survives beside values whose squares would round it away in bfloat16."""
    hidden = torch.full((1, 2), 1.0, dtype=torch.bfloat16)
    assert_close(losses.representation_mse(hidden, tensor([1.01, 1.01])), tensor(1e-4), rtol=1e-4, atol=0)


def test_npo():
    """Log-ratios 1 and −3 with β = 0.1: 20·[log(1 + exp(0.1)) + log(1 + exp(−0.3))]/2."""
    value = losses.npo(tensor([-1.0, -5.0]), tensor([-2.0, -2.0]), beta=0.1)
    assert_close(value, tensor(20 * (log(1 + exp(0.1)) + log(1 + exp(-0.3))) / 2))


def test_npo_gradient_pushes_the_forget_set_down():
    """d/dx of (2/β)·log(1 + exp(β·x)) at x = 0 is 2·σ(0) = 1, shared among two sequences."""
    log_probs = tensor([-2.0, -3.0], requires_grad=True)
    losses.npo(log_probs, log_probs.detach(), beta=0.1).backward()
    assert_close(log_probs.grad, tensor([0.5, 0.5]))


def test_simnpo():
    """β = 2.5, γ = 0.5: −2.5·(−1) − 0.5 = 2 and −2.5·(−2) − 0.5 = 4.5, so 0.8·[log(1 + e⁻²) + log(1 + e⁻⁴·⁵)]/2."""
    value = losses.simnpo(tensor([-1.0, -2.0]), beta=2.5, gamma=0.5)
    assert_close(value, tensor(0.8 * (log(1 + exp(-2)) + log(1 + exp(-4.5))) / 2))


def test_dpo():
    """Refusal (−5) − (−4) = −1, forget (−1) − (−3) = 2: β·(−1 − 2) = −1.5 with β = 0.5, so 4·log(1 + exp(1.5))."""
    value = losses.dpo(tensor([-1.0]), tensor([-3.0]), tensor([-5.0]), tensor([-4.0]), beta=0.5)
    assert_close(value, tensor(4 * log(1 + exp(1.5))))


def test_dpo_averages_over_sequences():
    """Arguments 0.5·(1 − 0) = 0.5 and 0.5·(0 − 2) = −1."""
    value = losses.dpo(tensor([0.0, 2.0]), torch.zeros(2), tensor([1.0, 0.0]), torch.zeros(2), beta=0.5)
    assert_close(value, tensor(4 * (log(1 + exp(-0.5)) + log(1 + exp(1))) / 2))


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_a_policy_equal_to_the_reference_costs_two_over_beta_times_log_two(beta):
    forget, refusal = tensor([-1.0, -7.0]), tensor([-3.0, -2.0])
    assert_close(losses.dpo(forget, forget, refusal, refusal, beta=beta), tensor(2 / beta * log(2)))
    assert_close(losses.npo(forget, forget, beta=beta), tensor(2 / beta * log(2)))


def test_target_log_probs():
    """Odds 1 : 3, target second: 3/4. Odds 2 : 6, target first: 1/4."""
    logits = torch.cat([log_odds(1, 3), log_odds(2, 6)])
    assert_close(losses.target_log_probs(logits, tensor([1, 0])), tensor([log(3 / 4), log(1 / 4)]))


def test_target_log_probs_are_float32():
    logits = torch.zeros(1, 3, dtype=torch.bfloat16)
    assert_close(losses.target_log_probs(logits, tensor([0])), tensor([log(1 / 3)]))


def test_log_prob_mse():
    """Policy (1/2, 1/2), reference (1/4, 3/4): differences log 2 and log(2/3)."""
    value = losses.log_prob_mse(log_odds(1, 1), log_odds(1, 3))
    assert_close(value, tensor([(log(2) ** 2 + log(2 / 3) ** 2) / 2]))


def test_log_prob_kl_is_from_the_reference():
    """¼·log(¼ ÷ ½) + ¾·log(¾ ÷ ½); the other way round it is ½·log 2 + ½·log(2/3)."""
    policy, reference = log_odds(1, 1), log_odds(1, 3)
    assert_close(losses.log_prob_kl(policy, reference), tensor([0.25 * log(0.5) + 0.75 * log(1.5)]))
    assert_close(losses.log_prob_kl(reference, policy), tensor([0.5 * log(2) + 0.5 * log(2 / 3)]))


@pytest.mark.parametrize("compare", [losses.log_prob_mse, losses.log_prob_kl])
def test_retain_losses_keep_tokens_apart_and_ignore_the_logits_level(compare):
    policy, reference = torch.cat([log_odds(1, 1), log_odds(2, 5)]), torch.cat([log_odds(1, 3), log_odds(2, 5)])
    values = compare(policy + 7.0, reference - 2.0)
    assert values.shape == (2,)
    assert values[0] > 0.1
    assert_close(values[1], tensor(0.0), atol=1e-6, rtol=0)
