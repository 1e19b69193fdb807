"""The rule behind `conf/tuned/demo`, on trainings whose outcome is known."""

import sys
from typing import Any

import pytest

from rna.demo import tune

Cell = tuple[int, float, float, int]


@pytest.mark.parametrize(
    ("needs", "keeps", "said"),
    [
        (lambda rate, alpha: 1e-3 * (1 + alpha) / rate, lambda _: 0.95, "npo kl: 127 steps, lr 1e-05, α 0.25"),
        (lambda rate, alpha: 3e-4 * (1 + alpha) / rate, lambda _: 0.95, "npo kl: 92 steps, lr 1e-05, α 2"),
        (
            lambda rate, alpha: 2e-3 * (1 + alpha) / rate,
            lambda rate: 0.95 - 2e3 * rate,
            "npo kl: 252 steps, lr 1e-05, α 0.25",
        ),
        (lambda *_: 1000, lambda _: 0.95, "no learning rate"),
        (lambda *_: 10, lambda _: 0.5, "no learning rate"),
    ],
    ids=["least rate", "largest alpha", "more steps for what keeps", "never forgets", "never keeps"],
)
def test_it_takes_the_least_steps_and_rate_and_then_the_largest_alpha(
    needs: Any, keeps: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def found(cell: Cell, *, judged: bool) -> tuple[int | None, float]:
        steps, rate, alpha, seed = cell
        taken = round(needs(rate, alpha)) + seed - tune.SEEDS[0]
        return (taken if taken <= steps else None), keeps(rate) if judged else float("nan")

    monkeypatch.setattr(tune, "training", lambda _losses, *cell: cell[:4])
    monkeypatch.setattr(tune, "found", found)
    monkeypatch.setattr(sys, "argv", ["rna.demo.tune", "npo", "kl"])
    tune.main()
    assert capsys.readouterr().out.splitlines()[-1].startswith(said)
