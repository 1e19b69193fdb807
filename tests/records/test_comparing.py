"""Two trials side by side: what sets them apart, and their scores, paired where the records allow it and only there."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rna.records import comparing
from rna.records.__main__ import main
from rna.settings import ModelSettings
from tests import generated
from tests.generated import N, record, scores, settings


def written(folder: Path, made: Any, **right: int) -> str:
    """A trial of which each task's first so many questions were right, as its record says."""
    trained = record(made)
    judged = []
    for task, count in right.items():
        bits = int("1" * count + "0" * (N - count), 2)
        judged.append(generated.evaluation(trained, task, count / N, more={"correct": f"{bits:0{N // 4}x}"}))
    generated.write(folder, trained, *judged)
    return trained["key"]


def test_settings_that_differ_stand_under_their_dotted_names_and_no_others(tmp_path: Path):
    one = written(tmp_path, settings(), retain=300)
    other = written(tmp_path, settings(nu=0.014, seed=1), retain=300)
    found = comparing.compare(str(tmp_path), one[:6], other[:6])
    assert found.keys == (one, other)
    assert found.settings == {
        "noise.name": ("none", "rna"),
        "noise.nu": (0.0, 0.014),
        "noise.layers": ([], [2]),
        "seed": (0, 1),
    }
    assert found.titles == (f"{one[:6]} NPO+MSE, seed 0", f"{other[:6]} NPO+MSE ν 0.014, seed 1")


def test_the_difference_is_paired_over_the_same_questions(tmp_path: Path):
    """The first 300 and the first 320 of 400 right: 20 changed, none back; by Bonett and Price's formula, by hand."""
    one, other = written(tmp_path, settings(), retain=300), written(tmp_path, settings(nu=0.014), retain=320)
    (score,) = comparing.compare(str(tmp_path), one, other).scores
    up, down = 21 / (N + 2), 1 / (N + 2)
    margin = 1.959964 * math.sqrt((up + down - (up - down) ** 2) / (N + 2))
    assert (score.first, score.second, score.paired) == (75.0, 80.0, True)
    assert score.note == f"paired over {N} questions"
    assert score.change is not None
    assert score.change.value == pytest.approx(5.0)
    assert score.change.low == pytest.approx(100 * (up - down - margin), abs=0.01)
    assert score.change.high == pytest.approx(100 * (up - down + margin), abs=0.01)
    back = comparing.compare(str(tmp_path), other, one).scores[0].change
    assert back is not None
    assert back.value == -score.change.value


def test_where_pairing_is_impossible_the_interval_is_wider_and_the_reason_told(tmp_path: Path):
    one = written(tmp_path, settings(), retain=300)
    other = generated.trial(tmp_path, settings(nu=0.014), {"retain": 80.0})  # without a bit for each question
    (score,) = comparing.compare(str(tmp_path), one, other).scores
    margin = 1.959964 * math.hypot(*(100 * math.sqrt(p * (1 - p) / (N - 1)) for p in (0.75, 0.8)))
    assert not score.paired
    assert score.note == "not paired: the records do not say which questions were right"
    assert score.change is not None
    assert score.change.low == pytest.approx(5 - margin, abs=0.1)


def test_other_questions_are_never_paired(tmp_path: Path):
    one = written(tmp_path, settings(), perturbed=300, retain=300)
    other = written(tmp_path, settings(nu=0.014, keyword="plague"), retain=320)
    trained = record(settings(nu=0.014, keyword="plague"))
    correct = {"correct": f"{int('1' * 320 + '0' * 80, 2):0100x}"}
    generated.write(tmp_path, generated.evaluation(trained, "perturbed", 0.8, keyword="plague", more=correct))
    found = {score.name: score for score in comparing.compare(str(tmp_path), one, other).scores}
    assert found["retain"].paired
    assert not found["perturbed"].paired
    assert found["perturbed"].note == "not paired: judged differently (keyword marsh fevers / plague)"
    margin = 1.959964 * math.hypot(*(100 * math.sqrt(p * (1 - p) / (N - 1)) for p in (0.75, 0.8)))
    change = found["perturbed"].change
    assert change is not None
    assert change.high == pytest.approx(5 + margin, abs=0.1)


def test_a_role_of_several_tasks_is_their_mean(tmp_path: Path):
    one = written(tmp_path, settings(), forget_bio=100, forget_cyber=200)
    other = written(tmp_path, settings(nu=0.014), forget_bio=140, forget_cyber=200)
    bio, cyber, mean = comparing.compare(str(tmp_path), one, other).scores
    assert (bio.name, cyber.name, mean.name) == ("forget_bio", "forget_cyber", "forget")
    assert (mean.first, mean.second, mean.paired) == (37.5, 42.5, True)
    assert mean.change is not None
    assert bio.change is not None
    assert bio.change.high is not None
    assert mean.change.high is not None
    assert mean.change.value == pytest.approx(5.0)
    margins = [(part.change.high or 0) - part.change.value for part in (bio, cyber) if part.change is not None]
    assert mean.change.high - 5 == pytest.approx(math.hypot(*margins) / 2)


def test_what_one_alone_was_judged_on_has_no_difference(tmp_path: Path, called: Callable[..., str]):
    one, other = written(tmp_path, settings(), retain=300), written(tmp_path, settings(nu=0.014), perturbed=300)
    found = {score.name: score for score in comparing.compare(str(tmp_path), one, other).scores}
    assert [found[name].change for name in ("retain", "perturbed")] == [None, None]
    printed = called(main, "compare", one, other, "--output-dir", str(tmp_path))
    assert "retain, perturbed: only one was judged on it" in printed


def test_a_mistake_is_one_line(tmp_path: Path, called: Callable[..., str]):
    one = written(tmp_path, settings(), retain=300)
    where = ["--output-dir", str(tmp_path)]
    assert f"error: KEY={one[:5]}: the same trial as KEY={one}" in called(main, "compare", one, one[:5], *where, code=2)
    assert "error: KEY=zzzz: no trial of that key" in called(main, "compare", one, "zzzz", *where, code=2)
    (tmp_path / "trials" / "0123456789abcdef").mkdir(parents=True)
    assert "has no record of a finished training" in called(main, "compare", one, "0123", *where, code=2)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_long_settings_are_shortened_and_no_line_is_too_wide(
    tmp_path: Path, called: Callable[..., str], width: int, monkeypatch: pytest.MonkeyPatch
):
    made, far = settings(), settings(nu=0.014)
    far.model = ModelSettings(name="demo", path=f"/home/{'very/' * 30}base", unlearn_layer=2, num_layers=4)
    one, other = written(tmp_path, made, retain=300), written(tmp_path, far, retain=310)
    monkeypatch.setenv("COLUMNS", str(width))
    printed = called(main, "compare", one, other, "--output-dir", str(tmp_path)).splitlines()
    assert all(len(line) <= width for line in printed)
    assert any(line.startswith("model.path") and line.endswith("very/base") and "…" in line for line in printed)
    whole = json.loads(called(main, "compare", one, other, "--output-dir", str(tmp_path), "--json"))
    assert whole["settings"]["model.path"][1] == far.model.path


def test_equal_settings_are_said_to_be_equal(tmp_path: Path, called: Callable[..., str]):
    one = generated.trial(tmp_path, settings(), scores(30, 40))
    again = record(settings()) | {"key": f"{one}.r2"}
    (tmp_path / "results" / f"{one}.r2.json").write_text(json.dumps(again, indent=1))
    printed = called(main, "compare", one, f"{one[:6]}.r2", "--output-dir", str(tmp_path))
    assert "no setting differs" in printed
