"""Tokens of forget and retain texts by how often they stand there."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rna.unlearning.defence import Ground


def counted(ground: "Ground") -> tuple[Counter[int], Counter[int]]:
    """How often each token but the special ones stands in the forget and in the retain texts."""
    from rna.unlearning import rare

    forget, retain = rare.frequencies(ground.forget.values()), rare.frequencies([ground.retain])
    for one in ground.special:
        forget.pop(one, None)
        retain.pop(one, None)
    return forget, retain
