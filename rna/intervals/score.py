"""One task's outcome as a record tells it, with what it says of each question or document."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

HALVES = ("select", "report")
QUESTIONS, DOCUMENTS = "questions", "documents"
USUAL = "acc"  # the metric that counts, where a record does not name another one as its `score`


@dataclass(frozen=True)
class Score:
    """Accuracy or another share of right answers in percent, or log-loss in nats a token, with its standard error over
    questions or documents.

    Two scores with the same `asked` are of the same questions in the same order, whatever was put into their choices.
    A record that does not say which questions were right has no `correct`, and then only its totals are used.
    """

    value: float
    stderr: float
    n: int
    correct: str | None = None  # a bit for each question, as hex
    asked: str | None = None
    drawn: str | None = None  # which of several keywords each drew, in as many hex digits each
    losses: tuple[float, ...] | None = None  # of each document, summed
    tokens: tuple[int, ...] | None = None
    over: str = QUESTIONS

    @cached_property
    def units(self) -> np.ndarray | None:
        """What each question or document adds: 100 or 0, or its summed loss; None where the record does not say."""
        if self.losses is not None and self.tokens is not None:
            return np.array(self.losses) if len(self.losses) == len(self.tokens) == self.n else None
        if self.correct is None or self.n < 1:
            return None
        try:
            bits = f"{int(self.correct, 16):0{self.n}b}"
        except ValueError:
            return None
        whole = len(bits) == self.n and bits.count("1") == round(self.value * self.n / 100)
        return 100.0 * (np.frombuffer(bits.encode(), dtype=np.uint8) - ord("0")) if whole else None

    @cached_property
    def keywords(self) -> np.ndarray | None:
        """The number of the keyword that each question or document drew."""
        if self.drawn is None or not self.n or len(self.drawn) % self.n:
            return None
        wide = len(self.drawn) // self.n
        return np.array([int(self.drawn[start : start + wide], 16) for start in range(0, len(self.drawn), wide)])


def scores_of(metrics: dict[str, Any], task: str) -> dict[str, Score]:
    """A task's scores from the metrics of its record: all, and the halves that it has; none of a task without a share
    of right answers among its metrics.

    Args:
        task: names the questions of a record that is older than their own name, `asked`.
    """
    if "nll" in metrics:
        return {"all": _of_documents(metrics, task)}
    if not scored(metrics):
        return {}
    parts = {"all": metrics} | {half: metrics[half] for half in HALVES if isinstance(metrics.get(half), dict)}
    return {part: _of_questions(values, f"{task} {part}") for part, values in parts.items()}


def scored(metrics: dict[str, Any]) -> bool:
    """Whether a task's record has a score that counts for its role."""
    return metrics.get("score", USUAL) is not None


def _of_questions(metrics: dict[str, Any], named: str) -> Score:
    name = metrics.get("score", USUAL)
    return Score(
        100 * number(metrics.get(name)),
        100 * number(metrics.get(f"{name}_stderr")),
        int(metrics.get("n") or 0),
        _text(metrics.get("correct")),
        _text(metrics.get("asked")) or named,
        _text(metrics.get("drawn")),
    )


def _of_documents(metrics: dict[str, Any], named: str) -> Score:
    losses, tokens = metrics.get("losses"), metrics.get("tokens")
    return Score(
        number(metrics.get("nll")),
        number(metrics.get("nll_stderr")),
        int(metrics.get("n") or 0),
        asked=_text(metrics.get("asked")) or named,
        drawn=_text(metrics.get("drawn")),
        losses=tuple(losses) if losses and None not in losses else None,
        tokens=tuple(tokens) if tokens else None,
        over=DOCUMENTS,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def number(value: float | None) -> float:
    """A record's number; what was not finite is None there."""
    return math.nan if value is None else float(value)
