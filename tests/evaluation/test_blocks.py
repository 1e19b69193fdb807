"""The select half in blocks: each question once, each subject by its share, and answers as in a whole evaluation."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from rna.evaluation import blocks, evaluate
from rna.evaluation.questions import SELECT, SUBJECTS
from rna.settings import compose, config


def rows(count: int) -> list[dict[str, Any]]:
    made = [
        {"question": f"What is {number}?", "subject": SUBJECTS[number % 57], "choices": list("abcd"), "answer": 0}
        for number in range(count)
    ]
    return [{**row, "half": SELECT if number % 2 else "report"} for number, row in enumerate(made)]


@pytest.mark.parametrize(("population", "of"), [(0, 1), (1, 1), (24, 1), (49, 2), (100, 3), (7021, 9)])
def test_blocks_double_and_hold_each_question_once(population: int, of: int):
    assert blocks.count(population) == of
    found = [blocks.block(number, of, population) for number in range(of)]
    assert [rank for one in found for rank in one] == list(range(population))
    for before, after in itertools.pairwise(found[1:]):
        assert abs(len(after) - 2 * len(before)) <= 2  # each end is rounded


def test_a_small_task_beside_a_large_one_is_asked_from_the_first_block_on():
    found = [len(blocks.block(number, 9, 5)) for number in range(9)]
    assert found[0] == 1
    assert sum(found) == 5


def test_each_subject_has_its_share_of_every_beginning():
    made = rows(4000)
    order = blocks.population(made, None, leave_out=False)
    assert sorted(order) == [place for place, row in enumerate(made) if row["half"] == SELECT]
    whole = Counter(made[place]["subject"] for place in order)
    for end in (125, 250, 500, 1000):
        seen = Counter(made[place]["subject"] for place in order[:end])
        for subject, count in whole.items():
            assert abs(seen[subject] - count * end / len(order)) <= 1, (end, subject)


def test_a_question_keeps_its_rank_when_wrong_choices_are_replaced():
    made = rows(300)
    perturbed = [{**row, "choices": ["a", "ague", "c", "d"]} for row in made]
    assert blocks.population(made, None, leave_out=False) == blocks.population(perturbed, None, leave_out=False)


def test_only_the_subjects_that_are_asked_for_count():
    made = rows(300)
    order = blocks.population(made, [SUBJECTS[1]], leave_out=False)
    assert {made[place]["subject"] for place in order} == {SUBJECTS[1]}


@pytest.mark.whole
def test_tasks_of_few_questions_are_asked_too_and_those_of_none_refused(demo: Any):
    (decoder, tokenizer), options = demo, config.check(compose(["eval.limit=4"], None)).eval
    few = {
        name: replace(task, subjects=["herbs"]) if name == "related" else task for name, task in options.tasks.items()
    }
    made = evaluate.answer_block(decoder, tokenizer, ["perturbed"], options, 0, lambda *_: None)
    assert 1 <= made["tasks"]["perturbed"]["n"] == made["tasks"]["perturbed"]["population"] <= 4
    with pytest.raises(ValueError, match=r"eval\.race=true: related has no question on the select half"):
        evaluate.answer_block(decoder, tokenizer, ["related"], replace(options, tasks=few), 0, lambda *_: None)


@pytest.mark.whole
def test_all_blocks_together_are_the_select_half_of_the_whole_evaluation(demo: Any):
    (decoder, tokenizer), options = demo, config.check(compose([], None)).eval
    names = ["perturbed", "forget_bio", "related"]
    whole = evaluate.multiple_choice(decoder, tokenizer, names, options, lambda *_: None)
    first = evaluate.answer_block(decoder, tokenizer, names, options, 0, lambda *_: None)
    found = [first] + [
        evaluate.answer_block(decoder, tokenizer, names, options, number, lambda *_: None)
        for number in range(1, first["of"])
    ]
    for name in names:
        told = [one["tasks"][name] for one in found]
        assert sum(one["n"] for one in told) == told[0]["population"] == whole[name][SELECT]["n"]
        right = sum(int(one["correct"] or "0", 16).bit_count() for one in told)
        assert right / told[0]["population"] == whole[name][SELECT]["acc"]
    assert len({one["tasks"]["perturbed"]["asked"] for one in found}) == first["of"]
