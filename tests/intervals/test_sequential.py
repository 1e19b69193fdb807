"""The test that a race looks at after each block: certain at the end, McNemar's for pairs, and seldom wrong."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from rna.evaluation.blocks import block
from rna.intervals.sequential import doubt, enough


def test_it_is_mcnemars_test_with_both_corrections():
    values = np.array([1.0] * 3 + [-1.0] * 12 + [0.0] * 85)
    z = (12 - 3 - 1) / math.sqrt(15 + 1) / math.sqrt(1 - 100 / 400)
    assert doubt([values], 400) == pytest.approx(-math.log(norm.sf(z)))


@pytest.mark.parametrize(("last", "sure"), [(-1.0, True), (1.0, False)])
def test_when_all_were_asked_it_is_certain(last: float, sure: bool):
    assert math.isinf(doubt([np.zeros(9), np.array([last])], 10)) is sure
    assert not math.isinf(doubt([np.zeros(9)], 10))


def test_what_was_found_out_at_one_look_stays():
    bad, good = np.full(20, -1.0), np.full(20, 1.0)
    assert doubt([bad, good], 100) == doubt([bad], 100)


KINDS = {  # how many questions say what; the mean of each is 0
    "few": {1.0: 15, -1.0: 15},
    "many": {1.0: 128, -1.0: 128},
    "one against two": {1.0: 5, -0.5: 10},
    "one against three seeds": {1.0: 40, -1 / 3: 120},
    "few against three seeds": {1.0: 10, -1 / 3: 30},
}


@pytest.mark.parametrize("error", [0.05, pytest.param(0.01, marks=pytest.mark.whole)])
@pytest.mark.parametrize("strata", [pytest.param(1, marks=pytest.mark.whole), 16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_true_hypothesis_is_given_up_no_more_often_than_allowed(kind: str, strata: int, error: float):
    """Over all looks at 512 questions whose mean is 0, however little they say for it, in blocks by strata or not."""
    generator, population, of, times = np.random.default_rng(0), 512, 5, 3000
    said = [value for value, count in KINDS[kind].items() for _ in range(count)]
    values = np.array(said + [0.0] * (population - len(said)))
    blocks = [np.array(block(number, of, population)) for number in range(of - 1)]
    given_up = 0
    for _ in range(times):  # of strata each in an order of its own, one of each by turns
        drawn = generator.permuted(generator.permutation(values).reshape(strata, -1), axis=1)
        order = drawn.T.reshape(-1)
        given_up += doubt([order[places] for places in blocks], population) >= enough(error, of - 1, 1)
    assert given_up / times <= error + 2.5 * math.sqrt(error / times)
