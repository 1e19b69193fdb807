"""RMU: forget tokens are steered to one random point (arXiv:2403.03218; arXiv:2501.19202, Eq. 2)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import LAYER, Aim, Method, Released, above

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class RMU(Method):
    """‖z − c·u‖² per dimension, with u a random direction of unit norm, the topic's own."""

    coefficient: float = above(0)

    label = "RMU"
    reads = LAYER
    draws = "control_vector"
    aim = Aim("coefficient", relative=False, least=0.25, most=100.0, suggested=2.5)
    released = Released(longer_than=4, retain_length=512)

    def forget_loss(self, step: "Step") -> "Tensor":
        from rna.unlearning import losses

        hidden_ND = step.hidden("forget")
        return step.distance(hidden_ND, losses.rmu_target(step.direction(), self.coefficient))
