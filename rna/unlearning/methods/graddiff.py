"""GradDiff: ascent on the forget set's cross-entropy, beside a retain loss (arXiv:2203.12817; arXiv:2401.06121)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import Method

if TYPE_CHECKING:
    from torch import Tensor

    from rna.unlearning.step import Step


@dataclass(kw_only=True)
class GradDiff(Method):
    """log π_θ(y)/|y|, mean over sequences: minus the cross-entropy. It has no lower bound; few steps or a small lr."""

    label = "GradDiff"

    def forget_loss(self, step: "Step") -> "Tensor":
        return step.log_probs("forget", mean=True).mean()
