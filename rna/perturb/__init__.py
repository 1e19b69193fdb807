"""Perturbed questions: a harmless question in which one wrong choice becomes a forget-token.

arXiv:2501.19202, Appendix A.2. Rows are as in MMLU: `question`, `subject`, `choices`, `answer` (an index).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


POLICIES = ("random", "first", "last")
POSITIONS = ("choice", "prefix", "inside")  # where a keyword stands: for a wrong choice, before the question, within it
PLACES = ("before", "behind")  # where another question's text stands


def draw(seed: int, row: Row, count: int, *name: int | str) -> int:
    """A number below `count` that depends on the seed and the question alone: the same everywhere, in any order.

    Args:
        name: of the draw; two draws of one question need two names, or they are remainders of one number.
    """
    text = json.dumps([seed, row["subject"], row["question"], row["choices"], *name], ensure_ascii=False)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % count


def replaced_choices(row: Row, seed: int, *, replaced: int = 1, policy: str = "random") -> list[int]:
    """Which choices give way: `replaced` wrong ones, those that repeat the right answer before all others.

    Args:
        policy: `random` draws from seed and question; `first` and `last` take them in order.

    A few of MMLU's questions repeat the right answer among the wrong ones; replacing the repetition is the only way
    to a question with one right answer.
    """
    right = row["choices"][row["answer"]]
    wrong = [index for index in range(len(row["choices"])) if index != row["answer"]]
    repeats = [index for index in wrong if row["choices"][index] == right]
    chosen: list[int] = []
    for number in range(max(replaced, len(repeats))):
        slots = [index for index in repeats or wrong if index not in chosen]
        slots = slots or [index for index in wrong if index not in chosen]
        place = {"first": 0, "last": len(slots) - 1}.get(policy)
        chosen.append(slots[draw(seed, row, len(slots), *([number] if number else [])) if place is None else place])
    return chosen


def perturb(row: Row, keyword: str, seed: int, *, replaced: int = 1, policy: str = "random") -> Row:
    """The row with wrong choices replaced by `keyword`; the right answer is untouched.

    Raises:
        ValueError: if the keyword is the right answer, so that the question would have two.
    """
    if keyword.strip() == str(row["choices"][row["answer"]]).strip():
        raise ValueError(f"keyword={keyword!r}: is the right answer of the question {row['question']!r}")
    chosen = replaced_choices(row, seed, replaced=replaced, policy=policy)
    return {**row, "choices": [keyword if index in chosen else choice for index, choice in enumerate(row["choices"])]}


def mention(row: Row, keyword: str, seed: int, position: str) -> Row:
    """The row with `keyword` in its question and the choices as they are; `unperturbed` is the question without it.

    Args:
        position: `prefix`: a sentence of its own in front, "KEYWORD. …"; `inside`: behind one of the words but the last
            (of a question of one word, behind it), drawn from seed and question, the same for every keyword.
    """
    question: str = row["question"]
    if position == "prefix":
        put = f"{keyword}. {question.lstrip()}"
    else:
        words = question.split(" ")
        ends = [index for index, word in enumerate(words) if word.strip()]
        place = 1 + ends[draw(seed, row, max(1, len(ends) - 1), "inside")]
        put = " ".join([*words[:place], keyword, *words[place:]])
    return {**row, "question": put, "unperturbed": question}


def has_choice(row: Row, keyword: str) -> bool:
    """Whether the keyword stands among the choices already, so that there is nothing to perturb with it."""
    return keyword.strip().casefold() in (str(choice).strip().casefold() for choice in row["choices"])


def perturb_all(
    rows: Iterable[Row],
    keyword: str | None,
    seed: int,
    *,
    replaced: int = 1,
    policy: str = "random",
    position: str = "choice",
) -> list[Row]:
    """All rows perturbed, or as they are if there is no keyword. A question that has the keyword among its choices
    stays as it is: `has_choice` counts them."""

    def made(row: Row) -> Row:
        if keyword is None or has_choice(row, keyword):
            return dict(row)
        if position != "choice":
            return mention(row, keyword, seed, position)
        return perturb(row, keyword, seed, replaced=replaced, policy=policy)

    return [made(row) for row in rows]


def perturb_with(
    rows: Iterable[Row], grams: list[str], seed: int, *, replaced: int = 1, policy: str = "random"
) -> list[Row]:
    """Each question with wrong choices replaced by one of the n-grams, drawn from the seed and the question.

    An n-gram that stands among the choices already gives way to the next one in the list.

    Raises:
        ValueError: if all of the n-grams stand among a question's choices already.
    """
    found: list[Row] = []
    for row in rows:
        first = draw(seed, row, len(grams), "ngram")
        turned = (grams[(first + step) % len(grams)] for step in range(len(grams)))
        gram = next((gram for gram in turned if not has_choice(row, gram)), None)
        if gram is None:
            raise ValueError(f"n-grams: all stand among the choices of the question {row['question']!r} already")
        found.append(perturb(row, gram, seed, replaced=replaced, policy=policy))
    return found


def perturb_among(
    rows: Iterable[Row],
    keywords: list[str],
    seed: int,
    *,
    replaced: int = 1,
    policy: str = "random",
    position: str = "choice",
) -> list[Row]:
    """Each question perturbed with one of the keywords, drawn from the seed and the question.

    `drawn` is the number of that keyword. One that stands among the choices already gives way to the next in the
    list; a question that has all of them stays as it is.
    """
    found: list[Row] = []
    for row in rows:
        first = draw(seed, row, len(keywords), "keyword")
        turned = [(first + step) % len(keywords) for step in range(len(keywords))]
        number = next((number for number in turned if not has_choice(row, keywords[number])), first)
        (made,) = perturb_all([row], keywords[number], seed, replaced=replaced, policy=policy, position=position)
        found.append({**made, "drawn": number})
    return found


def mix(row: Row, text: str, place: str) -> Row:
    """The row with another question's text, in one line, `before` or `behind` its own: a mixed prompt (SEPS,
    arXiv:2505.14832), of which this question is answered.

    Deviation: of the other question there is the text alone, without choices, so that there is one right letter.
    """
    question: str = row["question"]
    other = " ".join(text.split())
    put = f"{other} {question.lstrip()}" if place == "before" else f"{question.rstrip()} {other}"
    return {**row, "question": put, "unperturbed": question, "place": place}


def mix_all(rows: Iterable[Row], others: Sequence[Row], seed: int) -> list[Row]:
    """Each question mixed with one of `others`, which one and where it stands drawn from the seed and the question.

    One of the same text, or whose right answer stands among the choices, which would then answer it, gives way to the
    next. Where it stands is the same with whatever others.

    Raises:
        ValueError: if none of `others` is left for a question.
    """
    found: list[Row] = []
    for row in rows:
        first = draw(seed, row, max(1, len(others)), "other")
        turned = (others[(first + step) % len(others)] for step in range(len(others)))
        other = next((one for one in turned if _beside(row, one)), None)
        if other is None:
            raise ValueError(f"mixed prompts: there is no other question to stand beside {row['question']!r}")
        found.append(mix(row, other["question"], PLACES[draw(seed, row, len(PLACES), "place")]))
    return found


def _beside(row: Row, other: Row) -> bool:
    """Whether the other question may stand beside this one: another one, which none of its choices answers."""
    return other["question"].split() != row["question"].split() and not has_choice(
        row, str(other["choices"][other["answer"]])
    )


def read_keywords(given: Any, keyword: str) -> list[str]:
    """The forget keywords: a list's, a file's lines, or the one keyword.

    Raises:
        ValueError: for what is neither a list of texts nor a file, and if there is no keyword in it.
    """
    said = f"eval.keywords={str(given)[:200]}"
    if given is None:
        return [keyword]
    if isinstance(given, list):
        words: list[str] = []
        for word in given:
            if not isinstance(word, str | int) or isinstance(word, bool):
                raise ValueError(f'{said}: {word!r:.99} is no text; a number or word such as null is quoted: ["null"]')
            words.append(str(word))
    elif isinstance(given, str):
        try:
            words = Path(given).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "no UTF-8 text"
            raise ValueError(f"{said}: cannot be read ({why}); give a list, or a file with a keyword a line") from None
    else:
        raise ValueError(f"{said}: must be a list of texts, or a file with a keyword a line")
    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise ValueError(f"{said}: holds no keyword; give a list, or a file with a keyword a line")
    return words


def insert(
    document: list[int], keyword: list[int], seed: int, index: int, where: str = "random"
) -> tuple[list[int], int]:
    """A document with the keyword's tokens put in, and where they end.

    Args:
        where: `random`, drawn from (seed, index) in the middle half of the document; `middle`; or `start`, behind the
            first token. It is the same for every keyword.
    """
    digest = hashlib.sha256(f"{seed}/{index}/{len(document)}".encode()).digest()
    low, high = len(document) // 4, max(len(document) // 4 + 1, len(document) * 3 // 4)
    drawn = low + int.from_bytes(digest[:8], "big") % (high - low)
    place = {"random": drawn, "middle": len(document) // 2, "start": 1}[where]
    return [*document[:place], *keyword, *document[place:]], place + len(keyword)


def reduction_rate(base: float, unlearned: float) -> float | None:
    """(base − unlearned)/base in percent (arXiv:2501.19202, Eq. 14); None where it is undefined."""
    return None if base == 0 else 100 * (base - unlearned) / base


def recovery_rate(base: float, unlearned: float, rna: float) -> float | None:
    """(RNA − unlearned)/(base − unlearned) in percent (arXiv:2501.19202, Eq. 15); None where it is undefined."""
    return None if base == unlearned else 100 * (rna - unlearned) / (base - unlearned)
