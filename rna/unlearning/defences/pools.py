"""Tokens of forget and retain texts by how often they stand there."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rna.unlearning.defence import Ground, Texts

COUNTED = 4096  # documents of a corpus whose tokens are counted


def counted(ground: "Ground") -> tuple[Counter[int], Counter[int]]:
    """How often each token stands in the forget and in the retain texts, of which the first count."""
    return _frequencies([*ground.forget.values()], ground.special), _frequencies([ground.retain], ground.special)


def _frequencies(corpora: "Sequence[Texts]", special: set[int]) -> Counter[int]:
    rows = chain.from_iterable(islice(texts, COUNTED) for texts in corpora)
    return Counter(one for ids in rows for one in ids if one not in special)
