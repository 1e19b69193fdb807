"""Wikitext by theme: the paragraphs of articles whose heading matches, those of all others, and questions on these.

Wikitext is as the hub has it: a line a row, ` = Title = ` above each article, tokens apart (" @-@ ", " , ", " . ").
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rna.corpora.formats import Row
from rna.corpora.rows import read_rows

Articles = dict[str, list[str]]  # title -> paragraphs

TITLE = re.compile(r"= ([^=]+) =")
WORDS = 40  # of a paragraph, at least
BEGINNING = range(12, 41)  # words of a question
FOLLOWING = range(8, 41)  # words of a choice
SIMILAR = 1.5  # the factor in words between the right choice and a wrong one, where there are enough
WRONG = 3


def split(path: str, heading: str) -> tuple[Articles, Articles]:
    """Title -> paragraphs, of the articles whose title matches, case ignored, and of the others.

    Raises:
        ValueError: for a heading that is no regular expression, or matches no article or all of them.
    """
    try:
        wanted = re.compile(heading, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"--heading {heading}: no regular expression ({error})") from None
    articles: Articles = {}
    title, above_is_blank = "", True
    for _, row in read_rows(path, ["text"], "WIKITEXT"):
        text = row["text"].strip()
        found = TITLE.fullmatch(text)
        if found and above_is_blank:
            title = found[1]
        elif title and not text.startswith("=") and len(text.split()) >= WORDS:
            articles.setdefault(title, []).append(text)
        above_is_blank = not text
    matching = {title: texts for title, texts in articles.items() if wanted.search(title)}
    others = {title: texts for title, texts in articles.items() if title not in matching}
    if not matching or not others:
        raise ValueError(
            f"--heading {heading}: matches {len(matching)} of {len(articles)} articles in {path}; allowed: one that "
            "matches some and not all"
        )
    return matching, others


def write(file: Path, articles: Articles) -> int:
    """A paragraph a line, in an order by hash, so that the last ones, which `data.holdout` keeps from training, come
    from all articles; returns how many there are."""
    texts = sorted(itertools.chain(*articles.values()), key=lambda text: hashlib.sha256(text.encode()).digest())
    file.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return len(texts)


@dataclass(frozen=True)
class Continued:
    """A paragraph's beginning, one sentence or two, and the sentence that follows."""

    title: str
    paragraph: str
    beginning: str
    following: str


def continuations(retain: Articles, count: int, seed: int) -> tuple[list[Row], Articles]:
    """`count` questions in MMLU's rows, which sentence follows, and the articles without the paragraphs asked about.

    Paragraphs and the order of choices are drawn by a hash of seed and words. Each wrong choice is what follows in
    another of these paragraphs, of another article: a sentence alone does not tell whether it is right.

    Raises:
        ValueError: if there are too few paragraphs that can be asked about, or articles to take wrong choices from.
    """
    usable = [one for title, texts in retain.items() for text in texts if (one := _continued(title, text))]
    usable = list({one.paragraph: one for one in usable}.values())
    most = min(len(usable), len({text for texts in retain.values() for text in texts}) - 1)
    if not 1 <= count <= most:
        raise ValueError(
            f"--questions {count}: of the retain articles {most} paragraphs can be asked about, with one at least left "
            f"to be retained; allowed: 1 to {most}"
        )
    asked = sorted(usable, key=lambda one: _drawn(seed, one.paragraph))[:count]
    rows = [_question(one, asked, seed) for one in asked]
    aside = {one.paragraph for one in asked}
    kept = {title: [text for text in texts if text not in aside] for title, texts in retain.items()}
    return rows, {title: texts for title, texts in kept.items() if texts}


def write_questions(file: Path, rows: Iterable[Row]) -> None:
    """A row a line."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _continued(title: str, paragraph: str) -> Continued | None:
    """None where no beginning and following sentence have the lengths, or one is cut within a quotation."""
    sentences = f"{paragraph} ".split(" . ")[:-1]
    for end in (1, 2):
        if end >= len(sentences) or not all(map(_whole, sentences[: end + 1])):
            return None
        beginning, following = (f"{' . '.join(part)} ." for part in (sentences[:end], sentences[end : end + 1]))
        if _length(beginning) in BEGINNING and _length(following) in FOLLOWING:
            return Continued(title, paragraph, beginning, following)
    return None


def _whole(sentence: str) -> bool:
    return sentence[:1].isupper() and sentence.count('"') % 2 == 0


def _length(text: str) -> int:
    return len(text.split())


def _question(one: Continued, asked: Sequence[Continued], seed: int) -> Row:
    length = _length(one.following)

    def order(text: str) -> tuple[float, bytes]:
        factor = max(_length(text) / length, length / _length(text))
        return factor if factor > SIMILAR else 1.0, _drawn(seed, "wrong", one.paragraph, text)

    others = {other.following for other in asked if other.title != one.title} - {one.following}
    if len(others) < WRONG:
        raise ValueError(
            f"--questions {len(asked)}: {len(others)} of these are on other articles than {one.title!r}, and its wrong "
            f"choices are of {WRONG}; allowed: more questions, where there are more retain articles"
        )
    choices = [one.following, *sorted(others, key=order)[:WRONG]]
    choices.sort(key=lambda text: _drawn(seed, "choice", one.paragraph, text))
    answer = choices.index(one.following)
    return {"question": one.beginning, "subject": one.title, "choices": choices, "answer": answer}


def _drawn(seed: int, *words: str) -> bytes:
    return hashlib.sha256(json.dumps([seed, *words]).encode()).digest()
