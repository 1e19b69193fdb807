"""Whether each value that a sweep was given is one that the app takes: found out before the first trial."""

import itertools
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rna.sweep import Trial

from ._composing import Composer, Refused
from .space import Axis, Space

TRIED = 200  # cells at most
SECONDS = 5.0  # after which what is left is found out beside the trials in work
PARTNERS = 10  # values of each other axis that a value is tried with, where the first refuses it
NAMED = re.compile(r"[+~]*[\w./@:]+=")


def try_values(composer: Composer, trials: Sequence[Trial]) -> "Tried":
    """Compose cells until each axis's values, or of many a spread of them, stand in one that the app takes.

    A value may need a partner: it is refused only where all cells refuse it that it is tried in.

    Args:
        trials: what earlier lives of the sweep found out need not be tried.

    Raises:
        ValueError: for a value that is refused.
    """
    tried = Tried(composer)
    known = [trial for trial in trials if trial.address is not None and composer.holds(trial)]
    for space in composer.space.parts:
        tried.items, tried.good = set(), None  # that a value is taken in one grid says nothing of another
        for trial in known:
            if not composer.space.grids or space.has(trial.cell):
                tried.take(trial.cell, trial.address)
        _try_values(tried, space)
    return tried


def _try_values(tried: "Tried", space: Space) -> None:
    """The same for one grid."""
    spreads = [_spread(axis) for axis in space.axes]
    if not spreads and tried.good is None:
        tried.try_all([[]], "")
    for place, group in _wanted(space, spreads):
        if tried.over and tried.good is not None:
            break
        if not tried.items.intersection(group):
            cells = _cells(tried.good or [spread[0] for spread in spreads], spreads, place, group)
            tried.try_all(cells, group[0])


@dataclass
class Tried:
    """What came of it: the addresses of the cells that were composed, by what they say, sorted."""

    composer: Composer
    addresses: dict[tuple[str, ...], dict[str, Any] | None] = field(default_factory=dict)
    items: set[str] = field(default_factory=set)  # that stand in a cell that was taken
    good: list[str] | None = None  # such a cell
    address: dict[str, Any] | None = None  # and its address
    refused: dict[tuple[str, ...], str] = field(default_factory=dict)
    until: float = field(default_factory=lambda: time.monotonic() + SECONDS)

    @property
    def composed(self) -> int:
        return len(self.addresses) + len(self.refused)

    @property
    def over(self) -> bool:
        return self.composed >= TRIED or time.monotonic() > self.until

    def take(self, cell: Sequence[str], address: dict[str, Any] | None) -> None:
        self.items.update(cell)
        self.good, self.address = list(cell), address

    def try_all(self, cells: Iterator[list[str]] | list[list[str]], item: str) -> None:
        """Find a cell that is taken. Raises ValueError, about this item of theirs, if all are refused."""
        said: list[str] = []
        for cell in cells:
            if self.composed >= TRIED and self.good is not None:
                return
            known = tuple(sorted(cell))
            if known not in self.refused:
                try:
                    self.addresses[known] = self.composer.address(cell)
                    return self.take(cell, self.addresses[known])
                except Refused as error:
                    self.refused[known] = str(error)
            said.append(self.refused[known])
        text = next((one for one in said if one.lstrip("+~").startswith(item.lstrip("+~"))), said[0])
        raise ValueError(text if NAMED.match(text) or not item else f"{item}: {text}")


def _wanted(space: Space, spreads: list[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The axis and the items of which one is to be taken: each of a list's, by turns, and any of an interval's."""
    groups = [
        [(place, spread)] if axis.interval else [(place, [item]) for item in spread]
        for place, (axis, spread) in enumerate(zip(space.axes, spreads, strict=True))
    ]
    for turn in itertools.zip_longest(*groups):
        yield from (group for group in turn if group is not None)


def _cells(good: list[str], spreads: list[list[str]], place: int, group: list[str]) -> Iterator[list[str]]:
    """Cells with these items: beside what was taken, beside each other value in turn, and beside some of any."""
    draw = random.Random(0)
    others = [spread[:PARTNERS] for spread in spreads]
    some = [[draw.choice(spread) for spread in spreads] for _ in range(PARTNERS)] if len(spreads) > 2 else []
    beside = ([*good[:at], item, *good[at + 1 :]] for at, spread in enumerate(others) for item in spread if at != place)
    for cell in itertools.chain([good], beside, some):
        for item in group:
            yield [*cell[:place], item, *cell[place + 1 :]]


def _spread(axis: Axis) -> list[str]:
    """An axis's values as overrides: the first and the last, and then those between, the middle ones first."""
    if axis.interval:
        middle = (axis.low * axis.high) ** 0.5 if axis.log else (axis.low + axis.high) / 2
        return [axis.override(value) for value in (axis.low, axis.high, middle)]
    last = len(axis.choices) - 1
    order = sorted(range(len(axis.choices)), key=lambda place: (place not in (0, last), -(place & -place)))
    return [f"{axis.key}={axis.choices[place]}" for place in order[:TRIED]]
