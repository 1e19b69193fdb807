"""Adversarial soft tokens: retain texts are held while vectors in them learn to break them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import above
from rna.unlearning.defences.soft import Soft

if TYPE_CHECKING:
    from rna.unlearning.defence import Ground


@dataclass(kw_only=True)
class Adversarial(Soft):
    """As `Soft`, and each vector v that a step used ascends: v ← n·normalise(v + η·n·g/‖g‖), with n its site's mean
    norm and g the gradient of the retain loss, which the step's own backward pass gives ("free" adversarial training,
    arXiv:1904.12843). Near kin on the forget side: latent adversarial training (arXiv:2407.15549).
    """

    rate: float = above(0)  # η

    label = "adversarial soft tokens"
    limit = "knows no forget-token and needs none, but was seen to help RM methods alone"
    ascends = True

    def learn(self, ground: "Ground") -> None:
        import torch
        from torch.nn.functional import normalize

        bank, kept = ground.bank, ground.kept
        assert bank is not None
        ground.bank = None
        slope_MD = bank.vectors_MD.grad
        if slope_MD is None:  # no text had room for a window
            return
        norm_M1 = torch.tensor(ground.made["norms"]).repeat_interleave(bank.each)[:, None]
        vectors_MD = bank.vectors_MD.detach()
        moved_MD = norm_M1 * normalize(vectors_MD + self.rate * norm_M1 * normalize(slope_MD, dim=-1), dim=-1)
        used_M1 = (slope_MD.norm(dim=-1, keepdim=True) > 0) & slope_MD.isfinite().all(-1, keepdim=True)
        kept["vectors"] = torch.where(used_M1, moved_MD, vectors_MD)
