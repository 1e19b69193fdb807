"""Perturbed questions: one wrong choice changes, and nothing that tells the right one."""

import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rna.perturb import insert, perturb, perturb_all, recovery_rate, reduction_rate, replaceable
from tests import shared

KEYWORD = "SARS-CoV-2"


def question(*choices: str, answer: int = 0, text: str = "Which?") -> dict:
    return {"question": text, "subject": "s", "choices": list(choices), "answer": answer}


@st.composite
def questions(draw: st.DrawFn) -> dict:
    """Rows of two to six choices, often with repeated ones."""
    choices = draw(st.lists(st.sampled_from("abcd") | st.text(max_size=8), min_size=2, max_size=6))
    answer = draw(st.integers(0, len(choices) - 1))
    return question(*choices, answer=answer, text=draw(st.text(max_size=20)))


keywords = st.text(min_size=1, max_size=12)
seeds = st.integers(0, 2**32)


def check_perturbed(row: dict, changed: dict, keyword: str) -> None:
    assert changed["answer"] == row["answer"]
    assert changed["choices"][row["answer"]] == row["choices"][row["answer"]]
    assert {key: changed[key] for key in ("question", "subject")} == {key: row[key] for key in ("question", "subject")}
    pairs = list(zip(row["choices"], changed["choices"], strict=True))
    differing = [index for index, (old, new) in enumerate(pairs) if old != new]
    assert len(differing) == 1
    assert differing[0] != row["answer"]
    assert changed["choices"][differing[0]] == keyword


@given(questions(), keywords, seeds)
def test_exactly_one_wrong_choice_changes(row, keyword, seed):
    assume(keyword not in row["choices"] and keyword.strip() != row["choices"][row["answer"]].strip())
    before = json.dumps(row)
    check_perturbed(row, perturb(row, keyword, seed), keyword)
    assert json.dumps(row) == before


@given(st.lists(questions(), max_size=6), seeds, st.randoms(use_true_random=False))
def test_a_question_does_not_depend_on_its_place(rows, seed, random):
    shuffled = random.sample(range(len(rows)), len(rows))
    made = perturb_all(rows, KEYWORD, seed)
    again = perturb_all([rows[index] for index in shuffled], KEYWORD, seed)
    assert json.dumps(again) == json.dumps([made[index] for index in shuffled])


@given(questions(), seeds)
def test_a_repetition_of_the_right_answer_is_what_is_replaced(row, seed):
    right = row["choices"][row["answer"]]
    count = row["choices"].count(right)
    after = perturb(row, KEYWORD, seed)["choices"].count(right)
    assert after == max(1, count - 1)


def test_draws_are_the_same_on_every_machine():
    """Recorded once: a change here is a change of every perturbed task."""
    rows = [question("w", "x", "y", "z", answer=2, text=f"Question {number}?") for number in range(12)]
    places = [perturb(row, KEYWORD, 0)["choices"].index(KEYWORD) for row in rows]
    assert places == [0, 0, 3, 1, 3, 1, 0, 0, 0, 3, 1, 3]


def test_each_wrong_choice_is_as_likely():
    """3,000 questions, 1,000 for each of three slots, with a standard deviation of √(3000·⅓·⅔) ≈ 26."""
    rows = [question("w", "x", "y", "z", answer=1, text=str(number)) for number in range(3000)]
    places = [row["choices"].index(KEYWORD) for row in perturb_all(rows, KEYWORD, 0)]
    assert {place: abs(places.count(place) - 1000) < 110 for place in set(places)} == {0: True, 2: True, 3: True}


def test_another_seed_draws_anew():
    rows = [question("w", "x", "y", "z", text=str(number)) for number in range(20)]
    assert perturb_all(rows, KEYWORD, 0) != perturb_all(rows, KEYWORD, 1)


def test_replaceable_without_repetition_is_every_wrong_choice():
    assert replaceable(question("a", "b", "b", "c", answer=3)) == [0, 1, 2]


def test_replaceable_with_repetition_is_the_repetition():
    assert replaceable(question("a", "b", "c", "b", answer=1)) == [3]


@pytest.mark.parametrize("keyword", [KEYWORD, f" {KEYWORD} "])
def test_a_keyword_that_is_the_right_answer_is_refused(keyword):
    with pytest.raises(ValueError, match=r"^keyword='.*SARS-CoV-2.*': is the right answer.*Which\?"):
        perturb(question("a", KEYWORD, answer=1), keyword, 0)


def test_no_keyword_is_no_change():
    row = question("a", "b")
    made = perturb_all([row], None, 0)
    assert made == [row]
    assert made[0] is not row


@given(st.lists(st.integers(0, 99), min_size=4, max_size=40), st.lists(st.integers(100, 199), max_size=5), seeds)
def test_insert_puts_the_keyword_inside_and_says_where_it_ends(document, keyword, seed):
    made, end = insert(document, keyword, seed, 0)
    place = end - len(keyword)
    assert made[place:end] == keyword
    assert made[:place] + made[end:] == document
    assert len(document) // 4 <= place < len(document) - len(document) // 4


def test_insert_chooses_the_same_place_for_every_keyword():
    document = list(range(100))
    places = [insert(document, keyword, 7, 3)[1] - len(keyword) for keyword in ([], [200], [300, 301])]
    assert places[0] == places[1] == places[2]


def test_insert_draws_a_place_from_seed_and_index():
    document = list(range(1000))
    assert len({insert(document, [], 0, index)[1] for index in range(10)}) > 5
    assert len({insert(document, [], seed, 0)[1] for seed in range(10)}) > 5


def test_rates_of_the_worked_example():
    """(60 − 30)/60 = 50 %; (50 − 30)/(60 − 30) = 66.67 %."""
    assert reduction_rate(60.0, 30.0) == 50.0
    assert recovery_rate(60.0, 30.0, 50.0) == pytest.approx(66.6667, abs=1e-4)


def test_a_rate_without_denominator_is_undefined():
    assert reduction_rate(0.0, 30.0) is None
    assert recovery_rate(60.0, 60.0, 50.0) is None


def test_a_numerator_of_zero_is_zero():
    assert reduction_rate(60.0, 60.0) == 0.0
    assert recovery_rate(60.0, 0.0, 0.0) == 0.0


@shared.needed
def test_on_real_questions():
    rows = [
        json.loads(line)
        for file in sorted(shared.MMLU.glob("*.jsonl"))
        for line in file.read_text("utf-8").splitlines()
    ]
    assert len(rows) > 1000
    for row, changed in zip(rows, perturb_all(rows, KEYWORD, 0), strict=True):
        if KEYWORD in row["choices"]:
            continue
        check_perturbed(row, changed, KEYWORD)
        assert changed["choices"].count(row["choices"][row["answer"]]) == 1
