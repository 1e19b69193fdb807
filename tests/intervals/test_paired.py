"""Paired values: Student's test, Holm's correction and Fieller's interval, against numbers worked out by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from rna.intervals import holm, ratio, t_test


def test_holm_takes_the_smallest_times_all_the_next_times_one_less():
    """Of four: .01·4 = .04; .02·3 = .06; .03·2 = .06; .5·1 = .5, each no smaller than the one before."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.01, 0.013]) == pytest.approx([0.02, 0.02])  # .013·1 is below .02
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_paired_t_test():
    """Differences 1, 2, 3: t = 2 / (1 / √3) = 3.464 of two degrees of freedom."""
    assert t_test([1.0, 2.0, 3.0]) == pytest.approx(2 * stats.t.sf(2 * math.sqrt(3), 2))
    assert t_test([-1.0, -2.0, -3.0]) == t_test([1.0, 2.0, 3.0])
    assert t_test([5.0]) is t_test([5.0, 5.0]) is None


def test_a_ratio_is_of_means():
    """(1 + 5 + 3) / (20 + 22 + 24), which is not the mean of the three ratios."""
    made = ratio([1.0, 5.0, 3.0], [20.0, 22.0, 24.0])
    assert made is not None
    assert (made.value, made.n) == (pytest.approx(9 / 66), 3)


def test_at_fiellers_limits_the_difference_is_just_not_zero():
    above, below = [4.0, 9.0, 6.0, 5.0], [30.0, 35.0, 28.0, 33.0]
    made = ratio(above, below)
    assert made is not None
    for limit in (made.low, made.high):
        assert limit is not None
        rest = [x - limit * y for x, y in zip(above, below, strict=True)]
        assert t_test(rest) == pytest.approx(0.05)
    assert made.low is not None
    assert made.high is not None
    assert made.low < made.value < made.high


def test_there_is_no_ratio_to_what_may_be_zero():
    assert ratio([1.0, 2.0], [3.0, -3.0]) is None
    assert ratio([1.0, 2.0], [0.5, 9.0]) is None  # 4.75 [−49, 59]
    assert ratio([1.0], [-2.0]) is None


def test_without_seeds_that_differ_a_ratio_has_no_interval():
    for count in (1, 3):
        made = ratio([5.0] * count, [20.0] * count)
        assert made is not None
        assert (made.value, made.low, made.n) == (0.25, None, count)


def test_fiellers_interval_holds_the_truth_19_times_in_20():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        shared = draw.normal(0, 3, 5)
        made = ratio(*((mean + shared + draw.normal(0, 2, 5)).tolist() for mean in (6, 30)))
        assert made is not None
        assert made.low is not None
        assert made.high is not None
        held += made.low <= 0.2 <= made.high
    assert 0.93 < held / 1000 < 0.97
