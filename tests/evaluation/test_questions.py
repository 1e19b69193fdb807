"""Questions: what is read and refused, the halves, the samples, and the prompt's words."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rna import perturb
from rna.evaluation import questions
from rna.evaluation.questions import CATEGORIES, SUBJECTS
from tests import shared


def row(number: int = 0, subject: str = "anatomy", **changes: Any) -> dict[str, Any]:
    choices = [f"{letter}{number}" for letter in "wxyz"]
    return {"question": f"Which is {number}?", "subject": subject, "choices": choices, "answer": number % 4, **changes}


def written(path: Path, *rows: Any) -> str:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return str(path)


def test_jsonl_and_parquet_give_the_same_questions(tmp_path: Path):
    rows = [row(number) for number in range(5)]
    found = [
        questions.read_questions(written(tmp_path / name, *rows), "eval.mmlu_path") for name in ("a.jsonl", "a.parquet")
    ]
    assert found[0] == found[1]
    assert [one["answer"] for one in found[0]] == [0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": 4}, r"a.jsonl, line 2: answer=4: must be 0 to 3"),
        ({"answer": "A"}, r"line 2: answer='A': must be 0 to 3"),
        ({"answer": True}, r"line 2: answer=True"),
        ({"choices": ["a", "b", "c"]}, r"line 2: choices=.*must be 4 texts"),
        ({"choices": ["a" * 10**6, "b", "c"]}, r"line 2: choices=\['a{150,200}: must be 4 texts"),
        ({"question": ["a" * 10**6]}, r"line 2: question=\['a{150,200}: must be text"),
        ({"choices": ["", "b", "c", "d"], "answer": 0}, r"the right one is empty"),
        ({"question": " "}, r"question=' ': must be text"),
        ({"subject": None}, r"subject=None: must be text"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused_by_file_and_line(tmp_path: Path, changes: dict[str, Any], message: str):
    path = written(tmp_path / "a.jsonl", row(), row(1, **changes))
    with pytest.raises(ValueError, match=message) as caught:
        questions.read_questions(path, "eval.mmlu_path")
    assert str(caught.value).startswith(f"eval.mmlu_path={path}: ")


def test_a_missing_column_bad_utf8_and_nothing_at_all_are_named(tmp_path: Path):
    without = {key: value for key, value in row().items() if key != "answer"}
    with pytest.raises(ValueError, match=r"line 1 has no text field 'answer' \(found: choices, question, subject\)"):
        questions.read_questions(written(tmp_path / "a.jsonl", without), "eval.mmlu_path")
    (tmp_path / "b.jsonl").write_bytes('{"question": "caf\xe9"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"b.jsonl is not UTF-8"):
        questions.read_questions(str(tmp_path / "b.jsonl"), "eval.mmlu_path")
    (tmp_path / "c.jsonl").touch()
    with pytest.raises(ValueError, match=r"holds no question"):
        questions.read_questions(str(tmp_path / "c.jsonl"), "eval.mmlu_path")


def test_what_the_hub_has_and_we_have_not_is_said_with_where_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"eval.mmlu_path=cais/mmlu-not-here: .*huggingface.co/datasets/cais/mmlu-not"):
        questions.of_source("mmlu", "cais/mmlu-not-here", None)


def test_odd_choices_are_counted():
    rows = [
        row(0, choices=["a", "a", "b", "c"], answer=0),
        row(1, choices=["a", "b", "b", "c"], answer=0),
        row(2, choices=["a", "", "b", "c"], answer=0),
        row(3),
    ]
    assert questions.faults(rows) == {"repeated_answer": 1, "repeated_choice": 1, "empty_choice": 1}


@pytest.mark.parametrize(
    ("right", "speaks"),
    [
        *((right, True) for right in ("All of the above", "all of above.", "Moons contribute to all of the above.")),
        *((right, True) for right in ("both a and b.", "Both (a) and (c)", "either (a) or (b)", "A and B only")),
        *((right, True) for right in ("A B and C", "B & D", "all of these", "all three structures.", "Both")),
        ("a combination of these three processes.", True),
        *((right, False) for right in ("None of the above", "neither a nor b.", "A", "b", "a base pair", "A cad")),
        *((right, False) for right in ("both a core and a crust", "All that is above all", "in front and above it")),
        *((right, False) for right in ("common to all first principles.", "Neither of these", "a combination of both")),
    ],
)
def test_a_right_answer_that_speaks_of_other_choices_is_known_before_and_after_a_perturbation(right, speaks):
    made = row(3, choices=["a thing", "B and C", "c", right])
    assert questions.of_above(made) is speaks
    assert questions.of_above(perturb.perturb(made, "SARS-CoV-2", 0, replaced=3)) is speaks


def test_letters_that_the_question_names_are_not_the_choices():
    assert not questions.of_above(row(0, question="Of vitamins A, B and D: which?", choices=["B and D", "A", "B", "D"]))
    assert questions.of_above(row(0, question="A cow has", choices=["B and D", "a head", "a tail", "a hoof"]))
    cow = row(0, question="A cow has", choices=["B and D", "a head", "a tail", "a hoof"])
    assert questions.of_above(perturb.mix(cow, "Of vitamins A, B and D: which?", "before"))


def test_halves_are_about_equal_and_do_not_depend_on_order_or_place():
    rows = [row(number) for number in range(400)]
    halves = [questions.half(one) for one in rows]
    assert 160 < Counter(halves)["select"] < 240
    assert [questions.half(one) for one in reversed(rows)] == halves[::-1]
    assert halves[:8] == ["select", "report", "report", "report", "report", "select", "report", "report"]


def test_a_sample_takes_each_subject_by_its_share_and_the_same_each_time():
    rows = [row(number, subject) for subject, count in (("a", 60), ("b", 30), ("c", 10)) for number in range(count)]
    chosen = questions.sample(rows, 20, seed=0)
    assert Counter(one["subject"] for one in chosen) == {"a": 12, "b": 6, "c": 2}
    assert questions.sample(rows, 20, seed=0) == chosen
    assert questions.sample(rows, 20, seed=1) != chosen
    assert [rows.index(one) for one in chosen] == sorted(rows.index(one) for one in chosen)
    assert questions.sample(rows, 7, seed=0) == [one for one in rows if one in questions.sample(rows, 7, seed=0)]
    assert len(questions.sample(rows, 7, seed=0)) == 7
    assert questions.sample(rows, None, seed=0) == rows == questions.sample(rows, 1000, seed=0)


def test_the_prompt_is_mmlus():
    asked = questions.prompt(row(1, "college_biology", question=" Which? "))
    assert asked == (
        "The following are multiple choice questions (with answers) about college biology.\n\n"
        "Which?\nA. w1\nB. x1\nC. y1\nD. z1\nAnswer:"
    )


def test_the_prompts_and_categories_are_lm_evals_own():
    """Against the task files of lm-eval itself: subjects, categories and the words before each question."""
    import lm_eval
    import yaml

    folder = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    found: dict[str, set[str]] = {category: set() for category in CATEGORIES}
    for file in folder.glob("mmlu_*.yaml"):
        task = yaml.safe_load(file.read_text())
        found[str(task["tag"]).removeprefix("mmlu_").removesuffix("_tasks")].add(task["dataset_name"])
        assert questions.prompt(row(0, task["dataset_name"])).startswith(task["description"])
    assert found == {category: set(subjects) for category, subjects in CATEGORIES.items()}
    assert len(SUBJECTS) == 57
    template = yaml.safe_load((folder / "_default_template_yaml").read_text())["doc_to_text"]
    assert template == (
        "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
    )


def test_every_subject_has_a_perturbed_task():
    from rna.settings.fields import TASKS

    assert {file.stem.removeprefix("mmlu_perturbed_") for file in TASKS.glob("paper/mmlu_perturbed_*.yaml")} == set(
        SUBJECTS
    )


@shared.needed
def test_real_mmlu_reads_whole():
    rows = questions.read_questions(str(shared.MMLU), "eval.mmlu_path")
    assert len(rows) == 2584
    assert len({one["subject"] for one in rows}) == 12
    assert questions.faults(rows) == {"repeated_answer": 0, "repeated_choice": 0, "empty_choice": 0}
    assert sum(map(questions.of_above, rows)) == 47
