"""A report says what the records say: like beside like, paired by seed, with intervals, and nothing made up."""

import csv
import itertools
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rna import intervals, run
from rna.intervals import Estimate, answers
from rna.report import (
    commands,
    compare,
    drawing,
    figures,
    importance,
    lines,
    matching,
    page,
    reading,
    records,
    sheet,
    tables,
    verdicts,
)
from rna.report.__main__ import main, report
from rna.report.records import Filters
from rna.settings import config
from rna.store import results
from rna.sweep import ledger
from tests import generated
from tests.evaluation.test_ngrams import write_mined
from tests.generated import scores, settings

# Matched forgetting


def line(*points: tuple[float, float]) -> matching.Line:
    return [(float(forget), float(retain)) for forget, retain in points]


def score(percent: float, asked: str, n: int = 100) -> intervals.Score:
    """The first questions are right, of every setting the same."""
    right = round(percent * n / 100)
    bits = "1" * right + "0" * (n - right)
    stderr = 100 * math.sqrt(right * (n - right) / n**2 / (n - 1))
    return intervals.Score(100 * right / n, stderr, n, f"{int(bits, 2):x}", asked)


def curve(*points: tuple[float, float], asked: str = "") -> matching.Curve:
    return [
        matching.Point([(1.0, score(forget, f"forget{asked}"))], [(1.0, score(retain, f"retain{asked}"))])
        for forget, retain in points
    ]


def test_the_area_between_two_lines():
    """10 points apart over a width of 20: area 200. The order of the points does not matter."""
    made = matching.gap(line((40, 80), (20, 60), (30, 70)), line((20, 50), (40, 70)))
    assert made is not None
    assert (made.area, made.mean, made.low, made.high) == pytest.approx((200, 10, 20, 40))


def test_the_area_is_taken_where_both_curves_are():
    """RNA at 60 from 20 to 40, plain from (30, 40) to (50, 60): 20 apart at 30, 10 at 40, so 15 on average."""
    made = matching.gap(line((20, 60), (40, 60)), line((30, 40), (50, 60)))
    assert made is not None
    assert (made.area, made.mean, made.low, made.high) == pytest.approx((150, 15, 30, 40))


def test_curves_that_cross_cancel():
    made = matching.gap(line((20, 50), (30, 60), (40, 50)), line((20, 55), (40, 55)))
    assert made is not None
    assert made.mean == pytest.approx(0)


def test_curves_without_a_common_forget_score_have_no_area():
    assert matching.gap(line((20, 60), (30, 60)), line((40, 40), (50, 60))) is None
    assert matching.matched([(curve((20, 60), (30, 60)), curve((40, 40), (50, 60)))]) is None


def test_matched_forgetting_over_seeds_is_a_t_interval():
    pairs = [(curve((20, 50 + gain), (40, 70 + gain)), curve((20, 50), (40, 70))) for gain in (1.0, 2.0, 3.0)]
    made = matching.matched(pairs)
    assert made is not None
    assert (made.mean.value, made.mean.over, made.mean.n) == (pytest.approx(2.0), "seeds", 3)
    assert made.mean.low == pytest.approx(-0.4841, abs=1e-3)


def flat(retain: float, asked: str = "") -> matching.Curve:
    return curve((20, retain), (30, retain), (40, retain), asked=asked)


def test_matched_forgetting_of_one_seed_is_paired_question_by_question():
    """Flat lines 10 apart: 10 of 100 questions are gained, the others agree, and no forget score matters."""
    made = matching.matched([(flat(60), flat(50))])
    assert made is not None
    gained = intervals.estimate([[(1.0, score(60, "r")), (-1.0, score(50, "r"))]])
    assert (made.mean.over, made.mean.paired) == ("questions", True)
    assert (made.mean.value, made.mean.low, made.mean.high) == pytest.approx(
        (gained.value, gained.low, gained.high), abs=1
    )
    apart = matching.matched([(flat(60), flat(50, "of others"))])
    assert apart is not None
    assert apart.mean.value == made.mean.value
    assert made.mean.high - made.mean.low < 0.65 * (apart.mean.high - apart.mean.low)  # pyright: ignore


def test_curves_of_seeds_that_agree_do_not_make_certainty():
    """Two seeds alike: over questions, which no second run of the same makes more."""
    one, two = matching.matched([(flat(60), flat(50))]), matching.matched([(flat(60), flat(50))] * 2)
    assert one is not None
    assert two is not None
    assert (two.mean.value, two.mean.over, two.mean.n) == (10.0, "questions", 2)
    assert (two.mean.low, two.mean.high) == pytest.approx((one.mean.low, one.mean.high))


# Records


def studies(folder: Path, **filters: Any) -> list[records.Study]:
    return records.studies(records.select(reading.load(str(folder)).trials, Filters(**filters)))


def test_trials_are_read_with_arm_and_scores(tmp_path: Path):
    generated.references(tmp_path)
    generated.trial(tmp_path, settings("dpo", "kl", nu=0.02, seed=4), scores(30, 60))
    generated.trial(tmp_path, settings("rmu", "representation"), scores(32, 55))
    (study,) = studies(tmp_path)
    assert sorted(study.references) == ["base", "retrained"]
    said = [(trial.method, trial.arm, trial.nu, trial.seed, trial.family) for trial in study.trials]
    assert said == [("RMU", "plain", 0.0, 0, "RM"), ("DPO+KL", "rna", 0.02, 4, "PO")]
    forget = study.trials[1].score("forget")
    assert forget is not None
    assert (forget.value, forget.n) == (30.0, 2 * generated.N)
    assert forget.stderr == pytest.approx(100 * math.sqrt(0.3 * 0.7 / (generated.N - 1)) / math.sqrt(2))


def test_other_keywords_and_numerics_are_never_averaged_together(tmp_path: Path):
    generated.references(tmp_path)
    key = generated.trial(tmp_path, settings(), scores(30, 60))
    made = generated.record(settings())
    generated.write(tmp_path, generated.evaluation(made, "perturbed", 0.2, keyword="plague"))
    generated.trial(tmp_path, settings(seed=1), scores(31, 61))
    generated.trial(tmp_path, settings(seed=2), scores(90, 90), numerics=1)
    found = studies(tmp_path)
    assert [len(study.trials) for study in found] == [2, 1, 1]
    perturbed = {tuple(round(trial.score("perturbed").value) for trial in study.trials) for study in found}  # pyright: ignore
    assert perturbed == {(60, 61), (20,), (90,)}
    assert all(key == study.trials[0].key for study in found if study.trials[0].seed == 0)
    assert len({study.name for study in found}) == 3
    chapters = [page.Chapter(study, "", [], [], []) for study in found]
    assert any("3 groups" in line for line in page.notices(reading.load(str(tmp_path)), chapters))


def test_studies_are_named_by_no_more_than_tells_them_apart(tmp_path: Path):
    """Two kinds of evaluation differ in everything that an evaluation is of; one word says which it is. A training that
    is not evaluated yet differs from all of them in the same way."""
    made = settings()
    made.eval.keywords = ["plague", "anthrax"]
    generated.trial(tmp_path, made, scores(30, 60))
    generated.write(tmp_path, generated.record(settings(seed=1)))
    other = settings(seed=2)
    other.eval.name, other.eval.kind = "perplexity", "perplexity"
    trained = generated.record(other)
    losses = {"retain": {"nll": 3.0, "nll_stderr": 0.1, "n": 9}}
    generated.write(tmp_path, trained, generated.evaluation(trained, "perplexity", 0.5) | {"metrics": losses})
    names = {study.trials[0].seed: study.name for study in studies(tmp_path)}
    first = f"model {made.model.name} · data {made.data.name}"
    assert names == {
        0: f"{first} · eval {made.eval.name} · keyword “plague, anthrax”",
        1: f"{first} · eval {made.eval.name} · keyword “{made.eval.keyword}” · evaluation none",
        2: f"{first} · eval perplexity · keyword “{made.eval.keyword}”",
    }


def test_another_models_tasks_set_no_trials_apart(tmp_path: Path):
    """Some were asked a task more than others; that another model was asked one of its name is nothing to them."""
    for seed, more in ((0, {}), (1, {"prefix": 40})):
        generated.trial(tmp_path, settings(seed=seed), scores(30, 60) | more)
    other = settings(seed=2)
    other.model.name = "other"
    made = generated.record(other)
    generated.write(tmp_path, made, generated.evaluation(made, "prefix", 0.4, keyword="plague"))
    assert sorted(len(study.trials) for study in studies(tmp_path)) == [1, 2]


def test_refusals_do_not_set_dpo_apart(tmp_path: Path):
    generated.trial(tmp_path, settings(), scores(30, 60))
    made = generated.record(settings("dpo"))
    made["identity"]["data"]["data.refusals"] = "x"
    generated.write(tmp_path, made, generated.evaluation(made, "perturbed", 0.5))
    assert [study.methods for study in studies(tmp_path)] == [["NPO+MSE", "DPO+MSE"]]


def test_what_cannot_be_used_is_counted_and_said(tmp_path: Path):
    generated.trial(tmp_path, settings(), scores(30, 60))
    made = generated.record(settings(seed=1)) | {"flavour": "new", "colour": 1}
    generated.write(tmp_path, made)
    where = tmp_path / "results"
    (where / "broken.json").write_text('{"kind": "train", ')
    (where / "list.json").write_text("[1]")
    (where / "bare.json").write_text('{"kind": "train", "key": "bare", "config": {}}')
    rerun = generated.record(settings())
    generated.write(tmp_path, rerun | {"key": f"{rerun['key']}.r2"})
    failed = generated.record(settings(seed=3)) | {"kind": "failure", "reason": "not finite", "message": "loss"}
    (where / f"{failed['key']}.failed1.json").write_text(json.dumps(failed))
    loaded = reading.load(str(tmp_path))
    assert len(loaded.trials) == 2
    assert loaded.unknown == {"flavour": 1, "colour": 1}
    assert sorted(line.split(":")[0] for line in loaded.unreadable) == ["bare.json", "broken.json", "list.json"]
    assert (loaded.reruns, [item.reason for item in loaded.failures]) == (1, ["not finite"])
    said = " ".join(page.notices(loaded, []))
    for words in ("2 unknown fields", "flavour", "3 files", "broken.json", "1 reruns", "1 attempts"):
        assert words in said


def test_a_sweep_brings_its_plain_twins_and_references(tmp_path: Path):
    generated.references(tmp_path)
    generated.trial(tmp_path, settings(seed=0), scores(30, 60))
    generated.trial(tmp_path, settings(seed=1), scores(30, 60))
    mine = generated.trial(tmp_path, settings(seed=0, nu=0.02), scores(30, 60))
    generated.trial(tmp_path, settings(seed=0, nu=0.03), scores(30, 60))
    ledger.save(tmp_path / "sweeps" / "mine", ledger.Trial(0, [], address={"key": mine}))
    keys = records.keys_of(str(tmp_path), "mine")
    chosen = records.select(reading.load(str(tmp_path)).trials, Filters(), keys)
    said = sorted((trial.arm, trial.seed, trial.nu) for trial in chosen)
    assert said == [("base", 0, 0.0), ("plain", 0, 0.0), ("retrained", 0, 0.0), ("rna", 0, 0.02)]
    defended = generated.record(settings(seed=1, nu=0.02))
    defended["identity"]["defence"] = {"name": "scope"}
    defended["key"] = "defended"
    generated.write(tmp_path, defended)
    ledger.save(tmp_path / "sweeps" / "own", ledger.Trial(0, [], address={"key": "defended"}))
    chosen = records.select(reading.load(str(tmp_path)).trials, Filters(), records.keys_of(str(tmp_path), "own"))
    assert sorted((trial.arm, trial.seed) for trial in chosen if trial.method) == [("plain", 1), ("rna", 1)]
    with pytest.raises(ValueError, match=r"NAME=other: no such sweep .* allowed: mine"):
        records.keys_of(str(tmp_path), "other")


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, 4),
        ({"method": ("npo",)}, 3),
        ({"retain": ("kl",)}, 1),
        ({"noise": ("none",)}, 2),
        ({"seed": (1,)}, 1),
        ({"layer": (7,)}, 0),
        ({"method": ("npo",), "noise": ("rna",)}, 2),
    ],
)
def test_filters_keep_what_they_name(filters: dict[str, Any], left: int, tmp_path: Path):
    for made in (settings(), settings(nu=0.01), settings(nu=0.01, seed=1), settings("dpo", "kl")):
        generated.trial(tmp_path, made, scores(30, 60))
    assert len(records.select(reading.load(str(tmp_path)).trials, Filters(**filters))) == left


def test_perplexity_is_told_in_nats_where_less_is_better(tmp_path: Path):
    for nu, loss in ((0.0, 3.0), (0.02, 2.5)):
        made = settings(nu=nu)
        made.eval.kind, made.eval.tasks = "perplexity", {}
        trained = generated.record(made)
        parts = {"forget_bio": 5.0, "retain": 2.0, "perturbed": loss}
        metrics = {
            name: {"nll": value, "nll_stderr": 0.1, "ppl": 1.0, "ppl_stderr": 1.0, "n": 9}
            for name, value in parts.items()
        }
        judged = generated.evaluation(trained, "perplexity", 0.5) | {"metrics": metrics}
        generated.write(tmp_path, trained, judged)
    (study,) = studies(tmp_path)
    (item,) = compare.comparisons(study)
    assert item.changes["perturbed"].value == -0.5
    assert answers.word(item.changes["perturbed"]) == "lower"
    assert compare.rates(study, item) is None
    assert "nats" in study.unit


# Comparisons


def test_differences_are_paired_on_the_seeds_both_have(tmp_path: Path):
    """Seeds differ by 20 points, RNA gains 5, 6 and 7: the paired interval is narrow, and seed 9 has no twin."""
    for seed, plain, gain in ((0, 40, 5), (1, 60, 6), (2, 80, 7)):
        generated.trial(tmp_path, settings(seed=seed), scores(30, plain))
        generated.trial(tmp_path, settings(seed=seed, nu=0.02), scores(30, plain + gain))
    generated.trial(tmp_path, settings(seed=9, nu=0.02), scores(30, 5))
    (study,) = studies(tmp_path)
    (item,) = compare.comparisons(study)
    assert item.seeds == [0, 1, 2]
    change = item.changes["perturbed"]
    assert (change.value, change.n) == (pytest.approx(6.0), 3)
    assert change.low == pytest.approx(6 - 2.4841, abs=1e-3)
    assert answers.word(change) == "higher"


def test_rates_are_those_of_the_paper_s_worked_example(tmp_path: Path):
    generated.trial(tmp_path, settings("none"), scores(98, 60), label="base")
    generated.trial(tmp_path, settings(), scores(30, 30))
    generated.trial(tmp_path, settings(nu=0.02), scores(30, 50))
    (study,) = studies(tmp_path)
    made = compare.rates(study, compare.comparisons(study)[0])
    assert made is not None
    assert made.reduction == Estimate(50.0)
    assert made.recovery is not None
    assert made.recovery.value == pytest.approx(66.6667, abs=1e-3)


def test_nu_is_chosen_on_select_and_reported_on_report(tmp_path: Path):
    """ν = 0.02 is best on `select`, 0.04 on `report`: the first is chosen, and its `report` scores are shown."""
    for nu, select, reported in ((0.0, 50, 50), (0.02, 70, 60), (0.04, 60, 90)):
        trained = generated.record(settings(nu=nu))
        generated.write(tmp_path, trained)
        for task, score in scores(30, 0).items():
            values = (select, reported) if task == "perturbed" else (score, score)
            halves = {
                name: {"acc": value / 100, "acc_stderr": 0.01, "n": 200, "subjects": {}}
                for name, value in zip(("select", "report"), values, strict=True)
            }
            generated.write(tmp_path, generated.evaluation(trained, task, sum(values) / 200, more=halves))
    (study,) = studies(tmp_path)
    shown = compare.shown(study)
    assert (study.part, shown.part) == ("all", "report")
    pick = compare.picks(shown)["NPO+MSE"]
    assert pick is not None
    assert (pick.comparison.rna.first.nu, pick.comparison.changes["perturbed"].value) == (0.02, pytest.approx(10.0))
    assert "select half" in pick.how
    front = tables.front(shown, compare.picks(shown))
    assert all(column.endswith(", report half") for column in front.columns[1:])
    assert "60.0" in str(front.rows[-1])
    found = {table.name: table for table in tables.every(study, [])}
    assert "perturbed retain ↑, report half" in found["summary"].columns
    assert "perturbed retain ↑" in found["conditions"].columns


def test_without_a_choice_all_questions_are_shown(tmp_path: Path):
    """One ν, with halves that say otherwise: nothing was chosen on a half, so none is reported alone."""
    for nu in (0.0, 0.02):
        trained = generated.record(settings(nu=nu))
        generated.write(tmp_path, trained)
        halves = {name: {"acc": 0.9, "acc_stderr": 0.01, "n": 200} for name in ("select", "report")}
        for task in scores(30, 50):
            generated.write(tmp_path, generated.evaluation(trained, task, 0.5, more=halves))
    (study,) = studies(tmp_path)
    shown = compare.shown(study)
    front = tables.front(shown, compare.picks(shown))
    assert not any("half" in column for column in front.columns)
    assert str(front.rows[0][1]).startswith("50.0 ± ")


def test_a_choice_on_the_reported_questions_is_called_flattering(tmp_path: Path):
    for nu, score in ((0.0, 50), (0.02, 70), (0.04, 60)):
        generated.trial(tmp_path, settings(nu=nu), scores(30, score))
    (study,) = studies(tmp_path)
    pick = compare.chosen(study, "NPO+MSE", compare.comparisons(study))
    assert pick is not None
    assert pick.comparison.rna.first.nu == 0.02
    assert "flattering" in pick.how
    assert any("flattering" in line for line in verdicts.every(study)[0].sentences)


def test_a_gain_that_came_with_less_forgetting_is_no_comparison(tmp_path: Path):
    for seed in range(3):
        generated.trial(tmp_path, settings(seed=seed), scores(30 + seed / 10, 50 + seed / 10))
        generated.trial(tmp_path, settings(seed=seed, nu=0.02), scores(60 + seed / 20, 80 + seed / 20))
    (study,) = studies(tmp_path)
    (verdict,) = verdicts.every(study)
    assert verdict.word == "do not forget alike"
    assert "compare along α" in " ".join(verdict.sentences)
    assert "do not forget alike" in verdicts.headline(study, [verdict])


def test_no_gain_at_matched_forgetting_goes_before_a_gain_at_equal_settings(tmp_path: Path):
    """Plain and RNA lie on one line; at the same α RNA has moved up along it: forget 10 and perturbed 10 higher."""
    for seed in range(3):
        for place, alpha in enumerate((0.5, 1.0, 2.0, 4.0)):
            level = 20 + 10 * place + seed / 10
            generated.trial(tmp_path, settings(alpha=alpha, seed=seed), scores(level, level + 20))
            moved = scores(level + 10 + seed / 20, level + 30 + seed / 20)
            generated.trial(tmp_path, settings(alpha=alpha, seed=seed, nu=0.02), moved)
    (study,) = studies(tmp_path)
    (item,) = compare.trade_offs(study)
    assert item.alphas == (4, 4)
    assert item.results["perturbed"].mean.value == pytest.approx(0, abs=1e-9)
    (verdict,) = verdicts.every(study)
    assert (verdict.word, verdict.matched) == ("no difference seen", True)
    assert "at matched forgetting" in verdicts.headline(study, [verdict])


def test_a_headline_counts_the_methods(tmp_path: Path):
    """RMU loses 10 points, NPO gains 20, DPO forgets nothing."""
    generated.references(tmp_path)
    for seed in range(3):
        for method, retain, forget, gain in (
            ("rmu", "representation", 30, -10),
            ("npo", "mse", 30, 20),
            ("dpo", "kl", 97.9, 0),
        ):
            for nu in (0.0, 0.02):
                level = 50 + seed / 10 + (gain + seed / 20 if nu else 0)
                generated.trial(tmp_path, settings(method, retain, nu=nu, seed=seed), scores(forget, level))
    (study,) = studies(tmp_path)
    assert verdicts.headline(study, verdicts.every(study)) == (
        "With RNA, retain with a forget-token moves by −9.9 (RMU) to +20.1 points (NPO+MSE); of 3 methods, higher in "
        "1, lower in 1, no difference seen in 1. But 1 has not forgotten."
    )


def test_two_values_of_alpha_are_not_enough_and_the_command_is_said(tmp_path: Path):
    for alpha in (1.0, 2.0):
        for nu in (0.0, 0.02):
            generated.trial(tmp_path, settings(alpha=alpha, nu=nu), scores(30 * alpha, 50))
    (study,) = studies(tmp_path)
    (item,) = compare.trade_offs(study)
    assert not item.results
    table = tables.matched(study, [item])
    assert table.rows == []
    assert table.command is not None
    assert "retain.alpha.default=" in table.command
    assert "NPO+MSE at ν = 0.02 (2, 2)" in " ".join(table.notes)


def test_the_front_holds_what_nothing_betters_in_both(tmp_path: Path):
    """Forget 20, 30, 30, 40, 50 with perturbed 50, 70, 60, 65, 80: the third and fourth are bettered by the second."""
    points = [(20, 50), (30, 70), (30, 60), (40, 65), (50, 80)]
    for place, (forget, perturbed) in enumerate(points):
        generated.trial(tmp_path, settings(alpha=float(place + 1), nu=0.02 * (place == 1)), scores(forget, perturbed))
    (study,) = studies(tmp_path)

    def found(arm: str | None) -> list[tuple[float, float]]:
        rows = [[row.estimate(study, name) for name in ("forget", "perturbed")] for row in compare.front(study, arm)]
        return [(forget.value, perturbed.value) for forget, perturbed in rows]  # pyright: ignore

    assert found(None) == [(20, 50), (30, 70), (50, 80)]
    assert found("plain") == [(20, 50), (30, 60), (40, 65), (50, 80)]
    assert found("rna") == [(30, 70)]
    table = tables.pareto(study)
    assert [row[table.columns.index("ν")] for row in table.rows] == [None, "0.02", None]


# What moved the scores


def test_importance_finds_the_settings_that_scores_were_made_of():
    """y = 3a + b over a balanced square: a explains 9 parts of 10, b one, the seed none."""
    cells = [(a, b, seed) for a in (0.0, 1.0) for b in ("x", "y") for seed in range(10)]
    columns = {"a": [a for a, _, _ in cells], "b": [b for _, b, _ in cells], "seed": [float(s) for _, _, s in cells]}
    found = importance.shares(columns, [3 * a + (b == "y") for a, b, _ in cells])
    assert found == {
        "a": pytest.approx(0.9, abs=0.04),
        "b": pytest.approx(0.1, abs=0.04),
        "seed": pytest.approx(0, abs=0.01),
    }


def test_importance_is_of_settings_that_vary_and_all_trials_have(tmp_path: Path):
    for method, retain in (("npo", "mse"), ("rmu", "representation")):
        for nu in (0.0, 0.02):
            for seed in range(2):
                generated.trial(tmp_path, settings(method, retain, nu=nu, seed=seed), scores(30, 60 + seed + 500 * nu))
    (study,) = studies(tmp_path)
    assert list(importance.varied(study.trials)) == ["method", "ν", "seed"]  # c is RMU's alone, α one value
    table = importance.table(study)
    assert table.rows[0][0] == "ν"
    assert table.columns == ["setting", "values", "% of perturbed retain"]  # forget has one value: nothing to explain
    assert sum(row[2] for row in table.rows) == pytest.approx(100)  # pyright: ignore


def test_seven_trials_are_too_few_for_importance(tmp_path: Path):
    for seed in range(7):
        generated.trial(tmp_path, settings(nu=0.01 * (seed % 2), seed=seed), scores(30, 60 + seed))
    (study,) = studies(tmp_path)
    table = importance.table(study)
    assert table.rows == []
    assert table.command is not None


# The paper's numbers


def test_the_published_numbers_are_the_paper_s():
    """Spot checks of each table, and what the changes add up to where the paper's print slipped."""
    published = tables.paper()
    assert published["nu"]["by_ngram"]["4"] | {} == {
        "RMU": 0.03, "Adaptive RMU": 0.07, "RSV": 0.05, "NPO+KL": 0.012, "NPO+MSE": 0.018,
        "DPO+KL": 0.018, "DPO+MSE": 0.02, "SimNPO+KL": 0.014, "SimNPO+MSE": 0.016,
    }  # fmt: skip
    rows = {table["table"]: table["rows"] for table in published["accuracy"].values()}
    assert set(rows) == {2, 3, 4, 5}
    assert all(list(table) == records.PAPER_ORDER for table in rows.values())
    assert rows[2]["NPO+KL"] == {"plain": [27.2, 55.8, 25.2], "rna": [27.7, 55.5, 48.1]}
    assert rows[5]["SimNPO+MSE"] == {"plain": [27.1, 55.9, 33.2], "rna": [32.2, 56.7, 44.4]}
    change = {number: table["SimNPO+KL"]["rna"][2] - table["SimNPO+KL"]["plain"][2] for number, table in rows.items()}
    assert change == {2: pytest.approx(13.3), 3: pytest.approx(6.2), 4: pytest.approx(3.5), 5: pytest.approx(2.6)}
    assert rows[4]["Adaptive RMU"]["rna"][2] == rows[2]["Adaptive RMU"]["rna"][2]
    mean = sum(published["recovery"]["by_method"][name] for name in records.PAPER_ORDER[3:]) / 6
    assert mean == pytest.approx(51.7, abs=0.05)


def test_measured_numbers_stand_beside_the_paper_s_with_both_models_named(tmp_path: Path):
    generated.trial(tmp_path, settings("dpo", "mse"), scores(30, 60, 90))
    generated.trial(tmp_path, settings("dpo", "mse", nu=0.02), scores(31, 70, 91))
    (study,) = studies(tmp_path)
    found = {table.name: table for table in tables.every(study, [])}
    table = found["table2"]
    plain = dict(zip(table.columns, table.rows[0], strict=True))
    assert (plain["forget, paper"], plain["retain, paper"], plain["perturbed, paper"]) == (26.0, 53.5, 27.4)
    assert plain["Δ retain"] == pytest.approx(36.5)
    said = " ".join(table.notes)
    assert "model demo" in said
    assert "Zephyr-7B-β" in said
    assert "marsh fevers" in said
    assert found["table3"].rows == []
    assert "--n 4" in str(found["table3"].command)


# Tables


NASTY = r"a_b & 50% {x} \y $z #1 ~ ^ <b>bold</b> | ν"


def test_latex_escapes_every_special_character():
    made = sheet.latex(sheet.Table("t", NASTY, [NASTY], [[NASTY]]))
    inside = made.split(r"\midrule")[1].split(r"\bottomrule")[0]
    bare = re.sub(r"\\[&%$#_{}]|\\text\w+\{\}|\$\\nu\$", "", inside.replace(r"\\", ""))
    assert not re.search(r"[&%$#_{}~^\\<>|]", bare), bare
    assert made.count(r"\begin{tabular}{l}") == 1


PDFLATEX = shutil.which("pdflatex")
LETTERS = "".join(map(chr, [*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x370, 0x400), *range(0x2010, 0x2030)]))
STRANGE = [NASTY, "[x]", "*", "--- `` ''", "中文 模型", "naïve Łódź ÅŮ", "a\tb\nc", "😀"]
STRANGE += [LETTERS[start : start + 20] for start in range(0, len(LETTERS), 20)]


@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex on the PATH (Debian: texlive-latex-extra)")
def test_every_table_compiles_and_is_no_wider_than_the_line(everything: dict[str, sheet.Table], tmp_path: Path):
    strange = sheet.Table("strange", NASTY, ["x", NASTY], [[one, one] for one in STRANGE], [NASTY, *STRANGE])
    empty = sheet.Table("empty", "Empty", [], [])
    made = [*everything.values(), strange, empty]
    for table in made:
        sheet.write(table, tmp_path)
    parts = "\n".join(rf"\input{{{table.name}.tex}}\clearpage" for table in made)
    text = rf"""\documentclass{{article}}
\usepackage{{booktabs,graphicx}}
\hbadness=10000
\begin{{document}}
{parts}
\end{{document}}
"""
    (tmp_path / "all.tex").write_text(text, encoding="utf-8")
    command = [str(PDFLATEX), "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = (tmp_path / "all.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert f"({len(made)} pages" in log.replace("\n", "")
    inside = log.replace(log[log.find("strange.tex") :], "")
    assert not re.findall(r"Overfull \\hbox .*alignment", inside)
    assert "Missing character" not in log


def test_latex_leaves_out_the_settings_where_rows_can_be_told_without():
    rows: list[list[Any]] = [["RMU", 1.0, "c = 6.5"], ["RSV", 2.0, "c = 10"]]
    assert "6.5" not in sheet.latex(sheet.Table("t", "T", ["method", "gain", "settings"], rows))
    rows[1][0] = "RMU"
    assert "6.5" in sheet.latex(sheet.Table("t", "T", ["method", "gain", "settings"], rows))


def test_csv_is_for_programs(tmp_path: Path):
    row = ["RMU", Estimate(1.25, -0.5, 3.0, 3), None, 2.0]
    sheet.write(sheet.Table("t", "T", ["method", "gain", "loss", "x"], [row], signed=("gain",)), tmp_path)
    with (tmp_path / "t.csv").open() as stream:
        (read,) = csv.DictReader(stream)
    assert read == {
        "method": "RMU", "gain": "1.25", "gain low": "-0.5", "gain high": "3.0", "gain interval over": "seeds",
        "loss": "", "x": "2.0",
    }  # fmt: skip
    assert "| RMU | +1.2 [−0.5, +3.0] | – | 2.0 |" in (tmp_path / "t.md").read_text()
    assert r"RMU & +1.2 {\scriptsize [$-$0.5, +3.0]} & -- & 2.0 \\" in (tmp_path / "t.tex").read_text()


def test_what_rounds_to_zero_has_no_sign():
    table = sheet.Table("t", "T", ["gain", "x"], [], signed=("gain",))
    assert [table.text(value, "gain") for value in (-0.04, 0.04, -0.06)] == ["0.0", "0.0", "−0.1"]
    assert table.text(Estimate(-0.01, -0.2, 0.04, 3), "x") == "0.0 [−0.2, 0.0]"


def test_an_interval_over_questions_is_starred():
    table = sheet.Table("t", "T", ["x"], [])
    assert table.text(Estimate(1.0, 0.0, 2.0, 1, "questions"), "x") == "1.0 [0.0, 2.0]*"


# Commands


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain"), generated.PAIRS)
def test_the_command_of_a_trial_gives_its_key(method: str, retain: str):
    words = [
        f"method={method}",
        "seed=3",
        "noise.nu=0.02",
        "retain.alpha.bio=2",
        "retain.alpha.cyber=3",
        "noise.layers=[1,2]",
    ]
    words += [f"retain={retain}"] if retain != "representation" else []
    words += [
        "train.batch_size=2",
        "layer.trainable=all",
        'eval.keyword=Red & "blue"',
        "eval.limit=9",
        "model.dtype=bfloat16",
    ]
    made = config.check(run.compose([word.replace('Red & "blue"', "plague") for word in words], None))
    key = results.train_key(results.train_identity(made))
    record = generated.record(made)
    trial = reading._trial("k", record | {"curve": {}, "config": json.loads(json.dumps(record["config"]))}, [])
    again = config.check(run.compose(shlex.split(commands.reproduce([trial]))[3:], None))
    assert results.train_key(results.train_identity(again)) == key
    assert (again.eval.keyword, again.eval.limit, again.model.dtype) == ("plague", 9, "bfloat16")


@pytest.mark.parametrize("eps", [1e-6, 1e-8])
def test_the_command_of_a_trial_of_the_released_code_gives_its_key(eps: float):
    made = config.check(run.compose(["variant=official", "method=rmu", "seed=42", f"train.eps={eps}"], None))
    record = json.loads(json.dumps(generated.record(made)))
    del record["config"]["notices"]  # as in records of before
    trial = reading._trial("k", record | {"curve": {}}, [])
    again = config.check(run.compose(shlex.split(commands.reproduce([trial]))[3:], None))
    assert results.train_identity(again) == results.train_identity(made)


@pytest.mark.whole
def test_every_command_for_what_is_missing_composes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of each sweep the first value; analyses are a module of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    write_mined(tmp_path / "outputs" / "ngrams.parquet")
    generated.trial(tmp_path, settings(), scores(30, 60))
    generated.trial(tmp_path, settings(nu=0.02), scores(30, 60))
    (study,) = studies(tmp_path)
    missing: list[Any] = [item for item in figures.every(study) if item.drawing is None]
    missing += [table for table in tables.every(study, []) if not table.rows]
    lines = [line for item in missing for line in str(item.command).splitlines()]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"]
        if words[2] == "rna.run":
            chosen = [re.sub(r"=(\[[^]]*\]|[^,[]*),.*", r"=\1", word) for word in words[4:]]
            assert config.check(run.compose(chosen, None)).method.name != "none"


# The whole report


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sheet.Table]:
    """The tables of every method, two seeds, three α; nothing is drawn or written."""
    folder = tmp_path_factory.mktemp("everything")
    generated.world(folder, seeds=2, curve=1)
    (study,) = studies(folder)
    return {table.name: table for table in tables.every(study, [])}


@pytest.mark.whole
def test_the_summary_has_eighteen_rows_below_the_references(everything: dict[str, sheet.Table]):
    table = everything["summary"]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    said = [(row["method"], row[""]) for row in rows]
    arms = [(method, arm) for method in records.PAPER_ORDER for arm in ("plain", "with RNA")]
    assert said == [("base", ""), ("retrained", ""), *arms]
    by_method: dict[Any, Any] = {row["method"]: row for row in rows if row[""] == "with RNA"}
    assert {row["verdict"] for name, row in by_method.items() if "+" in name} <= {"higher", "no difference seen"}
    assert by_method["DPO+KL"]["Δ perturbed"].value == pytest.approx(10, abs=2)


def test_matched_forgetting_finds_the_gain_that_was_put_in(everything: dict[str, sheet.Table]):
    table = everything["matched_forgetting"]
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    gain = {row["method"]: round(row["Δ perturbed retain"].value, -1) for row in rows}
    assert gain == {name: 10.0 if "+" in name else 0.0 for name in records.PAPER_ORDER}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two methods, with what feeds figures 2, 3, 8, 9 and 10."""
    folder = tmp_path_factory.mktemp("world")
    pairs = [("rmu", "representation"), ("npo", "mse")]
    generated.world(folder, seeds=2, curve=60, pairs=pairs)
    for value in (2.0, 20.0):
        generated.trial(
            folder, settings("rmu", "representation", options={"coefficient": value}), scores(30, 60 - value)
        )
    for layers in ([0], [1], [3], [0, 1], [1, 2], [2, 3], [0, 1, 2, 3]):
        generated.trial(folder, settings(nu=0.01, layers=layers), scores(30, 55 + layers[0]))
    generated.trial(folder, settings(nu=0.002, layers=[0, 1, 2, 3]), scores(30, 58))
    generated.trial(folder, settings(unlearn=1), scores(30, 52))
    generated.trial(folder, settings(nu=0.05), scores(35, 52))
    report([], Filters(), str(folder), "python -m rna.report")
    return folder / "reports" / "all"


DRAWN = (
    "figure1 figure2 figure3 figure8 figure9 figure10 matched_forgetting pareto training_forget training_retain "
    "unlearn_layer".split()
)


@pytest.mark.whole
def test_every_figure_and_table_is_written_in_every_format(world: Path):
    assert sorted(file.name for file in (world / "figures").iterdir()) == sorted(
        f"{name}.{suffix}" for name in DRAWN for suffix in ("pdf", "png", "svg")
    )
    names = {file.stem for file in (world / "tables").iterdir()}
    assert {
        "summary",
        "harm",
        "equal_hyperparameters",
        "matched_forgetting",
        "rates",
        "pareto",
        "costs",
        "table1",
        "table5",
    } <= names
    assert all(
        (world / "tables" / f"{name}.{suffix}").stat().st_size for name in names for suffix in ("csv", "md", "tex")
    )
    with (world / "tables" / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["method"] for row in rows] == ["base", "retrained", "RMU", "RMU", "NPO+MSE", "NPO+MSE"]


@pytest.mark.whole
def test_pictures_are_the_same_drawn_alone_and_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for nu in (0.0, 0.02):
        generated.trial(tmp_path, settings(nu=nu), scores(30, 60))
    (study,) = studies(tmp_path)
    plans = [lambda: figures.pareto(study), lambda: figures.ngrams(study), lambda: lines.curves(study, {}, "forget")]
    made: list[Any] = []
    for threads in (1, 2):
        monkeypatch.setattr(drawing.threading, "active_count", lambda threads=threads: threads)
        made.append(drawing.written(plans, tmp_path / str(threads)))
    assert made[0] == made[1]
    assert [bool(text) for _, text in made[0]] == [True, False, False]


class Page(HTMLParser):
    """Collects links and what a page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if tag == "a" and name == "href":
                self.links.append(str(value))
            elif name == "src" or (tag == "link" and name == "href"):
                self.fetched.append(str(value))


@pytest.mark.whole
def test_the_page_needs_nothing_else_and_its_links_are_there(world: Path):
    text = (world / "index.html").read_text(encoding="utf-8")
    found = Page(text)
    assert found.fetched == ["data:,"]
    assert "@import" not in text
    assert "url(http" not in text
    assert "default-src 'none'" in text
    local = [link for link in found.links if not link.startswith("#") and "/wandb/" not in link]
    assert len(local) > 50
    assert [link for link in local if not (world / link).exists()] == []


def test_the_page_says_for_each_method_what_matched_forgetting_wants(tmp_path: Path):
    for nu in (0.0, 0.02):
        generated.trial(tmp_path, settings("dpo", "kl", nu=nu, alpha=4.0), scores(30, 60))
        for alpha in (0.5, 1.0, 2.0):
            generated.trial(tmp_path, settings(nu=nu, alpha=alpha), scores(20 + 10 * alpha, 60))
    (study,) = studies(tmp_path)
    (item,) = page._unmatched(page.Chapter(study, "", [], [], []))
    assert item.title.endswith("DPO+KL")
    assert "method=dpo retain=kl" in str(item.command)
    assert "retain.alpha.default=1,2,4,8,16 seed=0,1,2" in str(item.command)


@pytest.mark.whole
def test_names_with_special_characters_are_shown_and_not_run(tmp_path: Path):
    made = settings(keyword="<script>alert(1)</script> & 50% _x_")
    made.model.name = "<img src=x onerror=alert(2)>"
    generated.trial(tmp_path, made, scores(30, 60))
    where = report([], Filters(), str(tmp_path), "python -m rna.report '<b>'")
    text = (where / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "Intervals are over questions" in text  # one seed, said so


@pytest.mark.whole
def test_the_command_line_answers_and_never_imports_torch(tmp_path: Path):
    generated.trial(tmp_path, settings(), scores(30, 60))
    code = (
        "import sys; from rna.report.__main__ import main; main(); "
        "sys.exit(sorted({'torch', 'transformers', 'lm_eval', 'hydra'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--output-dir", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    where = tmp_path / "reports" / "all"
    shown = (where / "index.html").read_text(encoding="utf-8")
    assert "<svg" in shown
    assert sorted(file.name for file in (where / "figures").iterdir()) == ["pareto.pdf", "pareto.png", "pareto.svg"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no records to report"),
        (["nothere"], "NAME=nothere: no such sweep"),
    ],
)
def test_nothing_to_report_is_said_in_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--output-dir", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}")
    assert error.count("\n") == 1


def test_filters_that_leave_nothing_are_told_with_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The base is there, and passes any filter of trained trials: it alone is no report."""
    generated.references(tmp_path)
    for method, seed in (("npo", 0), ("dpo", 1), ("npo", 1)):
        generated.trial(tmp_path, settings(method, "kl", seed=seed), scores(30, 60))
    with pytest.raises(SystemExit) as stop:
        main(["--method", "npo", "--seed", "7", "--output-dir", str(tmp_path)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    said = "has --method npo --seed 7; of its 3 trials there are --method dpo npo; --seed 0 1\n"
    assert error == f"error: no trial in {tmp_path / 'results'} {said}"
    assert not (tmp_path / "reports").exists()


@pytest.mark.whole
def test_rows_of_the_released_code_are_one_study(tmp_path: Path):
    """Its methods read the same files in ways of their own, which are a part of each method there."""
    for method, noise in itertools.product(("rmu", "rsv", "npo", "dpo"), ("none", "rna")):
        made = config.check(run.compose(["variant=official", f"method={method}", f"noise={noise}"], None))
        identity = json.loads(json.dumps(results.train_identity(made)))
        trained = generated.record(made, curve=2) | {"identity": identity, "key": results.train_key(identity)}
        trained = json.loads(json.dumps(trained))
        tasks = {task: generated.evaluation(trained, task, value / 100) for task, value in scores(30, 50).items()}
        generated.write(tmp_path, trained, *tasks.values())
    (study,) = studies(tmp_path)
    assert study.methods == ["RMU", "RSV", "NPO+KL", "DPO+KL"]
    assert study.name.endswith("variant official")
    generated.trial(tmp_path, settings(), scores(30, 60))
    assert len(studies(tmp_path)) == 2


@pytest.mark.whole
def test_nowhere_is_a_verdict_that_rna_helps(world: Path):
    for file in [world / "index.html", *(world / "tables").iterdir(), *(world / "figures").glob("*.svg")]:
        text = re.sub(r"<(script|style).*?</\1>", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.search(r"\b(helps?|hurts?|no evidence)\b", text, re.IGNORECASE), file


@pytest.mark.whole
def test_one_seed_says_what_it_shows_and_how_to_get_more(tmp_path: Path):
    generated.references(tmp_path)
    for nu in (0.0, 0.02):
        generated.trial(tmp_path, settings(nu=nu), scores(30, 50 + 500 * nu))
    text = (report([], Filters(), str(tmp_path), "x") / "index.html").read_text(encoding="utf-8")
    assert "NPO+MSE: this trial shows that with RNA, retain with a forget-token moves by +10.0 points" in text
    assert answers.ONE_SEED in text
    assert "seed=0,1,2,3,4" in text
    assert text.index("seed=0,1,2,3,4") < text.index("<main>")
