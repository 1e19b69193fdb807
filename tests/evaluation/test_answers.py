"""An evaluation that is interrupted goes on where it was, and ends as one that was not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run, trial
from rna.evaluation import answers, evaluate, score
from rna.evaluation.answers import Answers
from rna.settings import config
from rna.store import results


class Killed(Exception):
    pass


CHOICE = ("eval.limit=24", "eval.batch_size=4")
PERPLEXITY = ("eval=perplexity", "data.holdout=0.1", "eval.max_documents=8")


def arm(folder: Path, words: tuple[str, ...]) -> trial.Arm:
    composed = run.compose(["method=none", "wandb=disabled", f"output_dir={folder}", *words], None)
    return trial.arm("base", config.check(composed))


def metrics(row: trial.Arm) -> dict[str, Any]:
    return {name: record["metrics"] for name, record in row.evaluated.items()}


@pytest.mark.whole
@pytest.mark.parametrize("words", [CHOICE, PERPLEXITY])
def test_what_was_answered_is_not_asked_again_and_changes_no_bit(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = arm(tmp_path / "whole", words)
    trial.work(whole, lambda *_: None)
    asked: list[int] = []
    for module, name in ((score, "last_log_probs"), (evaluate, "token_losses")):
        before = getattr(module, name)

        def counted(*arguments: Any, before: Any = before, **more: Any) -> Any:
            asked.append(1)
            return before(*arguments, **more)

        monkeypatch.setattr(module, name, counted)

    def killed(phase: str, done: int, total: int) -> None:
        if phase == "evaluating" and done >= total / 2:
            raise Killed

    row = arm(tmp_path / "o", words)
    with pytest.raises(Killed):
        trial.work(row, killed)
    before_it = len(asked)
    assert results.answers_path(str(tmp_path / "o"), row.key).is_file()
    assert not row.evaluated
    row = arm(tmp_path / "o", words)
    trial.work(row, lambda *_: None)
    whole_again = arm(tmp_path / "again", words)
    between = len(asked)
    trial.work(whole_again, lambda *_: None)
    assert between == len(asked) - between  # the two halves asked as much as the whole
    assert 0 < before_it < between
    assert metrics(row) == metrics(whole) == metrics(whole_again)
    assert not results.answers_path(str(tmp_path / "o"), row.key).exists()


def test_answers_to_other_questions_are_left_alone(demo: Any, tmp_path: Path):
    kept = Answers(tmp_path / "a.json")
    decoder = demo[0]
    first = score.score(decoder, [(5, 6, 7)], {(5, 6, 7): {8, 9}}, 1, lambda *_: None, answers=kept)
    kept.keep()
    again = score.score(
        decoder, [(5, 6, 7)], {(5, 6, 7): {8, 9}}, 1, lambda *_: None, answers=Answers(tmp_path / "a.json")
    )
    other = score.score(
        decoder, [(5, 6, 8)], {(5, 6, 8): {8, 9}}, 1, lambda *_: None, answers=Answers(tmp_path / "a.json")
    )
    assert first == again
    assert set(other) == {((5, 6, 8), 8), ((5, 6, 8), 9)}
    assert torch.isfinite(torch.tensor([value for value, _ in other.values()])).all()


def test_half_a_file_is_none_and_writes_come_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "trial" / "answers.json"
    file.parent.mkdir()
    file.write_text('{"a": [1, 2')
    kept = Answers(file)
    assert kept.of("a") == []
    monkeypatch.setattr(answers, "EVERY", 1e9)
    kept.add("a", 3)
    assert file.read_text() == '{"a": [1, 2'
    monkeypatch.setattr(answers, "EVERY", -1.0)
    kept.add("a", 4)
    assert json.loads(file.read_text()) == {"a": [3, 4]}
    kept.clear()
    assert not file.parent.exists()


def test_a_folder_that_cannot_be_written_costs_no_evaluation(tmp_path: Path):
    (tmp_path / "file").write_text("")
    kept = Answers(tmp_path / "file" / "answers.json")
    kept.add("a", 1)
    kept.keep()
    assert kept.of("a") == [1]
