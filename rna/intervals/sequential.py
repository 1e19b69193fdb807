"""A test that may be looked at after each block of questions, of whether a population's mean is below zero.

The statistic is the score test's, z = −(Σx + c) / √((Σx² + c²)·(1 − n/N)) after n of N questions. The variance is that
under the null hypothesis, with which McNemar's test is the case of x in {−1, 0, 1} (Psychometrika 12:153, 1947). One
more question counts, with the most that one can say for the null hypothesis, c: of McNemar's test it is the correction
for continuity (Edwards, Psychometrika 13:185, 1948), and where a few questions speak for it loudly and many against it
softly, as with several seeds, the normal approximation would be too sure without it. The last factor is the correction
for a finite population (Cochran, Sampling Techniques, 3rd ed., 1977, section 2.6), by which the last look is certain.
Blocks that hold each stratum by its share make it more cautious. With L looks before the last, and C comparisons, p <
error / (L·C) at any look keeps the probability that a true null hypothesis is ever given up below `error`, by
Bonferroni's inequality over looks (Jennison and Turnbull, Group Sequential Methods, 1999, chapter 2) and comparisons.
What is not exact is the normal approximation; a simulation holds it, tests/intervals/test_sequential.py.
"""

import math
from collections.abc import Sequence

import numpy as np


def doubt(blocks: Sequence[np.ndarray], population: int, largest: float = 1.0) -> float:
    """−log p of the look that speaks most against "the population's mean is ≥ 0"; infinity where all were asked.

    Args:
        blocks: values, in the order in which they were asked.
        population: how many there are in all.
        largest: c, the most that a value can be.
    """
    from scipy.special import log_ndtr  # half a second, which `python -m rna.sweep` has no use for

    most, asked, total, squares = 0.0, 0, 0.0, 0.0
    for values in blocks:
        asked, total, squares = asked + len(values), total + float(values.sum()), squares + float((values**2).sum())
        if asked >= population:
            return math.inf if total < -1e-9 * population else most
        variance = (squares + largest**2) * (1 - asked / population)
        most = max(most, -float(log_ndtr((total + largest) / math.sqrt(variance))))
    return most


def enough(error: float, looks: int, comparisons: int) -> float:
    """The doubt from which on a null hypothesis is given up: −log(error / (looks · comparisons))."""
    return math.log(max(looks, 1) * max(comparisons, 1) / error)
