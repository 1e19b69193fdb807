"""DPO: a refusal is preferred to the forget sample (arXiv:2305.18290; arXiv:2501.19202, Section 2.2.2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import Method, Released, above, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class DPO(Method):
    """−(2/β)·log σ(β·[(log π_θ(idk) − log π_ref(idk)) − (log π_θ(y) − log π_ref(y))]).

    The released code's refusal term is the policy's on both sides and so cancels, which leaves NPO.
    """

    beta: float = above(0)
    log_prob: str = one_of("mean", "sum")

    label = "DPO"
    refusals = True
    released = Released(longer_than=0)

    def forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        mean = self.log_prob == "mean"
        return losses.dpo(
            step.log_probs("forget", mean=mean),
            step.reference_log_probs("forget", mean=mean),
            step.log_probs("refusal", mean=mean),
            step.reference_log_probs("refusal", mean=mean),
            beta=self.beta,
        )

    def official_forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        return losses.npo(step.log_probs("forget"), step.reference_log_probs("forget"), beta=self.beta)
