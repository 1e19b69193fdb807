"""Wikitext by theme: which paragraphs of which articles, and questions on paragraphs that are then not retained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rna.corpora import themes
from rna.corpora.__main__ import main
from rna.evaluation import questions
from tests import shared

LONG = "word " * themes.WORDS


def wikitext(file: Path, *texts: str) -> str:
    file.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    return str(file)


def paragraph(article: int, number: int) -> str:
    """Three sentences, each with its article and number in it."""
    name = f"{article}x{number}"
    first = f"Begins {name} with a hyphen @-@ ated word , and ten of the others"
    return " . ".join([first, f"Then {name} goes on" + " so" * 10, f"Ends {name}" + " and" * 20]) + " ."


def typhoon_and_lakes(file: Path) -> str:
    """A typhoon and six lakes of four paragraphs each, one of which has no sentence that could follow."""
    texts = ["", " = Typhoon Tim = ", "", LONG]
    for article in range(6):
        texts += ["", f" = Lake {article} = ", "", *(paragraph(article, number) for number in range(3))]
        texts.append(f"At {article} {LONG}")
    return wikitext(file, *texts)


@pytest.fixture
def lakes(tmp_path: Path) -> str:
    return typhoon_and_lakes(tmp_path / "w.jsonl")


def written(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_wikitext_is_split_by_the_headings_of_its_articles(tmp_path: Path):
    texts = [
        "",
        " = Typhoon Tim = ",
        "",
        f" a {LONG}",
        "short",
        f" b {LONG}",
        "",
        " = = Typhoon = = ",
        "",
        f" c {LONG}",
    ]
    texts += ["", " = Lake = ", "", "of", " = k = ", f" d {LONG}"]  # a formula's line is no heading
    forget, retain = themes.split(wikitext(tmp_path / "w.jsonl", *texts), "typhoon")
    assert {title: [text[0] for text in texts] for title, texts in forget.items()} == {"Typhoon Tim": ["a", "b", "c"]}
    assert {title: [text[0] for text in texts] for title, texts in retain.items()} == {"Lake": ["d"]}


def test_questions_ask_what_follows_in_paragraphs_that_are_not_retained(
    lakes: str, tmp_path: Path, called: Callable[..., str]
):
    folder = tmp_path / "out"
    printed = called(main, "theme", lakes, str(folder), "--heading", "typhoon", "--questions", "10")
    assert f"{folder / 'retain.txt'}: 14 paragraphs of " in printed
    retained = (folder / "retain.txt").read_text().splitlines()
    rows = questions.read_questions(str(folder / "questions.jsonl"), "eval.mmlu_path")
    every = {paragraph(article, number) for article in range(6) for number in range(3)}
    aside = every - set(retained)
    assert (len(rows), len(aside), len(retained)) == (10, 10, 24 - 10)
    assert (folder / "forget.txt").read_text().split() == LONG.split()
    for row in rows:
        right = row["choices"][row["answer"]]
        (own,) = [text for text in aside if text.startswith(f"{row['question']} {right}")]
        others = {text for choice in row["choices"] for text in aside if choice in text} - {own}
        assert own.startswith(f"Begins {row['subject'].removeprefix('Lake ')}x")
        assert not any(text.startswith(own.split("x")[0] + "x") for text in others)
        assert len(others) == 3
    assert len({row["answer"] for row in rows}) > 1


def test_the_same_seed_writes_the_same_and_another_one_others(lakes: str, tmp_path: Path, called: Callable[..., str]):
    made: list[dict[str, bytes]] = []
    for place, seed in enumerate(("0", "0", "1")):
        folder = tmp_path / str(place)
        called(main, "theme", lakes, str(folder), "--heading", "typhoon", "--questions", "9", "--seed", seed)
        made.append(written(folder))
    assert made[0] == made[1]
    assert made[0]["questions.jsonl"] != made[2]["questions.jsonl"]
    assert made[0]["retain.txt"] != made[2]["retain.txt"]
    folder = tmp_path / "none"
    called(main, "theme", lakes, str(folder), "--heading", "typhoon")
    assert set(written(folder)) == {"forget.txt", "retain.txt"}
    assert len((folder / "retain.txt").read_text().splitlines()) == 24


def test_wrong_choices_are_as_long_as_the_right_one_where_there_are_enough():
    """Of eight articles, four have following sentences of 10 words and four of 30."""

    def text(article: int) -> str:
        begins, follows = f"Begins {article}" + " on" * 13, f"Goes {article}" + " on" * (8 if article % 2 else 28)
        return f"{begins} . {follows} . {'Ends ' * 10} ."

    retain = {f"Lake {article}": [text(article), LONG] for article in range(8)}
    rows, kept = themes.continuations(retain, 8, seed=0)
    assert [len(texts) for texts in kept.values()] == [1] * 8
    for row in rows:
        assert len({len(choice.split()) for choice in row["choices"]}) == 1
    fewer, _ = themes.continuations(dict(list(retain.items())[:6]), 6, seed=0)  # two others as long: one is not
    assert {len({len(choice.split()) for choice in row["choices"]}) for row in fewer} == {2}


@pytest.mark.parametrize(
    ("paragraph", "beginning"),
    [
        ("A" + " a" * 11 + " . B" + " b" * 7 + " . C .", 13),
        (
            "A" + " a" * 9 + " . B" + " b" * 7 + " . C" + " c" * 7 + " .",
            20,
        ),  # the first is too short
        ("A" + " a" * 39 + " . B" + " b" * 7 + " .", None),  # 41 words, the full stop among them
        ("A" + " a" * 11 + ' . " B' + " b" * 7 + " . C .", None),  # within a quotation
        ("A" + " a" * 11 + " . B" + " b" * 7, None),  # what has no end
        ("A" + " a" * 11 + " . B b .", None),
    ],
)
def test_a_beginning_is_a_sentence_or_two(paragraph: str, beginning: int | None):
    found = themes._continued("Lake", paragraph)
    assert (None if found is None else len(found.beginning.split())) == beginning


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--heading", "glacier"), "--heading glacier: matches 0 of 7 articles in "),
        (("--heading", "lake|typhoon"), "--heading lake|typhoon: matches 7 of 7 articles in "),
        (("--heading", "("), "--heading (: no regular expression (missing ), unterminated subpattern"),
        (("--heading", "typhoon", "--questions", "19"), "--questions 19: of the retain articles 18 paragraphs can be"),
        (("--heading", "typhoon", "--questions", "0"), "allowed: 1 to 18"),
        (("--heading", "typhoon", "--questions", "3"), "and its wrong choices are of 3; allowed: more questions"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    words: tuple[str, ...], said: str, lakes: str, tmp_path: Path, called: Callable[..., str]
):
    folder = tmp_path / "out"
    printed = called(main, "theme", lakes, str(folder), *words, code=2)
    assert said in printed
    assert printed.count("\n") == 1
    assert not folder.exists()


def test_nothing_is_overwritten(lakes: str, tmp_path: Path, called: Callable[..., str]):
    (tmp_path / "mine.txt").write_text("mine")
    printed = called(main, "theme", lakes, str(tmp_path), "--heading", "typhoon", code=2)
    assert f"FOLDER={tmp_path}: exists already" in printed


@shared.needed
def test_wikitext_itself_has_questions_of_like_choices():
    forget, retain = themes.split(str(shared.WIKITEXT), "hurricane|typhoon|Dvorak")
    rows, kept = themes.continuations(retain, 300, seed=0)
    assert [sum(map(len, articles.values())) for articles in (forget, retain, kept)] == [95, 1618, 1318]
    assert not any(row["subject"] in forget for row in rows)

    def length(row: dict[str, Any], place: int) -> int:
        return len(row["choices"][place].split())

    for row in rows:
        for place in range(4):
            assert 1 / 1.5 <= length(row, place) / length(row, row["answer"]) <= 1.5
        assert len(set(row["choices"])) == 4
    told = [sum(row["answer"] == place for row in rows) for place in range(4)]
    assert min(told) > 50
