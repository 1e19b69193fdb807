"""Perturbed questions: a harmless question in which one wrong choice becomes a forget-token.

arXiv:2501.19202, Appendix A.2. Rows are as in MMLU: `question`, `subject`, `choices`, `answer` (an index).
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]


def replaceable(row: Row) -> list[int]:
    """The wrong choices that may be replaced: those that repeat the right answer if there are any, else all.

    A few of MMLU's questions repeat the right answer among the wrong ones; replacing the repetition is the only way
    to a question with one right answer.
    """
    right = row["choices"][row["answer"]]
    wrong = [index for index in range(len(row["choices"])) if index != row["answer"]]
    return [index for index in wrong if row["choices"][index] == right] or wrong


def draw(seed: int, row: Row, count: int) -> int:
    """A number below `count` that depends on the seed and the question alone: the same everywhere, in any order."""
    text = json.dumps([seed, row["subject"], row["question"], row["choices"]], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % count


def perturb(row: Row, keyword: str, seed: int) -> Row:
    """The row with one wrong choice replaced by `keyword`; the right answer is untouched.

    Raises:
        ValueError: if the keyword is the right answer, so that the question would have two.
    """
    if keyword.strip() == str(row["choices"][row["answer"]]).strip():
        raise ValueError(f"keyword={keyword!r}: is the right answer of the question {row['question']!r}")
    slots = replaceable(row)
    chosen = slots[draw(seed, row, len(slots))]
    return {**row, "choices": [keyword if index == chosen else choice for index, choice in enumerate(row["choices"])]}


def perturb_all(rows: Iterable[Row], keyword: str | None, seed: int) -> list[Row]:
    """All rows perturbed, or as they are if there is no keyword."""
    return [dict(row) if keyword is None else perturb(row, keyword, seed) for row in rows]


def insert(document: list[int], keyword: list[int], seed: int, index: int) -> tuple[list[int], int]:
    """A document with the keyword's tokens put in at a place drawn from (seed, index), and where they end.

    The place lies in the middle half of the document and is the same for every keyword.
    """
    digest = hashlib.sha256(f"{seed}/{index}/{len(document)}".encode()).digest()
    low, high = len(document) // 4, max(len(document) // 4 + 1, len(document) * 3 // 4)
    place = low + int.from_bytes(digest[:8], "big") % (high - low)
    return [*document[:place], *keyword, *document[place:]], place + len(keyword)


def reduction_rate(base: float, unlearned: float) -> float | None:
    """(base − unlearned)/base in percent (arXiv:2501.19202, Eq. 14); None where it is undefined."""
    return None if base == 0 else 100 * (base - unlearned) / base


def recovery_rate(base: float, unlearned: float, rna: float) -> float | None:
    """(RNA − unlearned)/(base − unlearned) in percent (arXiv:2501.19202, Eq. 15); None where it is undefined."""
    return None if base == unlearned else 100 * (rna - unlearned) / (base - unlearned)
