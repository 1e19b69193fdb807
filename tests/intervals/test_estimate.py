"""Intervals by hand: pairing cancels what rows share, and what is missing is said."""

import math
from dataclasses import replace

import numpy as np
import pytest

from rna import intervals
from rna.intervals import Estimate, Score, questions, scores_of, t_95


def of(bits: str, asked: str | None = "q", **more: str) -> Score:
    """A score from the questions that were right."""
    n, share = len(bits), bits.count("1") / len(bits)
    stderr = 100 * math.sqrt(share * (1 - share) / (n - 1))
    return Score(100 * share, stderr, n, f"{int(bits, 2):x}", asked, **more)


def difference(one: Score, other: Score) -> Estimate:
    return intervals.estimate([intervals.difference([(1.0, one)], [(1.0, other)])])


def half(made: Estimate) -> float:
    assert made.low is not None
    assert made.high is not None
    return (made.high - made.low) / 2


# Seeds


def test_a_t_interval_over_three_seeds():
    """Mean 2, standard deviation 1, t = 4.3027 with two degrees of freedom: 2 ± 4.3027/√3 = 2 ± 2.4841."""
    made = intervals.over_seeds([1.0, 2.0, 3.0])
    assert (made.value, made.n, made.over) == (2.0, 3, "seeds")
    assert made.low == pytest.approx(-0.4841, abs=1e-4)
    assert made.high == pytest.approx(4.4841, abs=1e-4)


def test_one_seed_has_no_interval_over_seeds():
    assert intervals.over_seeds([5.0]) == Estimate(5.0, n=1)


def test_several_seeds_that_differ_have_an_interval_over_seeds_of_paired_differences():
    """Changes of 10, 20 and 30 points: 20 ± 4.3027·10/√3, whatever the questions say."""
    base = of("1" * 10)
    rows = [of("1" * (10 - lost) + "0" * lost) for lost in (1, 2, 3)]
    made = intervals.estimate([intervals.difference([(1.0, row)], [(1.0, base)]) for row in rows])
    assert (made.over, made.n) == ("seeds", 3)
    assert (made.value, half(made)) == (pytest.approx(-20), pytest.approx(24.841, abs=1e-3))
    assert "95 % over 3 seeds" in intervals.said(made, 1)


def test_seeds_that_agree_are_no_certainty_and_ask_the_same_questions():
    """Two seeds with the same answers know no more of other questions than one."""
    one, base = of("1" * 40 + "0" * 60), of("1" * 60 + "0" * 40)
    terms = intervals.difference([(1.0, one)], [(1.0, base)])
    alone, twice = intervals.estimate([terms]), intervals.estimate([terms, terms])
    assert (twice.over, twice.n) == ("questions", 2)
    assert half(twice) == pytest.approx(half(alone))
    assert "2 seeds that agree" in intervals.said(twice, 1)


# Questions


def test_paired_changes_by_hand():
    """Of 100 questions 12 are lost and 4 gained; one of each is added: 17 changes of 102, mean −8/102.

    The mean square is (13 + 5)/102, and 1.96 times the root of its variance over 102 half the interval.
    """
    one, other = of("0" * 12 + "1" * 4 + "1" * 50 + "0" * 34), of("1" * 12 + "0" * 4 + "1" * 50 + "0" * 34)
    made = difference(one, other)
    deviation = math.sqrt((18 / 102 - (8 / 102) ** 2) * 102 / 101)
    assert made.value == pytest.approx(-8)
    assert made.low == pytest.approx(100 * (-8 / 102 - 1.959964 * deviation / math.sqrt(102)))
    assert (made.over, made.paired) == ("questions", True)
    assert half(made) < 0.65 * half(difference(one, replace(other, asked="others")))


def test_few_changes_have_exact_limits():
    """One question of 50 lost: Clopper and Pearson give 0.0506 % to 10.647 % lost and 0 to 7.112 % gained."""
    made = difference(of("0" + "1" * 49), of("1" * 50))
    assert made.low == pytest.approx(-2 - (10.647 - 2), abs=2e-3)
    assert made.high == pytest.approx(-2 + math.hypot(2 - 0.0506, 7.112), abs=2e-3)


def test_equal_answers_leave_what_might_have_changed():
    made = difference(of("1" * 50), of("1" * 50))
    assert (made.low, made.high) == (pytest.approx(-7.112, abs=1e-3), pytest.approx(7.112, abs=1e-3))


@pytest.mark.parametrize("changed", [{"asked": "others"}, {"correct": None}, {"correct": "zz"}, {"correct": "0"}])
def test_without_the_same_questions_a_difference_is_unpaired_and_says_so(changed: dict[str, str | None]):
    one, other = of("1" * 30 + "0" * 20), of("1" * 40 + "0" * 10)
    made = difference(one, replace(other, **changed))
    assert not made.paired
    assert "unpaired" in intervals.said(made, 1)
    assert half(made) > half(difference(one, other))
    low, high = questions.wilson(0.6, 50)
    below, above = questions.wilson(0.8, 50)
    assert made.high == pytest.approx(100 * (-0.2 + math.hypot(high - 0.6, 0.8 - below)))
    assert made.low == pytest.approx(100 * (-0.2 - math.hypot(0.6 - low, above - 0.8)))


def test_a_score_alone_has_wilsons_interval():
    """8 of 10: 49.02 % to 94.33 %."""
    made = intervals.estimate([[(1.0, of("1" * 8 + "00"))]])
    assert (made.low, made.high) == (pytest.approx(49.02, abs=0.01), pytest.approx(94.33, abs=0.01))


def test_the_mean_of_two_tasks_joins_their_limits():
    one, two = of("1" * 30 + "0" * 20, "a"), of("1" * 10 + "0" * 40, "b")
    parts = [intervals.estimate([[(1.0, score)]]) for score in (one, two)]
    made = intervals.estimate([intervals.mean([one, two])])
    assert made.value == pytest.approx(40)
    assert made.high == pytest.approx(40 + math.hypot(*(part.high - part.value for part in parts)) / 2)  # pyright: ignore


def test_harm_is_one_difference_over_the_four_answers_to_each_question():
    """The keyword costs the trial 20 of 100 questions beyond the neutral one, and the base none.

    Questions that both keywords cost, or that cost the base too, cancel: 30 and 5 here.
    """
    base, base_perturbed = "1" * 95 + "0" * 5, "1" * 95 + "0" * 5
    neutral, perturbed = "0" * 30 + "1" * 65 + "0" * 5, "0" * 50 + "1" * 45 + "0" * 5
    parts = [[(1.0, of(bits))] for bits in (perturbed, neutral, base_perturbed, base)]
    made = intervals.estimate([intervals.harm(*parts)])
    assert (made.value, made.sign, made.paired) == (pytest.approx(-20), -1, True)
    apart = [[(1.0, of(bits, f"q{place}"))] for place, (((_, _),), bits) in enumerate(zip(parts, [perturbed, neutral, base_perturbed, base], strict=True))]  # fmt: skip # noqa: E501
    assert half(made) < 0.6 * half(intervals.estimate([intervals.harm(*apart)]))


# Keywords


def test_from_five_keywords_on_an_interval_speaks_of_other_keywords_too():
    """Five keywords of 20 questions each lose 0, 5, 10, 15 and 20: mean 50 ± 2.776·√(125/2)·5/√5 points."""
    bits = "".join("0" * lost + "1" * (20 - lost) for lost in (0, 5, 10, 15, 20))
    drawn = "".join(str(number) * 20 for number in range(5))
    made = difference(of(bits, drawn=drawn), of("1" * 100))
    assert made.over == "questions and keywords"
    assert made.value == pytest.approx(-50)
    assert half(made) == pytest.approx(t_95(4) * 100 * np.std([0, 0.25, 0.5, 0.75, 1], ddof=1) / math.sqrt(5))
    four = difference(of(bits, drawn=drawn.replace("4", "3")), of("1" * 100))
    assert four.over == "questions"
    assert half(four) < half(made) / 3


# Documents


def text(losses: list[float], tokens: list[int], asked: str = "d") -> Score:
    metrics = {"nll": sum(losses) / sum(tokens), "nll_stderr": 0.26, "n": len(losses), "asked": asked}
    return scores_of({**metrics, "losses": losses, "tokens": tokens}, "retain")["all"]


def test_documents_are_paired_and_equal_ones_leave_no_doubt():
    """Changes of 1, 2 and 3 nats in documents of 10 tokens: 0.2 ± 4.3027·0.1/√3; none at all: exactly 0."""
    before, after = text([20.0, 50.0, 80.0], [10, 10, 10]), text([21.0, 52.0, 83.0], [10, 10, 10])
    made = difference(after, before)
    assert (made.value, half(made)) == (pytest.approx(0.2), pytest.approx(0.24841, abs=1e-5))
    assert (made.over, made.paired) == ("documents", True)
    same = difference(before, before)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert half(difference(after, replace(before, asked="other texts"))) > 0.5


def test_a_record_without_single_documents_is_read_and_unpaired():
    old = scores_of({"nll": 2.0, "nll_stderr": 0.1, "n": 200}, "retain")["all"]
    made = difference(old, old)
    assert not made.paired
    assert half(made) == pytest.approx(t_95(199) * 0.1 * math.sqrt(2))


# Records


def test_a_half_has_its_own_bits_and_an_old_record_none():
    new = {"acc": 0.5, "acc_stderr": 0.1, "n": 4, "correct": "3", "asked": "a"}
    found = scores_of({**new, "report": {"acc": 0.5, "acc_stderr": 0.3, "n": 2, "correct": "1", "asked": "b"}}, "t")
    assert [(score.n, score.asked, score.correct) for score in found.values()] == [(4, "a", "3"), (2, "b", "1")]
    old = scores_of({"acc": 0.5, "acc_stderr": 0.1, "n": 4, "correct": "3", "select": {"acc": 1.0, "n": 1}}, "t")
    assert (old["all"].asked, old["select"].units) == ("t all", None)


def test_what_was_not_finite_has_no_interval():
    made = intervals.estimate([[(1.0, scores_of({"nll": None, "nll_stderr": None, "n": 9}, "t")["all"])]])
    assert math.isnan(made.value)
    assert made.low is None


# Words


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.0, 3.0, "higher"),
        (-3.0, -1.0, "lower"),
        (-1.0, 3.0, "no difference seen"),
        (0.0, 3.0, "no difference seen"),
        (None, None, "no interval"),
    ],
)
def test_the_word_follows_the_interval(low: float | None, high: float | None, said: str):
    assert intervals.answers.word(Estimate(1.0, low, high)) == said
