"""Soft tokens: positions of a batch at which the stream is a vector of its own from some layer's input on.

Shapes: B sequences, T tokens, D hidden width, M vectors of a bank; R rows as a model reads a batch.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rna.corpora import Batch
from rna.decoder.model import Alter, Stream


@dataclass
class SoftTokens:
    """A batch's soft tokens; `index_BT` names each one's vector, counted from 1, and is 0 for all other positions.

    What a model reads below a vector's site is whatever token stands there.
    """

    batch: Batch  # as the model reads it
    index_BT: Int[Tensor, "B T"]
    bank_MD: Float[Tensor, "M D"]
    sites: tuple[int, ...]  # of each vector, the layer whose input it replaces; 0: the embedding
    _places: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        index_RT = self.batch.as_read(self.index_BT)
        row_N, token_N = index_RT.nonzero(as_tuple=True)
        vector_N = index_RT[row_N, token_N] - 1
        site_N = torch.tensor(self.sites)[vector_N]
        for site in site_N.unique().tolist():
            here_N = site_N == site
            self._places[site] = (row_N[here_N], token_N[here_N], vector_N[here_N])

    @property
    def first(self) -> int:
        """The lowest layer whose input holds a soft token; a layer above all where there is none."""
        return min(self._places, default=2**31)

    def enter(self, layer: int, hidden_RTD: Float[Tensor, "R T D"]) -> Float[Tensor, "R T D"]:
        """What enters a layer, with its site's vectors in their places; a gradient flows to them."""
        if layer not in self._places:
            return hidden_RTD
        row_N, token_N, vector_N = (one.to(hidden_RTD.device) for one in self._places[layer])
        vector_ND = self.bank_MD.to(hidden_RTD)[vector_N]
        return hidden_RTD.index_put((row_N, token_N), vector_ND)

    def entering(self, stream: Stream) -> Stream:
        return replace(stream, hidden_BTD=self.enter(stream.layer, stream.hidden_BTD))

    def behind(self, alter: Alter | None) -> Alter:
        """What is done to the stream that leaves each layer: what is done anyway, such as noise, then this."""

        def altered(layer: int, hidden_RTD: Tensor) -> Tensor:
            return self.enter(layer + 1, hidden_RTD if alter is None else alter(layer, hidden_RTD))

        return altered
