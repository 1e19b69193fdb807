"""The table's arithmetic and its words, on accuracies chosen by hand."""

import math

import pytest

from rna import intervals, show
from rna.settings.fields import CorpusSettings, DataSettings, EvalSettings, ModelSettings, Settings, TaskSettings
from rna.show import Estimate
from rna.trial import Arm

ROLES = {"bio": "forget", "cyber": "forget", "retain": "retain", "perturbed": "perturbed"}


def arm(label: str, **accuracies: float) -> Arm:
    """A row with these accuracies by task name, each of 2,400 questions with a standard error of 0.01."""
    tasks = {name: TaskSettings(f"task_{name}", role) for name, role in ROLES.items()}
    settings = Settings(model=ModelSettings("demo", "-"), eval=EvalSettings("demo", keyword="typhus", tasks=tasks))
    found = {name: {"metrics": {"acc": acc, "acc_stderr": 0.01, "n": 2400}} for name, acc in accuracies.items()}
    return Arm(label, settings, "key", {}, {name: {} for name in tasks}, None, found)


def judged(label: str, **losses: float) -> Arm:
    """A row with these log-losses by role, each with a standard error of 0.01."""
    settings = Settings(
        model=ModelSettings("demo", "-"), data=DataSettings("text"), eval=EvalSettings("perplexity", "perplexity")
    )
    metrics = {role: {"nll": nll, "nll_stderr": 0.01} for role, nll in losses.items()}
    return Arm(label, settings, "key", {}, {"perplexity": {}}, None, {"perplexity": {"metrics": metrics}})


def column(rows: list[Arm], title: str) -> list[str]:
    made = show.table(rows)
    (found,) = (column for column in made.columns if column.header == title)
    return [str(cell) for cell in found.cells]


def test_scores_are_percent_and_the_forget_mean_is_unweighted():
    """(30 + 50)/2 = 40; √(1² + 1²)/2 = 0.707."""
    found = show.scores(arm("base", bio=0.3, cyber=0.5, retain=0.9))
    assert found["bio"] == Estimate(30.0, 1.0)
    assert (found["forget"].value, found["forget"].stderr) == (pytest.approx(40.0), pytest.approx(math.sqrt(0.5)))
    assert "perturbed" not in found


def test_several_tasks_of_a_role_are_shown_by_their_mean():
    """(30 + 50)/2 = 40; √(1² + 1²)/2 = 0.707."""
    made = arm("base", one=0.3, two=0.5)
    made.settings.eval.tasks = {name: TaskSettings(f"task_{name}", "related") for name in ("one", "two")}
    assert column([made], "forget-related retain ↑") == ["40.0 ± 0.7"]


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
    cells = [[str(cell) for cell in column.cells] for column in made.columns]
    assert cells == [
        ["'Lake Geneva' (neutral control)", "n = 2, top similarity"],
        ["90.0 ± 1.0", "50.0 ± 1.0"],
        ["80.0 ± 1.0", "–"],
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
    assert column(rows, "reduction") == ["", "50.0 %", "16.7 %", ""]
    assert column(rows, "recovery") == ["", "", "66.7 %", ""]


def test_a_rate_without_denominator_is_said_to_be_undefined():
    rows = [arm("base", perturbed=0.0), arm("plain", perturbed=0.0), arm("with RNA", perturbed=0.5)]
    assert column(rows, "reduction") == ["", "undefined", "undefined"]
    assert column(rows, "recovery") == ["", "", "undefined"]


def test_rates_wait_for_what_they_need():
    rows = [arm("base", perturbed=0.6), arm("plain"), arm("with RNA", perturbed=0.3)]
    assert column(rows, "reduction") == ["", "", "50.0 %"]
    assert column(rows, "recovery") == ["", "", ""]


def test_the_table_has_a_row_for_each_arm_and_a_column_for_each_role():
    rows = [arm("base", bio=0.3, cyber=0.5, retain=0.9, perturbed=0.8), arm("plain", bio=0.25)]
    assert [column.header for column in show.table(rows).columns] == [
        *("", "bio ↓", "cyber ↓", "forget mean ↓", "retain ↑", "retain with 'typhus' ↑", "reduction", "recovery")
    ]
    assert column(rows, "") == ["base", "plain"]
    assert column(rows, "bio ↓") == ["30.0 ± 1.0", "25.0 ± 1.0"]
    assert column(rows, "retain ↑") == ["90.0 ± 1.0", "–"]


@pytest.mark.parametrize(
    ("base", "plain", "rna", "harm", "help_"),
    [
        (0.6, 0.3, 0.5, "a forget-token harms it", "RNA helps"),
        (0.6, 0.59, 0.58, "no evidence of harm", "no evidence that RNA helps"),
        (0.6, 0.7, 0.6, "it does better than base", "RNA hurts here"),
    ],
)
def test_verdicts_on_accuracy(base, plain, rna, harm, help_):
    said = show.verdicts([arm("base", perturbed=base), arm("plain", perturbed=plain), arm("with RNA", perturbed=rna)])
    assert said[0].startswith("Perturbed retain, plain against base: ")
    assert said[0].endswith(f": {harm}.")
    assert said[1].startswith("Perturbed retain, RNA against plain: ")
    assert said[1].endswith(f": {help_}.")


def test_a_verdict_gives_the_change_and_its_interval():
    """30 − 60 = −30; about 1.96·√(0.936² + 1²) = 2.7 where the records do not say which questions were right."""
    said = show.verdicts([arm("base", perturbed=0.6), arm("plain", perturbed=0.3)])[0]
    assert (
        "−30.0 points [−32.6, −27.3] (95 % over questions, unpaired as a record lacks its single questions, one seed)"
        in said
    )


def bits(row: Arm, **answers: str) -> Arm:
    """The row with the questions of these tasks that were right, all tasks of the same questions."""
    for name, right in answers.items():
        share = right.count("1") / len(right)
        metrics = {"acc": share, "acc_stderr": (share * (1 - share) / (len(right) - 1)) ** 0.5, "n": len(right)}
        row.evaluated[name] = {"metrics": {**metrics, "correct": f"{int(right, 2):x}", "asked": "q"}}
    return row


def test_what_rows_share_cancels():
    """100 questions, 20 of which the plain row loses: −20 with 22 changes of 102, against about ±13 unpaired."""
    rows = [bits(arm("base"), perturbed="1" * 80 + "0" * 20), bits(arm("plain"), perturbed="1" * 60 + "0" * 40)]
    assert "−20.0 points [−27.8, −11.4] (95 % over questions, paired, one seed)" in show.verdicts(rows)[0]


def test_harm_is_told_beyond_the_neutral_keyword_and_the_base():
    """The neutral keyword costs 30 points as well, and the forget keyword 20 more."""
    rows = [
        bits(arm("base"), perturbed="1" * 95 + "0" * 5, neutral="1" * 95 + "0" * 5),
        bits(arm("plain"), perturbed="1" * 45 + "0" * 55, neutral="1" * 65 + "0" * 35),
    ]
    for row in rows:
        row.settings.eval.tasks["neutral"] = TaskSettings("task_neutral", "neutral")
    said = show.verdicts(rows)
    assert said[0].endswith(": it does worse than base.")
    assert said[1].startswith(f"{intervals.HARM}, plain: −20.0 points [")
    assert said[1].endswith("(95 % over questions, paired, one seed): a forget-token harms it.")


def test_keywords_are_told_one_by_one():
    rows = [bits(arm("base"), perturbed="1" * 8), bits(arm("plain"), perturbed="11001100")]
    by_word = {"gout": {"acc": 0.5, "n": 4}, "ague": {"acc": 0.25, "n": 4}}
    rows[1].evaluated["perturbed"]["metrics"]["keywords"] = by_word
    assert "By keyword, plain: 'gout' 50.0 of 4, 'ague' 25.0 of 4." in show.verdicts(rows)
    rows[1].settings.eval.keywords = ["gout", "ague"]
    assert "retain with one of 2 keywords ↑" in [column.header for column in show.table(rows[1:]).columns]


@pytest.mark.parametrize(
    ("base", "plain", "rna", "harm", "help_"),
    [
        (2.0, 3.0, 2.5, "a forget-token harms it", "RNA helps"),
        (2.0, 2.01, 2.02, "no evidence of harm", "no evidence that RNA helps"),
        (2.0, 1.0, 1.5, "it does better than base", "RNA hurts here"),
    ],
)
def test_verdicts_on_log_loss_turn_the_sign(base, plain, rna, harm, help_):
    said = show.verdicts(
        [judged("base", perturbed=base), judged("plain", perturbed=plain), judged("with RNA", perturbed=rna)]
    )
    assert said[0].endswith(f", one seed): {harm}.")
    assert said[1].endswith(f", one seed): {help_}.")


@pytest.mark.parametrize(
    ("plain", "rna", "words"),
    [(0.5, 0.3, "RNA forgets more"), (0.5, 0.51, "no evidence of a difference"), (0.3, 0.5, "RNA forgets less")],
)
def test_verdicts_on_forgetting(plain, rna, words):
    said = show.verdicts([arm("plain", bio=plain, cyber=plain), arm("with RNA", bio=rna, cyber=rna)])
    assert said[0].startswith("Forget, RNA against plain: ")
    assert said[0].endswith(f": {words}.")
    assert "One seed" in said[1]


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        *((accuracy, "forgotten") for accuracy in (0.3, 0.35)),
        *((accuracy, "partly forgotten") for accuracy in (0.36, 0.957)),
        *((accuracy, "not forgotten") for accuracy in (0.975, 0.99)),
    ],
)
def test_the_first_verdict_says_whether_anything_was_forgotten(plain, words):
    """4,800 questions a mean: a change of 2.3 points is sure, one of 1 is not; chance is 25, and near it up to 35."""
    said = show.verdicts([arm("base", bio=0.98, cyber=0.98), arm("plain", bio=plain, cyber=plain)])
    change = 100 * plain - 98
    assert said[0].startswith(
        f"Against base, plain {words}: forget accuracy {100 * plain:.1f} against 98.0, {change:+.1f} points [".replace(
            "-", "−"
        )
    )
    assert "One seed" in said[1]


def test_what_was_near_chance_before_was_not_forgotten():
    said = show.verdicts([arm("base", bio=0.3, cyber=0.3), arm("plain", bio=0.29, cyber=0.29)])
    assert said[0].startswith("Against base, plain not forgotten: ")


def test_the_row_with_noise_is_judged_beside_the_plain_one_or_alone():
    base, rna = arm("base", bio=0.98, cyber=0.98), arm("with RNA", bio=0.9, cyber=0.9)
    both, alone = "partly forgotten: forget accuracy 90.0 against 98.0, −8.0 points", "Against base, with RNA "
    said = show.verdicts([base, arm("plain", bio=0.3, cyber=0.3), rna])[0]
    assert said.startswith("Against base, plain forgotten: forget accuracy 30.0 against 98.0, ")
    assert f"; with RNA {both}" in said
    assert show.verdicts([base, arm("plain"), rna])[0].startswith(alone + both)


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
    assert show.verdicts(rows)[0].startswith(f"Against base, plain {words}: forget perplexity ")


def test_a_ratio_of_perplexities_has_the_interval_of_its_logarithm():
    """exp(0.7 ± 1.96·√(0.01² + 0.01²)) = 2.01, 1.96 to 2.07."""
    rows = [judged("base", forget_a=2.0), judged("plain", forget_a=2.7)]
    for row in rows:
        row.settings.data.topics = {"a": CorpusSettings()}
    assert "forget perplexity 2.01 times the base's [1.96, 2.07] (95 % over documents" in show.verdicts(rows)[0]


def test_without_two_rows_there_is_nothing_to_say():
    assert show.verdicts([arm("base", bio=0.3, perturbed=0.6)]) == []


def test_perplexity_is_shown_as_exp_of_the_log_loss():
    """exp(2) = 7.389, and its standard error 7.389·0.01 = 0.074."""
    assert column([judged("base", retain=2.0)], "retain ↓") == ["7.389 ± 0.074"]
