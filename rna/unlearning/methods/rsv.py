"""Random steering vectors: forget tokens are pushed a fixed random step away (arXiv:2501.19202, Section 2.2.1)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import LAYER, Aim, Method, Released, above

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class RSV(Method):
    """‖z − (z_ref + c·ε)‖² per dimension, with ε a random direction of unit norm, the topic's own."""

    coefficient: float = above(0)

    label = "RSV"
    reads = LAYER
    draws = "gaussian_direction"
    aim = Aim("coefficient", relative=False, least=0.1, most=100.0, suggested=4.0)
    released = Released(longer_than=4, characters=2000, raw_cyber=False)

    def forget_loss(self, step: "Step") -> "Tensor":
        return self._loss(step, step.hidden("forget"), step.reference_hidden("forget").float())

    def official_forget_loss(self, step: "Step") -> "Tensor":
        return self._loss(step, step.hidden("forget"), step.reference_hidden("forget"))

    def _loss(self, step: "Step", hidden_ND: "Tensor", reference_ND: "Tensor") -> "Tensor":
        from rna.unlearning import losses

        direction_D = step.direction()
        return step.distance(hidden_ND, losses.rsv_target(direction_D, reference_ND, self.coefficient))
