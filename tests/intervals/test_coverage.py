"""95 % intervals hold the truth 95 times in 100: the main cells of tests/bench/coverage.py, fewer times."""

import pytest

from tests.bench import coverage

REPEATS = 300  # a standard error of 1.3 points
CELLS = [
    coverage.share(128, 0.9),
    coverage.two(128, 0.02, 1.0),
    coverage.two(400, 0.1, 0.5),
    coverage.harmed(400, 0.3, 0.05),
    coverage.two_tasks(400, 0.1),
    coverage.text(20, 0.3),
    coverage.keywords(200, 5, 0.05),
    coverage.seeds(3),
    coverage.matched(128, 3, 0.6, 0.7),
]


@pytest.mark.whole
@pytest.mark.parametrize("cell", CELLS, ids=[f"{cell.kind}, {cell.said}" for cell in CELLS])
def test_the_interval_that_is_shown_holds_the_truth(cell: coverage.Cell):
    held, _ = coverage.coverage(cell, REPEATS)["shown"]
    assert held >= 0.90
    assert held <= (1 if cell.exact else 0.98)


@pytest.mark.parametrize("cell", [coverage.two(400, 0.1, 0.5), coverage.harmed(400, 0.3, 0.05)], ids=["two", "four"])
def test_pairing_halves_an_interval(cell: coverage.Cell):
    found = coverage.coverage(cell, 100)
    assert found["shown"][1] < 0.65 * found["independent"][1]
