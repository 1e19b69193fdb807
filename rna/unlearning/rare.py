"""Weights of forget tokens: those common in retain texts count less."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain, islice

import torch
from jaxtyping import Float
from torch import Tensor

COUNTED = 4096  # documents of a corpus whose tokens are counted


def frequencies(corpora: Iterable[Sequence[Sequence[int]]]) -> Counter[int]:
    """How often each token stands in these texts, of which the first count."""
    return Counter(chain.from_iterable(chain.from_iterable(islice(texts, COUNTED) for texts in corpora)))


def weights(forget: Counter[int], retain: Counter[int]) -> Float[Tensor, "V"]:
    """w = p_F/(p_F + p_R) of each token id, with p its relative frequency in forget and in retain texts; 1 where it
    stands in neither.

    Selective Unlearning (arXiv:2506.00876) keeps the forget tokens that a model of the forget texts makes likelier than
    a model of retain texts does.
    Deviation: the models are unigrams, and a token counts by its share in place of all or nothing.
    """
    found = torch.ones(max([*forget, *retain]) + 1)
    for one in {*forget, *retain}:
        ours, theirs = forget[one] / forget.total(), retain[one] / retain.total()
        found[one] = ours / (ours + theirs)
    return found
