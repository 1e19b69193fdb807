"""TOFU's numbers against what is worked out by hand."""

import math

import pytest

from rna.intervals import tofu

LN2, LN4, LN8 = math.log(2), math.log(4), math.log(8)


def test_a_probability_is_the_tokens_geometric_mean():
    """Tokens of 1/2 and 1/8: (1/16)^(1/2) = 1/4."""
    assert tofu.probability(-(LN2 + LN8) / 2) == pytest.approx(1 / 4)


def test_where_there_are_choices_it_is_the_share_of_all_answers():
    """1/4 of 1/4 + 1/2 + 1/8 + 1/8."""
    assert tofu.share(-LN4, [-LN2, -LN8, -LN8]) == pytest.approx(1 / 4)


def test_a_truth_ratio_takes_the_wrong_answers_geometric_mean():
    """Wrong ones of 1/2 and 1/8, the right one of 1/2: 1/4 over 1/2; arithmetic it were 5/16 over 1/2."""
    assert tofu.truth_ratio(-LN2, [-LN2, -LN8]) == pytest.approx(1 / 2)
    assert tofu.truth_ratio(-LN8, [-LN2, -LN8]) == pytest.approx(2)
    assert math.isfinite(tofu.truth_ratio(-1e4, [0.0]))


def test_of_the_forget_set_a_truth_ratio_counts_by_its_distance_from_one():
    ratios = [0.5, 2.0, 1.0]
    assert tofu.told("forget", "truth_ratio", ratios) == [0.5, 0.5, 1.0]
    assert tofu.told("retain", "truth_ratio", ratios) == [0.5, 0.0, 0.0]
    assert tofu.told("forget", "rouge", ratios) == ratios


@pytest.mark.parametrize(
    ("likeliest", "strength"),
    [
        ([True, True, True, True], 1.0),  # k = 0
        ([False, True, True, True], 0.75),  # k = 1
        ([True, False, True, True], 0.5),  # k = 2: what comes before the last miss helps nothing
        ([True, True, True, False], 0.25),  # k = 3, as low as it gets
        ([False, False, False, False], 0.25),
    ],
)
def test_extraction_strength_is_the_share_that_follows_by_itself(likeliest: list[bool], strength: float):
    assert tofu.extraction_strength(likeliest) == strength


def test_the_harmonic_mean_is_zero_where_one_is():
    assert tofu.harmonic_mean([1 / 2, 1 / 4]) == pytest.approx(1 / 3)
    assert tofu.harmonic_mean([0.5, 0.0]) == 0


def answers(prob: list[float], rouge: list[float], ratio: list[float]) -> dict[str, list[float]]:
    return {"prob": prob, "rouge": rouge, "truth_ratio": ratio, "extraction_strength": [0.5, 1.0]}


def test_a_summary_is_of_single_answers():
    """Nine numbers, eight of 1/2 and world facts' ROUGE of 1/4: 9 / (8·2 + 4) = 9/20. That ROUGE is of 0 and 1/2, so a
    question adds (H²/9)/(1/4)²·x = 0.36·x, 0 or 0.18: a standard error of 0.18/√2/√2 = 0.09. All else is certain."""
    half = answers([0.5, 0.5], [0.5, 0.5], [0.5, 0.5])
    found = tofu.summary(dict.fromkeys(tofu.SETS, half) | {"world_facts": {**half, "rouge": [0.0, 0.5]}})
    assert found["model_utility"] == pytest.approx(9 / 20)
    assert found["model_utility_stderr"] == pytest.approx(0.09)
    assert found["world_facts/rouge"] == 0.25
    assert found["world_facts/rouge_stderr"] == 0.25
    assert (found["extraction_strength"], found["extraction_strength_stderr"]) == (0.75, 0.25)
    assert {name for name in found if not name.endswith("_stderr")} == set(tofu.NAMES)
    worthless = dict.fromkeys(tofu.SETS, half) | {"retain": answers([0.0, 0.0], [1.0, 1.0], [0.0, 0.0])}
    assert (tofu.summary(worthless)["model_utility"], tofu.summary(worthless)["model_utility_stderr"]) == (0, 0)


def test_forget_quality_is_the_p_of_two_samples():
    """Two samples of two that do not overlap: of the 6 orders 2 are as far apart, p = 1/3. Alike: p = 1."""
    found = tofu.forget_quality([0.1, 0.2], [0.3, 0.4])
    assert found["forget_quality"] == pytest.approx(1 / 3)
    assert found["forget_quality_log10"] == pytest.approx(-math.log10(3))
    assert tofu.forget_quality([0.1, 0.2], [0.1, 0.2])["forget_quality"] == pytest.approx(1)
    ones = [float(number) for number in range(400)]
    assert tofu.forget_quality(ones, [1e3 + one for one in ones])["forget_quality_log10"] < -200


def test_forget_quality_does_not_ask_which_way_the_ratio_is_written():
    one, other = [0.1, 0.7, 1.3, 2.0], [0.5, 0.6, 1.5, 3.0]
    turned = tofu.forget_quality([1 / ratio for ratio in one], [1 / ratio for ratio in other])
    assert tofu.forget_quality(one, other) == pytest.approx(turned)


def test_records_of_other_questions_are_not_compared():
    record = {"asked": "a", "questions": {"forget": answers([], [], [0.1, 0.2])}}
    assert tofu.against(record, record)["forget_quality"] == pytest.approx(1)
    assert tofu.against(record, record | {"asked": "b"}) == {}
