"""NPO: negative preference optimisation (arXiv:2404.05868; arXiv:2501.19202, Eq. 3)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import Method, Released, above, one_of

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class NPO(Method):
    """−(2/β)·log σ(−β·(log π_θ(y) − log π_ref(y)))."""

    beta: float = above(0)
    log_prob: str = one_of("mean", "sum")

    label = "NPO"
    released = Released(longer_than=0)

    def forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        mean = self.log_prob == "mean"
        log_probs_B = step.log_probs("forget", mean=mean)
        return losses.npo(log_probs_B, step.reference_log_probs("forget", mean=mean), beta=self.beta)
