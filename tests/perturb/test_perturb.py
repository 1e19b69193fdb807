"""Perturbed questions: one wrong choice changes, and nothing that tells the right one."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rna.evaluation import questions as asked
from rna.perturb import (
    has_choice,
    insert,
    mention,
    mix,
    mix_all,
    perturb,
    perturb_all,
    perturb_among,
    perturb_with,
    recovery_rate,
    reduction_rate,
    replaced_choices,
)
from rna.settings.seeding import seed_of
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
    right = row["choices"][row["answer"]]
    assert len(differing) == max(1, row["choices"].count(right) - 1)
    assert {changed["choices"][index] for index in differing} == {keyword}
    assert changed["choices"].count(right) == 1


@given(questions(), keywords, seeds)
def test_one_wrong_choice_changes_or_all_that_repeat_the_right_one(row, keyword, seed):
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
    changed = perturb(row, KEYWORD, seed)["choices"]
    assert changed.count(right) == 1
    assert changed.count(KEYWORD) == max(1, count - 1)


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


def chi_square(pairs: list[tuple[int, int]], rows: int, columns: int) -> float:
    """Of a table of counts against the same count in every cell."""
    expected = len(pairs) / (rows * columns)
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    return sum((pairs.count(cell) - expected) ** 2 / expected for cell in cells)


@pytest.mark.parametrize(("count", "bound"), [(3, 26.1), (6, 40.8), (9, 54.1)])
def test_an_ngram_lands_in_every_slot_alike(count: int, bound: float):
    """3,000 questions over n-grams × 3 slots: χ² of 3·count − 1 degrees of freedom below its 0.999 quantile."""
    rows = [question("w", "x", "y", "z", answer=3, text=f"{number}?") for number in range(3000)]
    grams = [f"gram {number}" for number in range(count)]
    pairs: list[tuple[int, int]] = []
    for row in perturb_with(rows, grams, 0):
        (slot,) = (index for index, choice in enumerate(row["choices"]) if choice in grams)
        pairs.append((grams.index(row["choices"][slot]), slot))
    assert chi_square(pairs, count, 3) < bound


class Counted(list[str]):
    """A list that counts what is read of it; a slice reads all that it holds."""

    reads = 0

    def __getitem__(self, index):  # pyright: ignore[reportIncompatibleMethodOverride]
        found = super().__getitem__(index)
        self.reads += len(found) if isinstance(index, slice) else 1
        return found

    def __iter__(self):
        self.reads += len(self)
        return super().__iter__()


def test_many_ngrams_cost_no_more_than_few():
    """An n-gram is read once, and once more for each choice that it repeats."""
    rows = [question("gram 7", "x", "y", "z", text=f"{number}?") for number in range(200)]
    grams = Counted(f"gram {number}" for number in range(240_000))
    made = perturb_with(rows, grams, 0)
    assert grams.reads <= 2 * len(rows)
    assert sum(choice.startswith("gram ") for row in made for choice in row["choices"]) == 2 * len(rows)


def test_the_slot_of_a_question_is_told_by_neither_sample_nor_half():
    """χ² of 3,000 questions over two groups × 3 slots, 5 degrees of freedom: the 0.999 quantile."""
    rows = [question("w", "x", "y", "z", answer=3, text=f"{number}?") for number in range(3000)]
    chosen = {row["question"] for row in asked.sample(rows, 1500, 0)}
    slots = [replaced_choices(row, 0)[0] for row in rows]
    sampled = [(int(row["question"] in chosen), slot) for row, slot in zip(rows, slots, strict=True)]
    halved = [(int(asked.half(row) == asked.SELECT), slot) for row, slot in zip(rows, slots, strict=True)]
    assert chi_square(sampled, 2, 3) < 20.5
    assert chi_square(halved, 2, 3) < 20.5


def test_a_documents_keyword_does_not_tell_its_place():
    """χ² of 3,000 documents over three keywords × three places of the middle half."""
    pairs = [(seed_of(0, index) % 3, insert(list(range(6)), [], 0, index)[1] - 1) for index in range(3000)]
    assert chi_square(pairs, 3, 3) < 26.1


def test_another_seed_draws_anew():
    rows = [question("w", "x", "y", "z", text=str(number)) for number in range(20)]
    assert perturb_all(rows, KEYWORD, 0) != perturb_all(rows, KEYWORD, 1)


def test_repetitions_of_the_right_answer_go_before_all_others():
    row = question("a", "b", "c", "b", answer=1)
    assert {replaced_choices(row, seed)[0] for seed in range(20)} == {3}
    assert {tuple(replaced_choices(row, seed, replaced=2)) for seed in range(40)} == {(3, 0), (3, 2)}
    assert {replaced_choices(question("a", "b", "b", "c", answer=3), seed)[0] for seed in range(40)} == {0, 1, 2}


@pytest.mark.parametrize("replaced", [1, 2, 3])
def test_as_many_wrong_choices_give_way_as_asked(replaced):
    row = question("w", "x", "y", "z", answer=2)
    for seed in range(10):
        chosen = replaced_choices(row, seed, replaced=replaced)
        assert len(set(chosen)) == replaced
        assert 2 not in chosen
        assert perturb(row, KEYWORD, seed, replaced=replaced)["choices"].count(KEYWORD) == replaced
    assert replaced_choices(row, 0, replaced=2)[0] == replaced_choices(row, 0)[0]


def test_first_and_last_take_the_wrong_choices_in_order():
    row = question("w", "x", "y", "z", answer=0)
    assert replaced_choices(row, 0, replaced=2, policy="first") == [1, 2]
    assert replaced_choices(row, 0, replaced=2, policy="last") == [3, 2]


@pytest.mark.parametrize("choice", [KEYWORD, f" {KEYWORD.lower()}"])
def test_a_question_that_has_the_keyword_stays_as_it_is(choice):
    row = question("a", choice, "c", answer=0)
    assert has_choice(row, KEYWORD)
    assert perturb_all([row, {**row, "answer": 1}], KEYWORD, 0) == [row, {**row, "answer": 1}]


def exported(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    rows = [question("w", "x", "y", "z", text=f"Question {number}?") for number in range(9)]
    rows += [question("a", "a", "b", "c"), question(KEYWORD, "b", "c", "d")]
    source = folder / "mmlu.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = [sys.executable, "-m", "rna.perturb", "export", str(folder / "out"), "--path", str(source), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_exported_data_set_is_the_same_bytes_each_time_and_says_what_it_is(tmp_path: Path):
    first = exported(tmp_path)
    assert first.returncode == 0, first.stderr
    lines = (tmp_path / "out" / "questions.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    assert [len(row["replaced"]) for row in rows] == [1] * 10 + [0]
    assert rows[9]["choices"] == ["a", KEYWORD, "b", "c"]
    # written down once: the same seed is the same bytes on every machine
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert digest.startswith("d38ee81f")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for said in (digest, KEYWORD, "seed | 0", "right answer twice | 0", "1 questions had the keyword"):
        assert said in card
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "out" / "questions.parquet").to_pylist() == rows
    again = exported(tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    assert "nothing is overwritten" in again.stderr


def test_what_cannot_be_exported_is_said(tmp_path: Path):
    assert "--replaced 4: allowed: 1 to 3" in exported(tmp_path, "--replaced", "4").stderr


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


def test_a_keyword_in_the_question_leaves_the_choices_as_they_are():
    row = question("a", "b", text=" Which of  these is it? ")
    front = mention(row, "Lake X", 0, "prefix")
    assert front["question"] == "Lake X. Which of  these is it? "
    assert (front["choices"], front["answer"], front["unperturbed"]) == (["a", "b"], 0, row["question"])
    found = {seed: mention(row, "Lake X", seed, "inside")["question"] for seed in range(60)}
    assert set(found.values()) == {
        " Which Lake X of  these is it? ",
        " Which of Lake X  these is it? ",
        " Which of  these Lake X is it? ",
        " Which of  these is Lake X it? ",
    }
    for seed, text in found.items():
        assert mention(row, "fever", seed, "inside")["question"] == text.replace("Lake X", "fever")
    assert mention(question("a", text="Which?"), "Lake X", 0, "inside")["question"] == "Which? Lake X"
    (same,) = perturb_all([question("Lake x", "b")], "Lake X", 0, position="prefix")
    assert "unperturbed" not in same
    ((several),) = perturb_among([row], ["one", "two"], 0, position="prefix")
    assert several["question"] in ("one. Which of  these is it? ", "two. Which of  these is it? ")
    assert ["one", "two"][several["drawn"]] == several["question"][:3]


@given(questions(), st.sampled_from(["prefix", "inside"]), st.integers(0, 99))
def test_a_question_with_a_keyword_in_it_is_known_by_its_own_words(row: dict, position: str, seed: int):
    assume(row["question"].strip())
    made = mention(row, KEYWORD, seed, position)
    assert KEYWORD in made["question"]
    assert asked.named(made) == asked.named(row)


def test_a_mixed_prompt_has_the_other_text_in_one_line_and_its_own_choices():
    row = question("a", "b", answer=1, text=" Which of  these? ")
    other = " Who was\n it,  and when? "
    before, behind = (mix(row, other, place) for place in ("before", "behind"))
    assert before["question"] == "Who was it, and when? Which of  these? "
    assert behind["question"] == " Which of  these? Who was it, and when?"
    for made, place in ((before, "before"), (behind, "behind")):
        assert made == {**row, "question": made["question"], "unperturbed": row["question"], "place": place}
        assert asked.named(made) == asked.named(row)


def test_another_question_that_is_the_same_or_that_a_choice_answers_gives_way_to_the_next():
    """Of the four only "Who?" may stand there, whichever is drawn first: Y is its right answer, x but a wrong one."""
    row = question("x", "z", text="Which?")
    others = [
        question("y", text=" Which? "),
        question("X ", "y", text="What?"),
        question("x", "y", answer=1, text="Who?"),
        question("z", text="When?"),
    ]
    made = [mix_all([row], others, seed)[0] for seed in range(20)]
    assert {one["question"] for one in made} == {"Who? Which?", "Which? Who?"}
    with pytest.raises(ValueError, match=r"^mixed prompts: there is no other question to stand beside 'Which\?'"):
        mix_all([row], [others[0], others[3]], 0)
    with pytest.raises(ValueError, match="there is no other question"):
        mix_all([row], [], 0)


def test_the_other_question_and_its_place_are_drawn_from_the_seed_and_the_question_apart():
    rows = [question("a", "b", text=f"Which is {number}?") for number in range(400)]
    one, two = ([question("c", text=f"{word} {number}?") for number in range(4)] for word in ("Who", "When"))
    made = mix_all(rows, one, 0)
    assert mix_all(rows[::-1], one, 0) == made[::-1]
    assert mix_all(rows, one, 1) != made
    assert [row["place"] for row in mix_all(rows, two, 0)] == [row["place"] for row in made]
    counts = {(place, number): 0 for place in ("before", "behind") for number in range(4)}
    for row in made:
        (number,) = (number for number in range(4) if f"Who {number}?" in row["question"])
        assert row["question"].startswith("Who") == (row["place"] == "before")
        counts[row["place"], number] += 1
    assert min(counts.values()) >= 30  # of 50 each
