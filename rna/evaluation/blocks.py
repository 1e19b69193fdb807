"""The `select` half of a task's questions in blocks that double, for evaluations that go on only as long as it pays.

The first block holds 1/2ᵏ of them, the second as many, each other as many as all before it, the last the half that is
left. Every subject has its share of each block, to the rounding of a question, and of each beginning of the order.
"""

import hashlib
import json
import math
from collections.abc import Sequence

from rna.corpora import Row
from rna.evaluation.questions import SELECT, named, of_above

FIRST = 24  # questions that the first block of the largest task holds at least


def population(rows: Sequence[Row], subjects: list[str] | None, *, leave_out: bool) -> list[int]:
    """The places of the questions that count on the half for choosing, in the order in which they are asked."""
    by_subject: dict[str, list[tuple[bytes, int]]] = {}
    for place, row in enumerate(rows):
        counts = row["half"] == SELECT and not (leave_out and of_above(row))
        if counts and (subjects is None or row["subject"] in subjects):
            by_subject.setdefault(row["subject"], []).append((_drawn(row), place))
    order: list[tuple[float, int]] = []
    for subject, those in by_subject.items():
        start = int.from_bytes(hashlib.sha256(f"start of {subject}".encode()).digest()[:6]) / 2**48
        order += [((rank + start) / len(those), place) for rank, (_, place) in enumerate(sorted(those))]
    return [place for _, place in sorted(order)]


def _drawn(row: Row) -> bytes:
    """A hash of the words that no perturbation touches: a question has one rank in all of its forms."""
    return hashlib.sha256(b"block" + json.dumps(named(row)).encode()).digest()


def count(largest: int) -> int:
    """How many blocks there are where the largest task has so many questions."""
    return 1 + max(0, int(math.log2(max(largest, 1) / FIRST)))


def block(number: int, of: int, population: int) -> range:
    """The ranks of a task's questions in block `number`, from 0, of so many blocks; the first is never empty."""
    ends = [0, *(math.ceil(population / 2 ** (of - 1 - place)) for place in range(of))]
    return range(ends[number], ends[number + 1])
