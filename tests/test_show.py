"""The table's arithmetic and its words, on accuracies chosen by hand."""

import math

import pytest

from rna import show
from rna.settings.fields import CorpusSettings, DataSettings, EvalSettings, ModelSettings, Settings, TaskSettings
from rna.show import Estimate
from rna.trial import Arm
from tests import generated

ROLES = {"bio": "forget", "cyber": "forget", "retain": "retain", "perturbed": "perturbed"}


def arm(label: str, **accuracies: float) -> Arm:
    """A row with these accuracies by task name, each with a standard error of 0.01."""
    tasks = {name: TaskSettings(f"task_{name}", role) for name, role in ROLES.items()}
    settings = Settings(model=ModelSettings("demo", "-"), eval=EvalSettings("demo", keyword="typhus", tasks=tasks))
    found = {name: {"metrics": {"acc": acc, "acc_stderr": 0.01, "n": 100}} for name, acc in accuracies.items()}
    return Arm(label, settings, "key", {}, {name: {} for name in tasks}, None, found)


def judged(label: str, **losses: float) -> Arm:
    """A row with these log-losses by role, each with a standard error of 0.01."""
    settings = Settings(
        model=ModelSettings("demo", "-"), data=DataSettings("text"), eval=EvalSettings("perplexity", "perplexity")
    )
    metrics = {role: {"nll": nll, "nll_stderr": 0.01} for role, nll in losses.items()}
    return Arm(label, settings, "key", {}, {"perplexity": {}}, None, {"perplexity": {"metrics": metrics}})


def line(rows: list[Arm], name: str) -> list[str]:
    """A table's row, an arm after the other."""
    names, *arms = show.table(rows).columns
    place = list(names.cells).index(name)
    return [str(list(column.cells)[place]) for column in arms]


def test_a_difference_adds_errors_in_quadrature():
    """√(0.3² + 0.4²) = 0.5."""
    made = Estimate(5.0, 0.3).minus(Estimate(7.0, 0.4))
    assert (made.value, made.stderr) == (-2.0, pytest.approx(0.5))


def test_the_margin_is_half_a_95_percent_interval():
    assert Estimate(0.0, 2.0).margin == pytest.approx(3.92, abs=1e-3)


@pytest.mark.parametrize(("value", "sign"), [(1.97, 1), (1.95, 0), (0.0, 0), (-1.95, 0), (-1.97, -1), (math.nan, 0)])
def test_a_sign_needs_an_interval_without_zero(value, sign):
    assert Estimate(value, 1.0).sign == sign


def test_the_mean_of_independent_estimates():
    """(10 + 20)/2 = 15; √(3² + 4²)/2 = 2.5."""
    made = show.mean([Estimate(10.0, 3.0), Estimate(20.0, 4.0)])
    assert (made.value, made.stderr) == (15.0, 2.5)


def test_scores_are_percent_and_the_forget_mean_is_unweighted():
    """(30 + 50)/2 = 40; √(1² + 1²)/2 = 0.707."""
    found = show.scores(arm("base", bio=0.3, cyber=0.5, retain=0.9))
    assert found["bio"] == Estimate(30.0, 1.0)
    assert (found["forget"].value, found["forget"].stderr) == (pytest.approx(40.0), pytest.approx(math.sqrt(0.5)))
    assert "perturbed" not in found


def test_several_tasks_of_a_role_are_shown_by_their_mean():
    """(30 + 50)/2 = 40; 1.96·√(1² + 1²)/2 = 1.39."""
    made = arm("base", one=0.3, two=0.5)
    made.settings.eval.tasks = {name: TaskSettings(f"task_{name}", "related") for name in ("one", "two")}
    assert line([made], "forget-related retain ↑") == ["40.0 ± 1.4"]


def test_a_number_that_was_not_finite_gives_no_verdict():
    rows = [judged("base", forget_bio=2.0, perturbed=2.0), judged("plain")]
    nothing = {"nll": None, "nll_stderr": None}
    rows[1].evaluated["perplexity"]["metrics"] = {"forget_bio": nothing, "perturbed": nothing}
    for row in rows:
        row.settings.data.topics = {"bio": CorpusSettings()}
    assert show.forgetting(rows[0], rows[0]) is not None
    assert show.forgetting(rows[1], rows[0]) is None
    assert show.verdicts(rows) == []


def test_ngrams_are_shown_by_group_beside_the_neutral_keyword():
    rows = [arm("base", neutral=0.9, ngram_2_top=0.5), arm("plain", neutral=0.8)]
    assert show.ngram_table(rows) is None
    own = {
        "neutral": TaskSettings("task_neutral", "neutral"),
        "ngram_2_top": TaskSettings("t", "ngram", n=2, group="top"),
    }
    for row in rows:
        row.settings.eval.tasks = own
    made = show.ngram_table(rows)
    assert made is not None
    assert [[str(cell) for cell in column.cells] for column in made.columns] == [
        ["neutral token", "n = 2, top similarity"],
        ["90.0 ± 2.0", "50.0 ± 2.0"],
        ["80.0 ± 2.0", "–"],
    ]


def test_what_speaks_of_other_choices_is_told_in_one_line():
    """Kept: 41.9 with them and 43.2 without; left out it reads the same, with 2,537 questions counted."""
    assert show.of_above([arm("base", perturbed=0.6), arm("plain", perturbed=0.5)]) is None
    rows = [arm("base", perturbed=0.419), arm("plain", perturbed=0.3), arm("with RNA")]
    for row, without in zip(rows, (0.432, 0.25), strict=False):
        row.evaluated["perturbed"]["metrics"] |= {"n": 2584, "of_above": 47, "acc_without_of_above": without}
    line = (
        "47 of 2,584 questions have 'all of the above' or the like as their right answer; perturbed without them: "
        "base 43.2 (with: 41.9), plain 25.0 (with: 30.0)."
    )
    assert show.of_above(rows) == line
    for row in rows[:2]:
        metrics = row.evaluated["perturbed"]["metrics"]
        acc, metrics["acc"] = metrics["acc"], metrics.pop("acc_without_of_above")
        metrics |= {"n": 2537, "acc_with_of_above": acc}
    assert show.of_above(rows) == line
    rows[0].settings.eval.split = "select"
    assert show.of_above(rows) is None


def test_rates_of_the_worked_example():
    """Base 60, plain 30, with RNA 50: reductions 50 % and 16.7 %, recovery 66.7 %."""
    rows = [arm("base", perturbed=0.6), arm("plain", perturbed=0.3), arm("with RNA", perturbed=0.5)]
    rows.append(arm("retrained", perturbed=0.55))
    assert line(rows, "reduction, %") == ["", "50.0", "16.7", ""]
    assert line(rows, "recovery, %") == ["", "", "66.7", ""]
    assert "Reduction: " in show.key(rows)


def test_a_rate_without_denominator_is_said_to_be_undefined():
    rows = [arm("base", perturbed=0.0), arm("plain", perturbed=0.0), arm("with RNA", perturbed=0.5)]
    assert line(rows, "reduction, %") == ["", "undefined", "undefined"]
    assert line(rows, "recovery, %") == ["", "", "undefined"]


def test_rates_wait_for_what_they_need():
    rows = [arm("base", perturbed=0.6), arm("plain"), arm("with RNA", perturbed=0.3)]
    assert line(rows, "reduction, %") == ["", "", "50.0"]
    assert "recovery, %" not in list(show.table(rows).columns[0].cells)
    assert "Reduction" not in show.key([arm("base", perturbed=0.6), arm("plain")])


def test_the_table_has_a_column_for_each_arm_and_a_row_for_each_role():
    """1.96·1 = 2.0 points, and 1.96·√(1² + 1²)/2 = 1.4 of the mean of two tasks."""
    rows = [arm("base", bio=0.3, cyber=0.5, retain=0.9, perturbed=0.8), arm("plain", bio=0.25)]
    names, *arms = show.table(rows).columns
    assert [column.header for column in arms] == ["base", "plain"]
    assert list(names.cells) == ["bio ↓", "cyber ↓", "forget mean ↓", "retain ↑", "retain, forget-token ↑"]
    assert line(rows, "bio ↓") == ["30.0 ± 2.0", "25.0 ± 2.0"]
    assert line(rows, "forget mean ↓")[0] == "40.0 ± 1.4"
    assert line(rows, "retain ↑") == ["90.0 ± 2.0", "–"]
    assert show.key(rows).startswith("± is half a 95 % interval over the questions")
    assert "Forget-token: 'typhus'." in show.key(rows)


def test_the_title_says_which_trial_it_is():
    rows = [arm("base", retain=0.9), arm("with RNA", retain=0.9)]
    rows[1].settings = generated.settings("npo", "mse", nu=0.02, seed=3)
    first, second = show.title(rows).splitlines()
    assert first == "demo · NPO · retain loss mse · ν 0.02 at layer 2 · unlearn layer 2 · seed 3"
    assert second == "accuracy in %, demo"
    rows[0].settings = generated.settings("none")
    assert show.title(rows[:1]).startswith("demo · none\n")


def test_the_three_questions_stand_in_their_order():
    """What a token costs is 50 − 90 beside the neutral one and 80 − 95; 1.96·√(1² + 1²) = 2.8."""
    base, plain, rna = (arm(label) for label in ("base", "plain", "with RNA"))
    for row, scores in ((base, (0.98, 0.95, 0.95)), (plain, (0.3, 0.9, 0.5)), (rna, (0.31, 0.95, 0.8))):
        forget, neutral, perturbed = scores
        row.settings.eval.tasks["neutral"] = TaskSettings("task_neutral", "neutral")
        row.evaluated |= arm("", bio=forget, cyber=forget, neutral=neutral, perturbed=perturbed).evaluated
    forgot, cost, change = show.verdicts([base, plain, rna])
    assert forgot.startswith("Did it forget? plain forgotten: ")
    assert cost == (
        "What does a forget-token cost? In points of retain accuracy, beside a neutral token: base +0.0 ± 2.8, "
        "plain -40.0 ± 2.8, with RNA -15.0 ± 2.8."
    )
    assert change == (
        "Does RNA change that, at equal forgetting? With RNA less plain: retain with a forget-token +30.0 ± 2.8 "
        "points, higher; forget +1.0 ± 2.0 points, no difference seen."
    )


@pytest.mark.parametrize(
    ("plain", "rna", "words"), [(0.3, 0.5, "higher"), (0.59, 0.58, "no difference seen"), (0.7, 0.6, "lower")]
)
def test_a_change_is_called_by_its_interval_and_nothing_helps_or_hurts(plain, rna, words):
    said = show.verdicts([arm("base", perturbed=0.6), arm("plain", perturbed=plain), arm("with RNA", perturbed=rna)])
    assert said[-1].endswith(f" points, {words}.")
    assert not {"helps", "hurts"} & set(" ".join(said).replace(".", " ").split())


def test_changes_of_log_loss_are_in_nats():
    """2.5 − 3 and 2.5 − 2, 1.96·√(0.01² + 0.01²) = 0.028."""
    rows = [judged("base", retain=2.0, perturbed=2.0), judged("plain", retain=2.0, perturbed=3.0)]
    rows.append(judged("with RNA", retain=2.0, perturbed=2.5))
    cost, change = show.verdicts(rows)
    assert "In nats a token, beside none: base +0.000 ± 0.028, plain +1.000 ± 0.028, with RNA +0.500 ± 0.028." in cost
    assert "retain with a forget-token -0.500 ± 0.028 nats a token, lower" in change


@pytest.mark.parametrize(
    ("plain", "rna", "words"),
    [
        (0.5, 0.3, "lower; the two do not forget alike: compare along α"),
        (0.5, 0.51, "no difference seen"),
        (0.3, 0.5, "higher; the two do not forget alike: compare along α"),
    ],
)
def test_a_change_at_another_forgetting_is_no_comparison(plain, rna, words):
    (said,) = show.verdicts([arm("plain", bio=plain, cyber=plain), arm("with RNA", bio=rna, cyber=rna)])
    assert said.startswith("Does RNA change that, at equal forgetting? With RNA less plain: forget ")
    assert said.endswith(f" points, {words}.")


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        *((accuracy, "forgotten") for accuracy in (0.3, 0.35)),
        *((accuracy, "partly forgotten") for accuracy in (0.36, 0.957)),
        *((accuracy, "not forgotten") for accuracy in (0.97, 0.99)),
    ],
)
def test_the_first_verdict_says_whether_anything_was_forgotten(plain, words):
    """Standard errors of √(1² + 1²)/2 a mean: 1.96·√(½ + ½) = 2.0 points; chance is 25, and near it up to 35."""
    said = show.verdicts([arm("base", bio=0.98, cyber=0.98), arm("plain", bio=plain, cyber=plain)])
    change = 100 * plain - 98
    assert said[0] == (
        f"Did it forget? plain {words}: forget accuracy {100 * plain:.1f} against 98.0 ({change:+.1f} ± 2.0 points)."
    )


def test_what_was_near_chance_before_was_not_forgotten():
    said = show.verdicts([arm("base", bio=0.3, cyber=0.3), arm("plain", bio=0.29, cyber=0.29)])
    assert said[0].startswith("Did it forget? plain not forgotten: ")


def test_the_row_with_noise_is_judged_beside_the_plain_one_or_alone():
    base, rna = arm("base", bio=0.98, cyber=0.98), arm("with RNA", bio=0.9, cyber=0.9)
    both, alone = "partly forgotten: forget accuracy 90.0 against 98.0 (-8.0 ± 2.0 points).", "Did it forget? with RNA "
    said = show.verdicts([base, arm("plain", bio=0.3, cyber=0.3), rna])[0]
    assert said.startswith("Did it forget? plain forgotten: forget accuracy 30.0 against 98.0 (")
    assert said.endswith(f"; with RNA {both}")
    assert show.verdicts([base, arm("plain"), rna])[0] == alone + both


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        (2.8, 3.1, "forgotten"),
        (2.6, 9.0, "partly forgotten"),
        (2.01, 2.01, "not forgotten"),
        (1.5, 1.5, "not forgotten"),
    ],
)
def test_of_text_each_topics_perplexity_must_double(one, other, words):
    """ln 2 = 0.693 nats above the base's 2."""
    rows = [judged("base", forget_a=2.0, forget_b=2.0), judged("plain", forget_a=one, forget_b=other)]
    for row in rows:
        row.settings.data.topics = {"a": CorpusSettings(), "b": CorpusSettings()}
    assert show.verdicts(rows)[0].startswith(f"Did it forget? plain {words}: forget perplexity ")


def test_a_ratio_of_perplexities_has_the_interval_of_its_logarithm():
    """exp(0.7 ± 1.96·√(0.01² + 0.01²)) = 2.01, 1.96 to 2.07."""
    rows = [judged("base", forget_a=2.0), judged("plain", forget_a=2.7)]
    for row in rows:
        row.settings.data.topics = {"a": CorpusSettings()}
    assert "forget perplexity 2.01 times the base's (1.96 to 2.07)." in show.verdicts(rows)[0]


def test_one_row_has_its_cost_alone():
    assert show.verdicts([arm("base", bio=0.3, perturbed=0.6)]) == []
    (said,) = show.verdicts([arm("base", retain=0.9, perturbed=0.6)])
    assert said.endswith("beside none: base -30.0 ± 2.8.")


def test_perplexity_is_shown_as_exp_of_the_log_loss():
    """exp(2) = 7.389, and half its interval 7.389·1.96·0.01 = 0.145."""
    assert line([judged("base", retain=2.0)], "retain ↓") == ["7.389 ± 0.14"]


@pytest.mark.parametrize("nats", [0.0, 5.0, 9.0, 12.0, 30.0, 699.0])
def test_no_perplexity_is_wider_than_a_column(nats):
    """Four arms of 14 characters beside the longest role fit 80."""
    (cell,) = line([judged("base", retain=nats)], "retain ↓")
    assert len(cell) <= 14
    value, margin = (float(part) for part in cell.split(" ± "))
    assert value == pytest.approx(math.exp(nats), rel=0.5)
    assert margin == pytest.approx(math.exp(nats) * 0.0196, rel=0.5)
