"""Samples in parts: as many tokens at once as the budget says, fewer where they do not fit, and the same numbers."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rna.analyze import measure, parts
from rna.analyze.measure import Question
from tests import tiny

IDS = [7, 8, 9, 10, 11, 12]


class Machine:
    """Doubles samples, of which it holds so many at once; `seen` are the sizes that were asked for."""

    def __init__(self, holds: int) -> None:
        self.holds, self.seen = holds, list[int]()

    def __call__(self, *stacks: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(stacks[0]))
        if len(stacks[0]) > self.holds:
            raise torch.OutOfMemoryError(f"{len(stacks[0])} samples")
        return sum(stacks, torch.zeros(()))


@pytest.mark.parametrize(
    ("budget", "holds", "seen"),
    [
        (40, 99, [10]),  # samples of 4 tokens
        (15, 99, [3, 3, 3, 1]),
        (1, 99, [1] * 10),
        (40, 3, [10, 5, 2, 2, 2, 2, 2]),
        (12, 2, [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_as_many_samples_go_together_as_fit(budget: int, holds: int, seen: list[int]):
    one, other = (torch.randn(10, 4, 2, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    machine = Machine(holds)
    assert torch.equal(parts.run(machine, one, other, at_once={"cpu": budget}), one + other)
    assert machine.seen == seen


def test_a_single_sample_that_does_not_fit_is_said():
    with pytest.raises(torch.OutOfMemoryError, match="1 samples"):
        parts.run(Machine(0), torch.zeros(4, 2), at_once={"cpu": 4})


def measured(decoder: Any) -> list[dict[str, Any]]:
    """Every analysis that takes many samples, with five of them."""
    rows: list[dict[str, Any]] = []
    questions = [Question({"plain": IDS, "forget": [7, 40, 41, 9, 10, 11, 12]}, 3)]
    common = torch.Generator().manual_seed(0), lambda *_: None
    rows += measure.sensitivities(decoder, [IDS], 5, *common)
    rows += measure.loss_increases(decoder, [IDS], 1, [0.1, 1.0], 5, *common)
    rows += measure.output_shifts(decoder, questions, 1, [0.1], 12, 4, *common)
    rows += measure.simulated_rejections(decoder, questions, 1, 1e-2, [1.0], 5, *common)
    rows += measure.keyword_rejections(decoder, questions, "forget", 1, 1e-2, 5, common[0])
    return [{name: value for name, value in row.items() if not isinstance(value, str)} for row in rows]


@pytest.mark.whole
def test_the_analyses_are_the_same_whatever_the_budgets(monkeypatch: pytest.MonkeyPatch):
    """One and two samples of six tokens at once, against all."""
    decoder = tiny.decoder("Mistral", layers=3)
    whole = measured(decoder)
    for tokens in (1, 12):
        for budget in (parts.FORWARD, parts.GRADIENT, parts.SECOND_ORDER):
            monkeypatch.setitem(budget, "cpu", tokens)
        assert_close(measured(decoder), whole, rtol=2e-3, atol=1e-6)


@pytest.mark.whole
def test_an_analysis_out_of_memory_goes_on_in_smaller_parts(monkeypatch: pytest.MonkeyPatch):
    """A layer that holds two samples at once stands for a small card."""
    decoder = tiny.decoder("Mistral", layers=3)
    whole = measured(decoder)
    layer: Any = decoder.layers[2]
    forward, refused = layer.forward, list[int]()

    def small(hidden_BTD: torch.Tensor, *arguments: Any, **options: Any) -> Any:
        if len(hidden_BTD) > 2:
            refused.append(len(hidden_BTD))
            raise torch.OutOfMemoryError("small card")
        return forward(hidden_BTD, *arguments, **options)

    monkeypatch.setattr(layer, "forward", small)
    assert_close(measured(decoder), whole, rtol=2e-3, atol=1e-6)
    assert set(refused) >= {5, 12, 3}
