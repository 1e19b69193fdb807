"""The table's arithmetic and its words, on accuracies chosen by hand."""

import math
import re
from pathlib import Path

import pytest

from rna import intervals, run, show
from rna.intervals import answers
from rna.settings import config
from rna.settings.fields import CorpusSettings, DataSettings, EvalSettings, ModelSettings, Settings, TaskSettings
from rna.trial import Arm
from tests import generated

ROLES = {"bio": "forget", "cyber": "forget", "retain": "retain", "perturbed": "perturbed"}


def arm(label: str, **accuracies: float) -> Arm:
    """A row with these accuracies by task name, each of 2,400 questions of which the record has the total alone."""
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


def bits(row: Arm, **answers: str) -> Arm:
    """The row with the questions of these tasks that were right, all tasks of the same questions."""
    for name, right in answers.items():
        share = right.count("1") / len(right)
        metrics = {"acc": share, "acc_stderr": (share * (1 - share) / (len(right) - 1)) ** 0.5, "n": len(right)}
        row.evaluated[name] = {"metrics": {**metrics, "correct": f"{int(right, 2):x}", "asked": "q"}}
        if name == "neutral":
            row.settings.eval.tasks["neutral"] = TaskSettings("task_neutral", "neutral")
    return row


def line(rows: list[Arm], name: str) -> list[str]:
    """A table's row, an arm after the other."""
    names, *arms = show.table(rows).columns
    place = list(names.cells).index(name)
    return [str(list(column.cells)[place]) for column in arms]


def test_scores_are_percent_and_the_forget_mean_is_unweighted():
    """(30 + 50)/2 = 40. Wilson's intervals of 2,400 questions, and √(1.83² + 2.00²)/2 = 1.36 about the mean."""
    found = show.scores(arm("base", bio=0.3, cyber=0.5, retain=0.9))
    half = {name: (one.high - one.low) / 2 for name, one in found.items() if one.low is not None and one.high}
    values = {"bio": 30.0, "cyber": 50.0, "retain": 90.0, "forget": 40.0}
    assert {name: one.value for name, one in found.items()} == pytest.approx(values)
    expected = {"bio": 1.832, "cyber": 1.999, "retain": 1.201, "forget": 1.356}
    assert half == pytest.approx(expected, abs=1e-3)


def test_a_cell_is_half_the_width_of_the_interval_that_every_page_shows():
    """40 of 40 right: [91.24, 100], of which 4.4 is half; an interval that is told as ± alone."""
    row = bits(arm("base"), retain="1" * 40)
    (score,) = show.terms(row)["retain"]
    made = intervals.estimate([[score]])
    assert (made.low, made.high) == (pytest.approx(91.24, abs=0.01), pytest.approx(100.0))
    assert line([row], "retain ↑") == ["100.0 ± 4.4"]


def test_several_tasks_of_a_role_are_shown_by_their_mean():
    made = arm("base", one=0.3, two=0.5)
    made.settings.eval.tasks = {name: TaskSettings(f"task_{name}", "related") for name in ("one", "two")}
    assert line([made], "forget-related retain ↑") == ["40.0 ± 1.4"]


def test_a_number_that_was_not_finite_gives_no_verdict():
    rows = [judged("base", forget_bio=2.0, perturbed=2.0), judged("plain")]
    nothing = {"nll": None, "nll_stderr": None}
    rows[1].evaluated["perplexity"]["metrics"] = {"forget_bio": nothing, "perturbed": nothing}
    for row in rows:
        row.settings.data.topics = {"bio": CorpusSettings()}
    assert show.forgot(rows[0], rows[0]) is not None
    assert show.forgot(rows[1], rows[0]) is None
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
        ["90.0 ± 1.2", "50.0 ± 2.0"],
        ["80.0 ± 1.6", "–"],
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
    assert show.key(rows).endswith("recovery: how much of that the noise gives back.")
    defended = [rows[0], rows[1], arm("defended", perturbed=0.5), rows[3]]
    assert line(defended, "recovery, %") == line(rows, "recovery, %")
    assert show.key(defended).endswith("recovery: how much of that the defence gives back.")


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
    rows = [arm("base", bio=0.3, cyber=0.5, retain=0.9, perturbed=0.8), arm("plain", bio=0.25)]
    names, *arms = show.table(rows).columns
    assert [column.header for column in arms] == ["base", "plain"]
    assert list(names.cells) == ["bio ↓", "cyber ↓", "forget mean ↓", "retain ↑", "retain, forget-token ↑"]
    assert line(rows, "bio ↓") == ["30.0 ± 1.8", "25.0 ± 1.7"]
    assert line(rows, "forget mean ↓")[0] == "40.0 ± 1.4"
    assert line(rows, "retain ↑") == ["90.0 ± 1.2", "–"]
    assert show.key(rows).startswith("± is half the width of a 95 % interval over the questions, which near 0 and 100 ")
    assert "Forget-token: 'typhus'." in show.key(rows)


def test_the_title_says_which_trial_it_is():
    rows = [arm("base", retain=0.9), arm("with RNA", retain=0.9)]
    rows[1].settings = generated.settings("npo", "mse", nu=0.02, seed=3)
    first, second = show.title(rows).splitlines()
    assert first == "demo · NPO · retain loss mse · ν 0.02 at layer 2 · unlearn layer 2 · seed 3"
    assert second == "accuracy in %, demo"
    rows[0].settings = generated.settings("none")
    assert show.title(rows[:1]).startswith("demo · none\n")


def ones(right: int) -> str:
    """Of 100 questions the first so many right."""
    return "1" * right + "0" * (100 - right)


def trial() -> list[Arm]:
    """A neutral keyword costs the plain model 30 points and the forget keyword 20 more, of which the noise saves 8."""
    base = bits(arm("base"), bio=ones(98), neutral=ones(95), perturbed=ones(95))
    plain = bits(arm("plain"), bio=ones(30), neutral=ones(65), perturbed=ones(45))
    return [base, plain, bits(arm("with RNA"), bio=ones(31), neutral=ones(66), perturbed=ones(54))]


def test_the_three_questions_stand_in_their_order_and_what_intervals_are_over_once():
    forgot, cost, change, over = show.verdicts(trial())
    assert forgot.startswith("Did it forget? plain forgotten: forget accuracy 30.0 against 98.0, −68.0 points [")
    assert re.sub(r"\[.*?\]", "[]", cost) == (
        "What does a forget-token cost? Retain with it less retain with a neutral one, against the same in base: "
        "plain −20.0 points [], a cost; with RNA −12.0 points [], a cost."
    )
    assert re.sub(r"\[.*?\]", "[]", change) == (
        "Does RNA change that, at equal forgetting? With RNA less plain: retain with a forget-token +9.0 points [], "
        "higher; forget +1.0 points [], no difference seen."
    )
    assert over == "In brackets: 95 % over questions, paired, one seed."


def test_each_answer_has_the_interval_of_its_paired_questions():
    rows = trial()
    base, plain, rna = ({name: of[0][1] for name, of in show.terms(row).items()} for row in rows)
    one = {name: [(1.0, score)] for name, score in plain.items()}
    made = intervals.harm(one["perturbed"], one["neutral"], *([(1.0, base[name])] for name in ("perturbed", "neutral")))
    assert short(intervals.estimate([made])) in show.verdicts(rows)[1]
    noised = intervals.difference([(1.0, rna["perturbed"])], one["perturbed"])
    assert short(intervals.estimate([noised])) in show.verdicts(rows)[2]


def test_what_a_forget_question_costs_the_retain_question_beside_it_is_told():
    """(30 − 65) − (80 − 90) = −25 points, question by question, in the rows of its own titles."""
    tasks = {name: TaskSettings(f"task_{name}", name) for name in ("mixed", "mixed_neutral", "forget_mixed")}
    rows = [arm("base"), arm("plain")]
    for row, mixed, neutral in zip(rows, (80, 30), (90, 65), strict=True):
        row.settings.eval.tasks = tasks
        bits(row, mixed=ones(mixed), mixed_neutral=ones(neutral), forget_mixed=ones(30))
    (said, _) = show.verdicts(rows)
    assert re.sub(r"\[.*?\]", "[]", said) == (
        "And beside a forget question, less beside another retain question? plain −25.0 points [], a cost."
    )
    titles = ["retain beside retain ↑", "retain beside forget ↑", "forget beside retain ↓"]
    assert list(show.table(rows).columns[0].cells) == titles
    assert line(rows, titles[1])[1].startswith("30.0 ±")


def short(made: intervals.Estimate) -> str:
    """As it is told where what it is over is told below."""
    return intervals.said(made, 1, "points").partition(" (")[0]


def test_what_arms_share_cancels():
    """100 questions, 20 of which the plain model loses: 22 changes of 102, against about ±13 unpaired."""
    rows = [bits(arm("plain"), perturbed=ones(80)), bits(arm("with RNA"), perturbed=ones(60))]
    assert "−20.0 points [−27.8, −11.4], lower" in show.verdicts(rows)[0]


def test_without_a_neutral_keyword_an_arms_own_difference_is_its_cost():
    rows = [bits(arm(label), retain=ones(90), perturbed=ones(right)) for label, right in (("base", 90), ("plain", 70))]
    cost, _ = show.verdicts(rows)
    assert cost.startswith("What does a forget-token cost? Retain with it less retain without: base +0.0 points [")
    assert "], none seen; plain −20.0 points [−27.8, −11.4], a cost." in cost


def test_records_without_single_questions_say_that_they_are_unpaired():
    """30 − 60 = −30, and about 1.96·√(0.936² + 1²) = 2.7."""
    rows = [arm("plain", perturbed=0.6), arm("with RNA", perturbed=0.3)]
    change, over = show.verdicts(rows)
    assert "−30.0 points [−32.6, −27.3], lower" in change
    assert over == "In brackets: 95 % over questions, unpaired as a record lacks its single questions, one seed."


def test_an_interval_unlike_the_others_says_itself_what_it_is_over():
    rows = trial()
    del rows[2].evaluated["perturbed"]["metrics"]["correct"]
    forgot, cost, change, over = show.verdicts(rows)
    assert over == "In brackets: 95 % over questions, paired, one seed, where nothing else is said."
    assert "95 %" not in forgot
    assert cost.count("] (95 % over questions, unpaired as a record lacks its single questions, one seed), ") == 1
    assert change.count("unpaired") == 1


def test_keywords_are_told_one_by_one_and_counted_in_the_key():
    rows = [bits(arm("plain"), perturbed="1" * 8), bits(arm("with RNA"), perturbed="11001100")]
    by_word = {"gout": {"acc": 0.5, "n": 4}, "ague": {"acc": 0.25, "n": 4}}
    rows[1].evaluated["perturbed"]["metrics"]["keywords"] = by_word
    assert show.verdicts(rows)[-1] == "By keyword, with RNA: 'gout' 50.0 of 4, 'ague' 25.0 of 4."
    rows[0].settings.eval.keywords = ["gout", "ague"]
    assert "over the questions, " in show.key(rows)
    assert "Forget-token: one of 2 keywords." in show.key(rows)
    rows[0].evaluated["perturbed"]["metrics"]["drawn"] = "01234567"
    assert "over the questions and, with a forget-token, its keywords" in show.key(rows)


@pytest.mark.parametrize(
    ("plain", "rna", "words"), [(0.3, 0.5, "higher"), (0.59, 0.58, "no difference seen"), (0.7, 0.6, "lower")]
)
def test_a_change_is_called_by_its_interval_and_nothing_helps_or_hurts(plain, rna, words):
    said = show.verdicts([arm("base", perturbed=0.6), arm("plain", perturbed=plain), arm("with RNA", perturbed=rna)])
    assert said[-2].endswith(f"], {words}.")
    assert not {"helps", "hurts"} & set(" ".join(said).replace(".", " ").split())


def test_changes_of_log_loss_are_in_nats():
    """2.5 − 3 and 2.5 − 2, 1.96·√(0.01² + 0.01²) = 0.028; more of it is worse."""
    rows = [judged("base", retain=2.0, perturbed=2.0), judged("plain", retain=2.0, perturbed=3.0)]
    rows.append(judged("with RNA", retain=2.0, perturbed=2.5))
    cost, change, over = show.verdicts(rows)
    assert (
        "base +0.000 nats a token [−0.028, +0.028], none seen; plain +1.000 nats a token [+0.972, +1.028], a cost"
        in cost
    )
    assert "retain with a forget-token −0.500 nats a token [−0.528, −0.472], lower." in change
    assert "95 % over documents" in over


def test_text_is_compared_at_equal_forgetting_too():
    rows = [judged("plain", forget_a=3.0, perturbed=3.0), judged("with RNA", forget_a=2.5, perturbed=2.5)]
    for row in rows:
        row.settings.data.topics = {"a": CorpusSettings()}
    said = show.verdicts(rows)[0]
    assert said.endswith(
        "; forget −0.500 nats a token [−0.528, −0.472], lower; the two do not forget alike: compare along α."
    )


@pytest.mark.parametrize(
    ("plain", "rna", "words"),
    [
        (0.5, 0.3, "lower; the two do not forget alike: compare along α"),
        (0.5, 0.51, "no difference seen"),
        (0.3, 0.5, "higher; the two do not forget alike: compare along α"),
    ],
)
def test_a_change_at_another_forgetting_is_no_comparison(plain, rna, words):
    said, _ = show.verdicts([arm("plain", bio=plain, cyber=plain), arm("with RNA", bio=rna, cyber=rna)])
    assert said.startswith("Does RNA change that, at equal forgetting? With RNA less plain: forget ")
    assert said.endswith(f"], {words}.")


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        *((accuracy, "forgotten") for accuracy in (0.3, 0.35)),
        *((accuracy, "partly forgotten") for accuracy in (0.36, 0.957)),
        *((accuracy, "not forgotten") for accuracy in (0.975, 0.99)),
    ],
)
def test_the_first_verdict_says_whether_anything_was_forgotten(plain, words):
    """4,800 questions a mean: a change of 2.3 points is sure, one of ½ is not; chance is 25, and near it up to 35."""
    said = show.verdicts([arm("base", bio=0.98, cyber=0.98), arm("plain", bio=plain, cyber=plain)])
    change = 100 * plain - 98
    told = f"Did it forget? plain {words}: forget accuracy {100 * plain:.1f} against 98.0, {change:+.1f} points ["
    assert said[0].startswith(told.replace("-", "−"))


def test_what_was_near_chance_before_was_not_forgotten():
    said = show.verdicts([arm("base", bio=0.3, cyber=0.3), arm("plain", bio=0.29, cyber=0.29)])
    assert said[0].startswith("Did it forget? plain not forgotten: ")


def test_the_row_with_noise_is_judged_beside_the_plain_one_or_alone():
    base, rna = arm("base", bio=0.98, cyber=0.98), arm("with RNA", bio=0.9, cyber=0.9)
    both, alone = "partly forgotten: forget accuracy 90.0 against 98.0, −8.0 points [", "Did it forget? with RNA "
    said = show.verdicts([base, arm("plain", bio=0.3, cyber=0.3), rna])[0]
    assert said.startswith("Did it forget? plain forgotten: forget accuracy 30.0 against 98.0, ")
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
    assert show.verdicts(rows)[0].startswith(f"Did it forget? plain {words}: forget perplexity ")


def test_a_ratio_of_perplexities_has_the_interval_of_its_logarithm():
    """exp(0.7 ± 1.96·√(0.01² + 0.01²)) = 2.01, 1.96 to 2.07."""
    rows = [judged("base", forget_a=2.0), judged("plain", forget_a=2.7)]
    for row in rows:
        row.settings.data.topics = {"a": CorpusSettings()}
    assert "forget perplexity 2.01 times the base's [1.96, 2.07]." in show.verdicts(rows)[0]


def test_one_row_has_its_cost_alone():
    assert show.verdicts([arm("base", bio=0.3, perturbed=0.6)]) == []
    said, _ = show.verdicts([arm("base", retain=0.9, perturbed=0.6)])
    assert re.search(r"retain without: base −30.0 points \[\S+ \S+\], a cost\.$", said)


def test_perplexity_is_shown_as_exp_of_the_log_loss():
    """exp(2) = 7.389, and half of exp(2 ± 1.96·0.01), 0.145."""
    assert line([judged("base", retain=2.0)], "retain ↓") == ["7.389 ± 0.14"]


def test_what_rounds_to_a_hundred_is_written_so():
    """exp(5.5245) = 250.8, and half the width 99.6."""
    assert answers.short(99.6, 2) == "100"
    assert answers.short(99.4, 2) == "99"


def test_a_text_has_no_rates():
    rows = [judged(label, forget=3.0, retain=3.0, perturbed=3.5, neutral=3.1) for label in ("base", "plain")]
    assert "Reduction" not in show.key(rows)


def test_a_group_without_a_common_metric_is_told_task_by_task():
    row = arm("base", retain=0.9)
    row.settings.eval.tasks["mixed"] = TaskSettings("own_mixed", "related")
    subtasks = {"own_choice": {"n": 4, "acc": 0.5, "acc_stderr": 0.25}, "own_written": {"n": 4, "exact_match": 0.0}}
    row.evaluated["mixed"] = {"metrics": {"n": 8, "score": None, "subtasks": subtasks}}
    told = show.own_table([row])
    assert told is not None
    cells = [list(column.cells) for column in told.columns]
    assert cells == [["mixed own_choice acc", "mixed own_written exact_match"], ["0.5 ± 0.49", "0"]]


@pytest.mark.parametrize("nats", [0.0, 5.0, 9.0, 12.0, 30.0, 699.0])
def test_no_perplexity_is_wider_than_a_column(nats):
    """Four arms of 14 characters beside the longest role fit 80."""
    (cell,) = line([judged("base", retain=nats)], "retain ↓")
    assert len(cell) <= 14
    value, margin = (float(part) for part in cell.split(" ± "))
    assert value == pytest.approx(math.exp(nats), rel=0.5)
    assert margin == pytest.approx(math.exp(nats) * 0.0196, rel=0.5)


def test_a_long_title_breaks_before_a_whole_part():
    made = arm("plain", perturbed=0.5)
    made.settings.model.name = "a-model-with-a-name-of-forty-characters-"
    lines = show.title([made]).splitlines()
    parts = [part for line in lines[:-1] for part in line.split(" · ")]
    assert len(lines) > 2
    assert max(map(len, lines)) <= 80
    assert parts[0] == made.settings.model.name
    assert parts[-1] == f"seed {made.settings.seed}"


@pytest.mark.whole
def test_a_forget_token_in_the_question_is_spoken_of_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["method=rmu", "eval=demo_positions", "eval.limit=16", "train.steps=2", "wandb=disabled", "noise=none"]
    run.run(config.check(run.compose([*words, f"output_dir={tmp_path}", "model.retrained=null"], None)))
    shown = capsys.readouterr().out
    for said in (
        "forget-token in front ↑",
        "neutral token inside ↑",
        "forget, forget-token ↓",
        "forget beside retain ↓",
    ):
        assert said in shown
    assert "And in front of the question? plain " in shown
    assert "And inside the question? plain " in shown
    assert "And beside a forget question, less beside another retain question? plain " in shown
