"""The retain losses: each holds the policy to the reference, which carries the noise of RNA where there is any."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import LAYER, RetainLoss

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True)
class Representation(RetainLoss):
    """‖z − z_ref‖² per dimension, at the unlearn layer (arXiv:2501.19202, Eq. 2 and Algorithm 1)."""

    reads = LAYER

    def value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.representation_mse(policy, reference)

    def official_value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.official_representation_mse(policy, reference)


@dataclass(kw_only=True)
class LogProbMSE(RetainLoss):
    """(log π_θ − log π_ref)², mean over the vocabulary (arXiv:2501.19202, Section 2.2.2)."""

    label = "MSE"

    def value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.log_prob_mse(policy, reference)

    def value_and_slope(self, policy: "Tensor", reference: "Tensor") -> "tuple[Tensor, Tensor]":
        from rna.unlearning import losses

        return losses.log_prob_mse_and_slope(policy, reference)

    def official_value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.official_log_prob_mse(policy, reference)


@dataclass(kw_only=True)
class LogProbKL(RetainLoss):
    """KL(π_ref ‖ π_θ) of each token (arXiv:2501.19202, Section 2.2.2)."""

    label = "KL"

    def value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.log_prob_kl(policy, reference)

    def value_and_slope(self, policy: "Tensor", reference: "Tensor") -> "tuple[Tensor, Tensor]":
        from rna.unlearning import losses

        return losses.log_prob_kl_and_slope(policy, reference)

    def official_value(self, policy: "Tensor", reference: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        return losses.official_log_prob_kl(policy, reference)


@dataclass(kw_only=True)
class Nothing(RetainLoss):
    """None, of what is not trained."""
