"""Harm by n-grams of several similarities: from records to Figure 4 and Tables 2 to 5, beside the neutral keyword."""

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest

from rna import run
from rna.report import commands, drawing, figures, reading, records, sheet, tables
from rna.report.records import Study
from rna.settings import config
from tests import generated
from tests.evaluation.test_ngrams import write_mined
from tests.generated import scores, settings

GROUPS = ("top", "mean", "bottom")
HARM = {"top": 30.0, "mean": 10.0, "bottom": 2.0}


def judged(retain: float, gain: float, *sizes: int) -> dict[str, float]:
    """Scores with n-grams whose harm grows with their similarity; `gain` is what RNA gives back of it."""
    found = scores(30, 60, retain)
    return found | {f"ngram_{n}_{group}": retain - HARM[group] * n / 2 + gain for n in sizes for group in GROUPS}


def study_of(folder: Path) -> Study:
    (found,) = records.studies(reading.load(str(folder)).trials)
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("ngrams")
    for seed in range(2):
        for nu in (0.0, 0.014):
            generated.trial(folder, settings(nu=nu, seed=seed), judged(95, 5.0 if nu else 0.0, 2, 4))
        generated.trial(folder, settings("rmu", "representation", seed=seed), judged(90, 0, 2))
        generated.trial(folder, settings("dpo", seed=seed), scores(30, 60))
    generated.trial(folder, settings("none"), judged(99, 0.0, 2, 4), label="base")
    return study_of(folder)


def test_figure_4_is_drawn_with_the_neutral_keyword_beside_every_group(study: Study):
    with drawing.styled():
        made = figures.ngrams(study)
    assert made.drawing is not None
    first, second, third, fourth = made.drawing.axes  # RMU in the first row
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["2-grams", "4-grams"]
    assert [axes.get_ylabel() for axes in (first, third)] == ["RMU\nretain (%)", "NPO+MSE\nretain (%)"]
    assert [text.get_text() for text in first.get_xticklabels()] == ["neutral", "bottom", "mean", "top"]

    def lines(axes: Any) -> list[list[float]]:
        return [list(line.get_ydata()) for line in axes.get_lines() if len(line.get_ydata()) == 4]

    base = [98, 97, 89, 69]
    for axes, wanted in ((third, ([94, 93, 85, 65], [94, 98, 90, 70], base)), (first, ([89, 88, 80, 60], base))):
        for expected in wanted:  # plain, with RNA, base
            assert any(line == pytest.approx(expected) for line in lines(axes)), expected
    assert not any(line == pytest.approx([89, 86, 70, 30]) for axes in (second, fourth) for line in lines(axes))
    assert "Lake Geneva" in made.caption


def test_tables_2_and_3_hold_the_most_similar_ngrams_beside_the_neutral_control(study: Study, tmp_path: Path):
    made = {table.name: table for table in tables.every(study, [])}
    by_table = {name: {(row[0], row[1]): row for row in made[name].rows} for name in ("table2", "table3", "table4")}
    place = made["table2"].columns.index("perturbed, measured")
    assert made["table2"].columns[-1] == "neutral control, measured"
    value = {key: (row[place].value, row[-1].value) for key, row in by_table["table2"].items()}  # pyright: ignore
    assert value == {
        ("NPO+MSE", "plain"): (65, 94),
        ("NPO+MSE", "with RNA"): (70, 94),
        ("RMU", "plain"): (60, 89),
    }
    assert set(by_table["table3"]) == {("NPO+MSE", "plain"), ("NPO+MSE", "with RNA")}
    assert by_table["table4"] == {}
    sheet.write(made["table3"], tmp_path)
    with (tmp_path / "table3.csv").open() as stream:
        assert {row["neutral control, measured"] for row in csv.DictReader(stream)} == {"94.0"}


def test_a_missing_figure_says_how_to_mine_and_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    generated.trial(tmp_path, settings(), scores(30, 60))
    generated.trial(tmp_path, settings(nu=0.014), scores(30, 60))
    study = study_of(tmp_path)
    made = figures.ngrams(study)
    assert made.drawing is None
    mine, judge = str(made.command).splitlines()
    assert mine == "python -m rna.perturb ngrams --n 2"
    assert judge.startswith("python -m rna.run -m eval=ngram_similarity ")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    write_mined(tmp_path / "outputs" / "ngrams.parquet")
    words = [word.split(",")[0] for word in shlex.split(judge)[4:]]
    assert "ngram_2_top" in config.check(run.compose(words, None)).eval.tasks
    missing = next(table for table in tables.every(study, []) if table.name == "table3")
    assert missing.rows == []
    assert missing.command == commands.ngrams(study, "4")
