"""Soft tokens, the control of `adversarial`: random vectors that never change."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rna.settings import at_least, one_of, seed_of
from rna.unlearning.defences.windows import Filling, Windows

if TYPE_CHECKING:
    from rna.unlearning.defence import Drawn, Ground, Sample

SITES = ("embedding", "trained", "both")


@dataclass(kw_only=True)
class Soft(Windows):
    """L_forget + α·mean over t ∉ S of d(f_θ(x̃)_t, f_ref(x̃)_t), with d the method's retain loss and x̃ the retain text
    with soft tokens S: at each the stream is a vector of a bank, in policy and reference alike, from its site on.

    A bank's vectors are normal, and of their site's mean norm in retain texts. Below its site a soft token is a padding
    token that is read.
    """

    bank: int = at_least(1)  # vectors at each site
    sites: str = one_of(*SITES)  # the embedding, the input of each trained layer, or both
    in_place: float = at_least(0)  # the share of windows in place of tokens

    label = "soft tokens"
    limit = "protects from nothing that was seen"
    ascends = False

    def __post_init__(self) -> None:
        if not 0 <= self.in_place <= 1:
            raise ValueError(f"defence.in_place={self.in_place}: must be in [0, 1]")

    def begin(self, ground: "Ground") -> None:
        import torch

        trained = {*ground.trained}
        sites = {"embedding": {0}, "trained": trained, "both": {0} | trained}[self.sites]
        ground.made["sites"] = ascending = tuple(sorted(sites))
        ground.made["norms"] = norms = ground.mean_norms(ascending)
        source = torch.Generator().manual_seed(seed_of(ground.setup.seed, "defence", "bank"))
        drawn_SMD = torch.randn(len(norms), self.bank, ground.decoder.width, generator=source)
        norms_S11 = torch.tensor(norms)[:, None, None]
        vectors_SMD = norms_S11 * torch.nn.functional.normalize(drawn_SMD, dim=-1)
        ground.kept["vectors"] = vectors_SMD.flatten(0, 1)

    def samples(self, ground: "Ground", drawn: "Drawn") -> "list[Sample]":
        from rna.unlearning.defence import Bank

        if ground.bank is None:  # one for all batches of a step
            vectors_MD = ground.kept["vectors"].clone().requires_grad_(self.ascends)
            ground.bank = Bank(ground.made["sites"], vectors_MD)
        bank, source = ground.bank, drawn.source

        def fill(size: int) -> list[Filling]:
            return [(ground.pad_id, bank.draw(source)) for _ in range(size)]

        return [
            self.spliced(
                drawn.retain,
                fill,
                source,
                leading=ground.leading,
                max_length=ground.max_length,
                in_place=self.in_place,
            )
        ]
