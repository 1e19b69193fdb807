"""Adaptive RMU: RMU whose coefficient follows each token's own norm (arXiv:2408.06223, Section 5)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import LAYER, Aim, Method, Released, above

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class AdaptiveRMU(Method):
    """‖z − β·‖z_ref‖·u‖² per dimension. The released code takes its coefficient once, from the policy's norms."""

    beta: float = above(0)

    label = "Adaptive RMU"
    reads = LAYER
    draws = "control_vector"
    aim = Aim("beta", relative=True, least=0.25, most=100.0, suggested=2.5)
    released = Released(longer_than=4, retain_length=512)

    def forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        hidden_ND = step.hidden("forget")
        norms_N = step.reference_norms("forget").to(hidden_ND.device)
        direction_D = step.direction()
        return step.distance(hidden_ND, losses.adaptive_rmu_target(direction_D, norms_N, self.beta))

    def official_forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        hidden_ND = step.hidden("forget")
        if step.topic not in step.kept:
            norms_BT = hidden_ND.detach().norm(dim=-1).view(step.batches["forget"].ids_BT.shape)
            step.kept[step.topic] = self.beta * norms_BT.mean(1).mean().item()
        direction_D = step.direction()
        return step.distance(hidden_ND, losses.rmu_target(direction_D, step.kept[step.topic]))
