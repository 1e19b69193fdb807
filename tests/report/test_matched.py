"""Plain and other trainings that stopped at one target: only those that forgot alike are compared."""

from pathlib import Path
from typing import Any

import pytest

from rna.report import compare, page, reading, records, tables, verdicts
from rna.report.records import Filters
from rna.settings import ALIKE, TOO_FAR, alike, left_out_for
from tests import generated
from tests.generated import scores, settings

TARGET = {"interim/forget/acc": {"at": 0.35, "direction": "fall", "patience": 1}}


def stopped(
    folder: Path,
    forget: float,
    perturbed: float,
    *,
    reached: bool = True,
    step: int = 60,
    cap: int = 100,
    halves: tuple[float, float] | None = None,
    defence: str = "",
    **more: Any,
) -> None:
    """A training to the target with its evaluations.

    Args:
        halves: its forget accuracy on the select and on the report half.
    """
    made = settings(steps=cap, **more)
    made.train.until = TARGET
    until = {"metric": "interim/forget/acc", "at": 0.35, "reached": reached, "step": step, "value": 0.34}
    trained = generated.record(made, until=until)
    if defence:
        trained["identity"]["defence"] = {"name": defence}
        trained["key"] += defence
    generated.write(folder, trained)
    for task, score in scores(forget, perturbed).items():
        of = halves if halves and task.startswith("forget") else (score, score)
        parts = {
            half: {"acc": value / 100, "acc_stderr": 0.01, "n": 200}
            for half, value in zip(("select", "report"), of, strict=True)
        }
        generated.write(folder, generated.evaluation(trained, task, score / 100, more=parts if halves else None))


def study_of(folder: Path) -> records.Study:
    (study,) = records.studies(records.select(reading.load(str(folder)).trials, Filters()))
    return study


def row_of(table: Any) -> dict[str, Any]:
    (row,) = table.rows
    return dict(zip(table.columns, row, strict=True))


def test_trainings_are_matched_within_three_points_in_the_mean():
    for apart in ([0.0], [ALIKE], [32.0 - 100 * 0.29], [9.0, -4.5], [6.0, 0.0]):  # the third a little over 3 in binary
        assert alike(apart)
    for apart in ([-3.25], [3.01], [9.0, -2.5], [0.0, -6.1]):
        assert not alike(apart)
    assert left_out_for(False, True) == "did not reach the target"
    assert left_out_for(True, False) == "without a forget score"
    assert left_out_for(True, True) == ""


def test_of_pairs_too_far_apart_in_the_mean_none_is_matched(tmp_path: Path):
    for seed, forget in enumerate((29, 32, 38)):  # 0, 3 and 9 more than plain
        stopped(tmp_path, 29, 50, seed=seed)
        stopped(tmp_path, forget, 90, seed=seed, nu=0.02)
    (item,) = compare.stopped(study_of(tmp_path))
    assert (item.pairs, item.apart, item.changes) == ([], [], {})
    assert item.left_out == {TOO_FAR: [0, 1, 2]}


def test_pairs_that_are_matched_are_compared_and_the_others_counted_with_the_reason(tmp_path: Path):
    """Of four seeds three are matched and gain 5, 6 and 7; the other, which would gain 40, is not."""
    for seed, (forget, gain, reached) in enumerate([(32, 5, True), (27.5, 6, True), (30, 7, True), (29, 40, False)]):
        stopped(tmp_path, 29, 30 + 10 * seed / 3, seed=seed, step=40)
        stopped(tmp_path, forget, 30 + 10 * seed / 3 + gain, seed=seed, nu=0.02, reached=reached, step=70 + seed)
    stopped(tmp_path, 29, 99, seed=9, nu=0.02)  # without a twin
    study = study_of(tmp_path)
    (item,) = compare.stopped(study)
    assert [(one.seed, other.seed) for one, other in item.pairs] == [(0, 0), (1, 1), (2, 2)]
    assert item.apart == pytest.approx([3.0, -1.5, 1.0])
    assert item.left_out == {"did not reach the target": [3]}
    table = tables.stopped(study, [item])
    row = row_of(table)
    change = row["Δ perturbed retain"]
    assert (change.value, change.low, change.n) == (pytest.approx(6), pytest.approx(6 - 2.4841, abs=1e-3), 3)
    assert row["Δ forget"].value == pytest.approx(2.5 / 3)
    assert row["forget apart"] == pytest.approx(2.5 / 3)
    assert (row["matched pairs"], row["steps (its, plain’s)"], row["perturbed retain"]) == (
        "3 of 4",
        "71, 40",
        "higher",
    )
    assert row["settings"].endswith("≤ 100 steps to forget/acc ≤ 0.35, lr 3e-05")
    assert table.notes[-1] == (
        "Left out: NPO+MSE at ν = 0.02, α = 1 against 1: 1 of 4 did not reach the target (seed 3)."
    )
    (verdict,) = verdicts.every(study)
    assert (verdict.word, verdict.matched, verdict.seeds, verdict.change) == ("higher", True, 3, change)
    said = "Stopped at one target, 3 of 4 pairs are matched (1 did not reach the target): "
    assert said + "forget +0.8 points [" in " ".join(verdict.sentences)


def test_what_did_not_reach_its_target_is_in_no_matched_table(tmp_path: Path):
    """Nor on a curve over α, though three values are there."""
    for alpha in (0.5, 1.0, 2.0):
        for nu in (0.0, 0.02):
            stopped(tmp_path, 30 * alpha, 60, nu=nu, alpha=alpha, reached=not nu)
    study = study_of(tmp_path)
    found = compare.stopped(study)
    assert len(found) == 9  # whatever the α of each
    assert not any(item.pairs for item in found)
    found_tables = {table.name: table for table in tables.every(study, [])}
    assert found_tables["matched"].rows == found_tables["matched_forgetting"].rows == []
    assert "'train.until={interim/forget/acc: {at: 0.35, " in str(found_tables["matched"].command)
    assert str(found_tables["matched"].command).endswith("seed=0,1,2,3,4")
    assert len(found_tables["equal_hyperparameters"].rows) == 3
    (verdict,) = verdicts.every(study)
    assert (verdict.word, verdict.matched) == ("do not forget alike", False)
    assert "0 of 1 pairs are matched (1 did not reach the target)." in " ".join(verdict.sentences)


def test_a_defence_without_noise_is_compared_with_plain(tmp_path: Path):
    stopped(tmp_path, 30, 50)
    stopped(tmp_path, 31, 70, defence="scope")
    study = study_of(tmp_path)
    (item,) = compare.stopped(study)
    row = row_of(tables.stopped(study, [item]))
    assert (row["ν"], row["defence"], row["Δ perturbed retain"].value) == ("0", "scope", pytest.approx(20))


def test_a_noise_with_which_the_target_was_not_reached_does_not_stand_for_its_method(tmp_path: Path):
    """It kept the most, as it forgot the least."""
    stopped(tmp_path, 30, 50)
    stopped(tmp_path, 31, 60, nu=0.02)
    stopped(tmp_path, 60, 90, nu=0.04, reached=False)
    study = study_of(tmp_path)
    pick = compare.chosen(study, "NPO+MSE", compare.comparisons(study))
    assert pick is not None
    assert pick.comparison.rna.first.nu == 0.02


def test_a_heavier_alpha_and_a_later_cap_are_no_other_method(tmp_path: Path):
    """Plain at α = 4 reached the target with more steps: RNA at α = 1 is compared with it, and gains nothing on it."""
    stopped(tmp_path, 30, 50)
    stopped(tmp_path, 31, 70, alpha=4.0, step=100, reached=False)
    stopped(tmp_path, 31, 70, alpha=4.0, step=150, cap=400)
    stopped(tmp_path, 32, 70, nu=0.02)
    study = study_of(tmp_path)
    table = tables.stopped(study, compare.stopped(study))
    rows: list[dict[str, Any]] = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["plain’s α"], row["Δ perturbed retain"].value, row["steps (its, plain’s)"]) for row in rows] == [
        ("1", pytest.approx(20), "60, 60"),
        ("4", pytest.approx(0), "60, 150"),
    ]
    other = settings(nu=0.02)
    other.train.until = {"interim/forget/acc": TARGET["interim/forget/acc"] | {"at": 0.3}}
    generated.trial(tmp_path, other, scores(30, 60), until={"reached": True, "step": 9})
    assert len(compare.stopped(study_of(tmp_path))) == 2  # of another target: no pair


def test_forgetting_is_matched_on_the_half_on_which_nothing_stopped(tmp_path: Path):
    """All questions and the select half are alike; on the report half seed 0 is 2 apart and seed 1 is 3.5."""
    for seed, apart in enumerate((2, 3.5)):
        stopped(tmp_path, 30, 50, halves=(30, 30), seed=seed)
        stopped(tmp_path, 30, 55, halves=(30, 30 + apart), seed=seed, nu=0.02)
    study = study_of(tmp_path)
    (item,) = compare.stopped(study)
    assert (item.part, item.apart, item.left_out) == ("report", pytest.approx([2.0, 3.5]), {})
    table = tables.stopped(study, [item])
    assert row_of(table)["Δ forget, report half"].value == pytest.approx(2.75)
    assert any("as trainings stop on the select half" in note for note in table.notes)
    (verdict,) = verdicts.every(study)
    assert "2 of 2 pairs are matched, report half: forget" in " ".join(verdict.sentences)
    assert page._unmatched(page.Chapter(study, "", [], [], [])) == []


def test_questions_of_which_none_is_to_be_forgotten_have_halves_on_which_nothing_stopped(tmp_path: Path):
    for nu, score in ((0.0, 0.5), (0.02, 0.55)):
        made = settings(nu=nu)
        made.train.until = {"interim/forget_bio/nll": {"at": 5.0, "direction": "rise", "patience": 1}}
        trained = generated.record(made, until={"reached": True, "step": 9})
        halves = {half: {"acc": score, "acc_stderr": 0.01, "n": 200} for half in ("select", "report")}
        generated.write(tmp_path, trained, generated.evaluation(trained, "perturbed", score, more=halves))
    study = study_of(tmp_path)
    table = tables.stopped(study, compare.stopped(study))
    assert row_of(table)["Δ perturbed retain, report half"].value == pytest.approx(5)
    said = " ".join(table.notes)
    assert "report half" in said
    assert not any(words in said for words in ("as trainings stop", "their forget accuracies"))


def test_log_losses_are_matched_where_both_are_at_their_target(tmp_path: Path):
    """However far apart the held-out texts end: 3 is a bound on points of accuracy, and means nothing in nats."""
    for nu, seed, reached in ((0.0, 0, True), (0.02, 0, True), (0.0, 1, True), (0.02, 1, False)):
        made = settings(nu=nu, seed=seed)
        made.eval.kind, made.eval.tasks = "perplexity", {}
        made.train.until = {"interim/forget_bio/nll": {"at": 5.0, "direction": "rise", "patience": 1}}
        trained = generated.record(made, until={"reached": reached, "step": 9})
        losses = {"forget_bio": 5.0 + 200 * nu, "retain": 3.0, "perturbed": 4.0 - 10 * nu}
        parts = {name: {"nll": value, "nll_stderr": 0.1, "n": 9} for name, value in losses.items()}
        generated.write(tmp_path, trained, generated.evaluation(trained, "perplexity", 0.5) | {"metrics": parts})
    study = study_of(tmp_path)
    (item,) = compare.stopped(study)
    assert [[trial.seed for trial in pair] for pair in item.pairs] == [[0, 0]]
    assert (item.apart, item.left_out) == (pytest.approx([4.0]), {"did not reach the target": [1]})
    assert "their forget accuracies" not in " ".join(tables.stopped(study, [item]).notes)
    (verdict,) = verdicts.every(study)
    assert verdict.matched
    assert verdict.change is not None
    assert verdict.change.value == pytest.approx(-0.2)


def test_what_is_asked_nothing_forgotten_is_matched_at_its_target(tmp_path: Path):
    """As where trainings stop at a log-loss and are judged by questions on what they are to keep."""
    for nu, seed, reached in ((0.0, 0, True), (0.02, 0, True), (0.0, 1, True), (0.02, 1, False)):
        made = settings(nu=nu, seed=seed)
        made.train.until = {"interim/forget_bio/nll": {"at": 5.0, "direction": "rise", "patience": 1}}
        trained = generated.record(made, until={"reached": reached, "step": 9})
        asked = {task: score for task, score in scores(30, 60).items() if not task.startswith("forget")}
        every = [generated.evaluation(trained, task, score / 100) for task, score in asked.items()]
        generated.write(tmp_path, trained, *every)
    (item,) = compare.stopped(study_of(tmp_path))
    assert [[trial.seed for trial in pair] for pair in item.pairs] == [[0, 0]]
    assert (item.apart, item.left_out) == ([], {"did not reach the target": [1]})


def test_without_a_target_nothing_is_matched_by_it(tmp_path: Path):
    for nu in (0.0, 0.02):
        generated.trial(tmp_path, settings(nu=nu), scores(30, 60))
    study = study_of(tmp_path)
    assert compare.stopped(study) == []
    assert "'train.until={eval/forget/acc: 0.35}'" in str(tables.stopped(study, []).command)
    assert "100 steps, lr" in compare.hyperparameters(study.trials[0])
    assert "≤" not in compare.hyperparameters(study.trials[0])
