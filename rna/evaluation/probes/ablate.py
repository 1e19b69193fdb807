"""One direction less: is forgetting a single shift of the stream?"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rna.settings import LAYERS, SEED, TEXTS, Probe, above, one_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from rna.evaluation.subject import Subject
    from rna.settings import Settings


@dataclass(kw_only=True)
class Ablate(Probe):
    """h ← h − R·Rᵀh of the stream that leaves a layer, with R an orthonormal basis [D, K] of the forget directions, at
    the unlearn layer or at all layers (arXiv:2409.18025).

    `mean_shift`: the mean of h over the tokens of forget texts less that over retain texts, in the unlearned model, at
    each layer its own; K = 1. `control`: the control vectors that an RM method steers the topics' texts to, the same at
    all layers, of a model that none was drawn for those of RMU; K topics.
    """

    roles: list[str] = field(default_factory=lambda: ["forget", "retain"])
    direction: str = one_of("mean_shift", "control", default="mean_shift")
    documents: int = above(0, default=64)  # of each topic, and of the retain set, whose means are taken
    places: list[str] = field(default_factory=lambda: ["one", "all"])  # layers: the unlearn layer alone | all

    label = "direction removed"

    def needs(self) -> tuple[str, ...]:
        return (TEXTS, LAYERS, *((SEED,) if self.direction == "control" else ()))

    def check(self, settings: "Settings") -> None:
        if not self.places or set(self.places) - {"one", "all"}:
            raise ValueError(f"probe.places={self.places}: allowed: one, all")
        if not settings.data.topics:
            raise ValueError("probe=ablate: reads texts, and there are no data.topics; allowed with data=NAME")
        if self.direction == "control" and settings.method.trains and settings.method.draws is None:
            raise ValueError(
                f"probe.direction=control: method={settings.method.name} draws no control vector; allowed: mean_shift"
            )

    def states(self, subject: "Subject") -> Generator[str]:
        from rna.decoder import model

        every, unlearn = range(len(subject.decoder.layers)), subject.settings.layer.unlearn
        found = self._directions(subject, every)

        def alter(layer: int, hidden_BTD: "Tensor") -> "Tensor":
            basis_DK = found[layer].to(hidden_BTD)
            return hidden_BTD - hidden_BTD @ basis_DK @ basis_DK.T

        for place in self.places:
            layers, said = ([unlearn], f"layer {unlearn}") if place == "one" else (every, "all layers")
            with model.altered(subject.decoder, layers, alter):
                yield f"{self.direction.replace('_', ' ')}, {said}"

    def _directions(self, subject: "Subject", layers: Sequence[int]) -> "dict[int, Float[Tensor, 'D K']]":
        """An orthonormal basis of what is taken out, by layer."""
        import torch

        from rna.unlearning import direction, losses

        settings, decoder = subject.settings, subject.decoder
        if self.direction == "control":
            draw = getattr(losses, settings.method.draws or "control_vector")
            topics = settings.data.topics
            drawn = [direction(settings.seed, topic, draw, decoder.width, torch.float32) for topic in topics]
            basis_DK: Tensor = torch.linalg.qr(torch.stack(drawn, 1)).Q
            return dict.fromkeys(layers, basis_DK)
        forget = [ids for one in subject.corpora.forget.values() for ids in one.documents[: self.documents]]
        retain = list(subject.corpora.retain.documents[: self.documents])
        apart = zip(*(means(subject, texts, layers) for texts in (forget, retain)), strict=True)
        shifts = [forget_D - retain_D for forget_D, retain_D in apart]
        return {layer: (shift_D / shift_D.norm())[:, None] for layer, shift_D in zip(layers, shifts, strict=True)}


def means(subject: "Subject", documents: list[list[int]], layers: Sequence[int]) -> "list[Any]":
    """The mean over all tokens of the stream that leaves each layer."""
    import torch

    from rna.corpora import pad
    from rna.decoder import model

    decoder, totals, count = subject.decoder, dict[int, Any](), 0
    for first in range(0, len(documents), 8):
        batch = pad(documents[first : first + 8], subject.tokenizer.pad_token_id).to(decoder.device)
        with torch.no_grad():
            stream = model.embed(decoder, batch)
            for layer in layers:
                stream = model.advance(decoder, stream, layer + 1)
                hidden_ND = stream.hidden_BTD[batch.mask_BT.to(stream.hidden_BTD.device)]
                totals[layer] = totals.get(layer, 0) + hidden_ND.double().sum(0)
        count += batch.tokens
    return [totals[layer] / count for layer in layers]
