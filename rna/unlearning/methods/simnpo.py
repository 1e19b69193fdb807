"""SimNPO: NPO without a reference, on log-probabilities over length (arXiv:2410.07163; arXiv:2501.19202, Eq. 4)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import Method, Released, above, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class SimNPO(Method):
    """−(2/β)·log σ(−(β/|y|)·log π_θ(y) − γ). The released code has no γ."""

    beta: float = above(0)
    gamma: float = at_least(0)

    label = "SimNPO"
    released = Released(longer_than=0)

    def forget_loss(self, step: "Step") -> "Tensor":
        return self._loss(step, self.gamma)

    def official_forget_loss(self, step: "Step") -> "Tensor":
        return self._loss(step, 0.0)

    def _loss(self, step: "Step", gamma: float) -> "Tensor":
        from rna.unlearning import losses

        return losses.simnpo(step.log_probs("forget", mean=True), beta=self.beta, gamma=gamma)
