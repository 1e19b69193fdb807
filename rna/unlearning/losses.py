"""The losses of unlearning: one pure function of tensors for each equation, no model and no configuration.

Shapes: B sequences, T tokens, D hidden width, V vocabulary, N real tokens of a batch laid end to end.

| paper (arXiv:2501.19202) | here |
|---|---|
| z, ẑ: hidden state of policy, reference | `hidden`, `hidden_ref` |
| u, c: control vector, steering coefficient | `direction`, `coefficient` |
| β, γ: inverse temperature, margin | `beta`, `gamma` |
| log π_θ(y|x), log π_ref(y|x) | `log_probs`, `log_probs_ref` |
| α: retain weight | `alpha` |
| ν, δ: noise scale, noise | `nu` and the noise of `rna.unlearning.noise` |
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, logsigmoid, mse_loss


def control_vector(width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Float[Tensor, "D"]:
    """A random direction u of unit norm: elements uniform on [0, 1), rounded to `dtype`, divided by their norm.

    arXiv:2403.03218 (RMU), Section 4; u of arXiv:2501.19202, Eq. 2.
    """
    vector_D = torch.rand(width, generator=generator).to(dtype)
    return vector_D / vector_D.norm()


def gaussian_direction(
    width: int, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "D"]:
    """A random direction ε of unit norm: a standard normal vector, rounded to `dtype`, divided by its norm (RSV)."""
    vector_D = torch.randn(width, generator=generator).to(dtype)
    return vector_D / vector_D.norm()


def rmu_target(direction_D: Float[Tensor, "D"], coefficient: float) -> Float[Tensor, "D"]:
    """c·u, the same for every token (arXiv:2501.19202, Eq. 2)."""
    return coefficient * direction_D


def adaptive_rmu_target(
    direction_D: Float[Tensor, "D"], norms_ref: Float[Tensor, "*tokens"], beta: float
) -> Float[Tensor, "*tokens D"]:
    """β·‖z_ref‖₂·u; `norms_ref` holds the norm of each token of the reference (arXiv:2408.06223, Section 5).

    Deviation: the released code takes the norm once, as a mean over tokens of the policy; here each token has its own.
    """
    return beta * norms_ref[..., None] * direction_D


def rsv_target(
    direction_D: Float[Tensor, "D"], hidden_ref: Float[Tensor, "*tokens D"], coefficient: float
) -> Float[Tensor, "*tokens D"]:
    """z_ref + c·ε, a fixed random step away from the reference (arXiv:2501.19202, Section 2.2.1).

    Deviation: ε is drawn once for each topic and run. Drawn afresh at each step, its expected gradient only pulls
    back to the reference, and nothing is forgotten.
    """
    return hidden_ref.detach() + coefficient * direction_D


def representation_mse(hidden: Float[Tensor, "N D"], target: Float[Tensor, "N D"] | Float[Tensor, "D"]) -> Tensor:
    """Mean over tokens and hidden dimensions of (z − target)², for RM's forget and retain losses.

    arXiv:2501.19202, Eq. 2; for RNA, the retain target is the noised reference of Algorithm 1.
    Deviation: the paper writes squared norms; its coefficients (c = 6.5, α = 1200) belong to means.
    """
    return (hidden.float() - target.float()).square().mean()


def weighted_representation_mse(
    hidden: Float[Tensor, "N D"], target: Float[Tensor, "N D"] | Float[Tensor, "D"], weight_N: Float[Tensor, "N"]
) -> Tensor:
    """Σ w·mean over dimensions of (z − target)²/Σ w, over tokens: `representation_mse` with weights of tokens."""
    values_N = (hidden.float() - target.float()).square().mean(-1)
    return (weight_N * values_N).sum() / weight_N.sum()


def _mean_log_sigmoid(beta: float, argument_B: Float[Tensor, "B"]) -> Tensor:
    return -(2.0 / beta) * logsigmoid(argument_B).mean()


def npo(log_probs_B: Float[Tensor, "B"], log_probs_ref_B: Float[Tensor, "B"], *, beta: float) -> Tensor:
    """−(2/β)·mean over sequences of log σ(−β·(log π_θ(y) − log π_ref(y))) (arXiv:2501.19202, Eq. 3)."""
    return _mean_log_sigmoid(beta, -beta * (log_probs_B - log_probs_ref_B))


def simnpo(mean_log_probs_B: Float[Tensor, "B"], *, beta: float, gamma: float) -> Tensor:
    """−(2/β)·mean over sequences of log σ(−(β/|y|)·log π_θ(y) − γ) (arXiv:2501.19202, Eq. 4).

    `mean_log_probs_B` is log π_θ(y)/|y|, already divided by the sequence's number of real tokens.
    """
    return _mean_log_sigmoid(beta, -beta * mean_log_probs_B - gamma)


def dpo(
    log_probs_B: Float[Tensor, "B"],
    log_probs_ref_B: Float[Tensor, "B"],
    refusal_log_probs_B: Float[Tensor, "B"],
    refusal_log_probs_ref_B: Float[Tensor, "B"],
    *,
    beta: float,
) -> Tensor:
    """−(2/β)·mean over sequences of log σ(β·[(log π_θ(idk) − log π_ref(idk)) − (log π_θ(y) − log π_ref(y))]).

    The refusal `idk` is preferred to the forget sample `y` (arXiv:2305.18290; arXiv:2501.19202, Section 2.2.2). With
    the policy equal to the reference it is (2/β)·log 2.
    """
    preferred_B = refusal_log_probs_B - refusal_log_probs_ref_B
    rejected_B = log_probs_B - log_probs_ref_B
    return _mean_log_sigmoid(beta, beta * (preferred_B - rejected_B))


def target_log_probs(logits_NV: Float[Tensor, "N V"], target_N: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
    """log π(target | prefix) of each token, in float32."""
    logits_NV = logits_NV.float()
    chosen_N = logits_NV.gather(-1, target_N[:, None]).squeeze(-1)
    return chosen_N - logits_NV.logsumexp(-1)


def log_prob_mse(logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """Mean over the vocabulary of (log π_θ − log π_ref)², for each token (arXiv:2501.19202, Section 2.2.2)."""
    difference_NV = log_softmax(logits_NV.float(), -1) - log_softmax(logits_ref_NV.float(), -1)
    return difference_NV.square().mean(-1)


def log_prob_kl(logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N"]:
    """KL(π_ref ‖ π_θ) of each token, in nats (arXiv:2501.19202, Section 2.2.2)."""
    log_ref_NV = log_softmax(logits_ref_NV.float(), -1)
    return (log_ref_NV.exp() * (log_ref_NV - log_softmax(logits_NV.float(), -1))).sum(-1)


def official_representation_mse(
    hidden_ND: Float[Tensor, "N D"], target: Float[Tensor, "N D"] | Float[Tensor, "D"]
) -> Tensor:
    """`representation_mse` of the authors' released code: in the model's own dtype, bfloat16."""
    return mse_loss(hidden_ND, target.expand_as(hidden_ND))


def official_log_prob(logits_NV: Float[Tensor, "N V"], target_N: Int[Tensor, "N"]) -> Tensor:
    """The "log-prob" of the authors' released code: minus the mean cross-entropy over all tokens of a batch."""
    return -cross_entropy(logits_NV.float(), target_N)


def official_log_prob_mse(logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]) -> Tensor:
    """`log_prob_mse` of the authors' released code, as a mean over tokens: log-probabilities and mean in bfloat16."""
    log_probs_NV, log_ref_NV = (log_softmax(one.float(), -1).bfloat16() for one in (logits_NV, logits_ref_NV))
    return mse_loss(log_probs_NV, log_ref_NV)


def official_log_prob_kl(logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]) -> Tensor:
    """`log_prob_kl` of the authors' released code, a mean over tokens: the policy's log-probabilities in bfloat16."""
    log_probs_NV, log_ref_NV = log_softmax(logits_NV.float(), -1).bfloat16(), log_softmax(logits_ref_NV.float(), -1)
    return kl_div(log_probs_NV, log_ref_NV, reduction="batchmean", log_target=True)


# The same three with their slopes ∂value/∂logits in closed form. The logits are overwritten, so that a chunk of them
# passes through memory a few times only, and no graph of it is ever built.


def target_log_probs_and_slope(
    logits_NV: Float[Tensor, "N V"], target_N: Int[Tensor, "N"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N V"]]:
    """`target_log_probs` and its slope, onehot(target) − π_θ. Overwrites `logits_NV`, which must be float32."""
    values_N = target_log_probs(logits_NV, target_N)
    slope_NV = _softmax_(logits_NV).neg_()
    slope_NV.scatter_add_(1, target_N[:, None], torch.ones_like(values_N)[:, None])
    return values_N, slope_NV


def log_prob_mse_and_slope(
    logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N V"]]:
    """`log_prob_mse` and its slope, (2/V)·(d − π_θ·Σd) with d = log π_θ − log π_ref. Overwrites both arguments."""
    policy_NV = _log_softmax_(logits_NV)
    difference_NV = _log_softmax_(logits_ref_NV).neg_().add_(policy_NV)
    values_N = _row_dot(difference_NV, difference_NV) / difference_NV.shape[-1]
    total_N = difference_NV.sum(-1, keepdim=True)
    slope_NV = difference_NV.addcmul_(policy_NV.exp_(), total_N, value=-1.0)
    return values_N, slope_NV.mul_(2.0 / slope_NV.shape[-1])


def log_prob_kl_and_slope(
    logits_NV: Float[Tensor, "N V"], logits_ref_NV: Float[Tensor, "N V"]
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N V"]]:
    """`log_prob_kl` and its slope, π_θ − π_ref. Overwrites both arguments, which must be float32."""
    log_ref_NV, policy_NV = _log_softmax_(logits_ref_NV), _log_softmax_(logits_NV)
    reference_NV = log_ref_NV.exp()
    values_N = _row_dot(reference_NV, log_ref_NV.sub_(policy_NV))
    return values_N, policy_NV.exp_().sub_(reference_NV)


def _log_softmax_(logits_NV: Tensor) -> Tensor:
    return logits_NV.sub_(logits_NV.logsumexp(-1, keepdim=True))


def _softmax_(logits_NV: Tensor) -> Tensor:
    return _log_softmax_(logits_NV).exp_()


def _row_dot(left_NV: Tensor, right_NV: Tensor) -> Tensor:
    return torch.einsum("nv,nv->n", left_NV, right_NV)
