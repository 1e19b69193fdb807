"""The logit lens: is the answer there below the last layer?"""

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rna.settings import Probe

if TYPE_CHECKING:
    from rna.evaluation.subject import Subject
    from rna.settings import Settings


@dataclass(kw_only=True)
class Lens(Probe):
    """The stream that leaves a layer goes through the last norm and the head at once: softmax(head(norm(h_l)))."""

    layers: list[int] = field(default_factory=list)  # [] all but the last, which is the model as it is

    label = "logit lens"

    def check(self, settings: "Settings") -> None:
        last = (settings.model.num_layers or 1) - 1
        if any(not 0 <= layer < last for layer in self.layers) or not last:
            raise ValueError(f"probe.layers={self.layers}: the last is the model as it is; allowed: 0 to {last - 1}")

    def states(self, subject: "Subject") -> Generator[str]:
        from rna.decoder import model

        for layer in self.layers or range(len(subject.decoder.layers) - 1):
            with model.read_at(subject.decoder, layer):
                yield f"layer {layer}"
