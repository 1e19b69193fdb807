"""Hydra's override grammar as a search space: what is fixed, what is swept, and over what."""

import difflib
import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, QuotedString, RangeSweep, Transformer

LISTED = 12  # names in an error line


@dataclass(frozen=True)
class Axis:
    """One swept key: its choices as overrides, or the ends of an interval."""

    key: str  # with its prefix, as in an override
    choices: tuple[str, ...] = ()
    natives: tuple[Any, ...] = ()  # the choices as optuna shows them, in the same order
    low: float = 0.0
    high: float = 0.0
    integer: bool = False
    log: bool = False

    @property
    def interval(self) -> bool:
        return not self.choices

    @property
    def name(self) -> str:
        """The key as a person reads it."""
        return self.key.lstrip("+~")

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each choice stands among them."""
        return {choice: place for place, choice in enumerate(self.choices)}

    def override(self, param: Any) -> str:
        """The override that sets what optuna drew."""
        if self.interval:
            return f"{self.key}={int(param) if self.integer else repr(float(param))}"
        return f"{self.key}={self.choices[self.natives.index(param)]}"

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if not self.interval:
            return CategoricalDistribution(self.natives)
        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def described(self) -> Any:
        return ["interval", self.low, self.high, self.integer, self.log] if self.interval else list(self.choices)


@dataclass(frozen=True)
class Space:
    """What is swept: one grid or, of several, all of their axes with all of their values."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]
    grids: tuple["Space", ...] = ()  # of which the cells are, where there are several

    @property
    def parts(self) -> tuple["Space", ...]:
        return self.grids or (self,)

    def described(self) -> dict[str, Any]:
        """What makes it this space and no other."""
        return {axis.key: axis.described() for axis in self.axes}

    @cached_property
    def distributions(self) -> dict[str, Any]:
        """Optuna's, by the axes' names, for the samplers."""
        return {axis.name: axis.distribution() for axis in self.axes}

    @cached_property
    def size(self) -> int | None:
        """How many cells there are; None with an interval."""
        if self.grids:
            return sum(1 for _ in self.cells())
        return None if any(axis.interval for axis in self.axes) else math.prod(len(axis.choices) for axis in self.axes)

    def cells(self) -> Iterator[list[str]]:
        """Every combination, in the order of Hydra's own sweeper: the last key moves fastest. Grids follow one another,
        and what one of them has, those behind it leave out."""
        if self.grids:
            every = (cell for grid in self.grids for cell in grid.cells())
            return iter({tuple(sorted(cell)): cell for cell in every}.values())
        lists = [[f"{axis.key}={choice}" for choice in axis.choices] for axis in self.axes]
        return (list(cell) for cell in itertools.product(*lists))

    def cell(self, index: int) -> list[str]:
        """The one that `cells` would give at this place."""
        items: list[str] = []
        for axis in reversed(self.axes):
            index, place = divmod(index, len(axis.choices))
            items.append(f"{axis.key}={axis.choices[place]}")
        return items[::-1]

    def index(self, cell: Sequence[str]) -> int:
        """At which place `cells` would give this one."""
        given = _values(cell)
        index = 0
        for axis in self.axes:
            index = index * len(axis.choices) + axis.places[given[axis.key]]
        return index

    def has(self, cell: Sequence[str]) -> bool:
        """Whether a grid has this cell, in whatever order its axes stand."""
        if self.grids:
            return any(grid.has(cell) for grid in self.grids)
        given = _values(cell)
        return len(given) == len(self.axes) and all(given.get(axis.key) in axis.places for axis in self.axes)

    def params(self, cell: Sequence[str]) -> dict[str, Any]:
        """A grid's cell as optuna's parameters; of several grids, those of the cell's own."""
        given = _values(cell)
        return {axis.name: axis.natives[axis.places[given[axis.key]]] for axis in self.axes if axis.key in given}

    def digest(self) -> str:
        own = [grid.described() for grid in self.grids] or self.described()
        said = json.dumps([sorted(self.fixed), own], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()[:8]


def _values(cell: Sequence[str]) -> dict[str, str]:
    return {key: value for key, _, value in (item.partition("=") for item in cell)}


def asked(parser: OverridesParser, options: Any, arguments: Sequence[str]) -> Space:
    """The search space of a sweeper's `params` and `grids`, and of what a command line says, which wins.

    Raises:
        ValueError: for a key with nothing to choose from, and for grids that are no mapping of names to such params.
    """
    params: Mapping[str, Any] = options.params or {}
    grids: Any = options.grids or {}
    if not isinstance(grids, Mapping):
        raise ValueError(f"hydra.sweeper.grids={grids}: must be a mapping of names to grids")
    common = [f"{key}={_said(value)}" for key, value in params.items()]
    one = parse(parser.parse_overrides([*common, *arguments]))
    if not grids:
        return one
    given = {override.get_key_element() for override in parser.parse_overrides(list(arguments))}
    parts: list[Space] = []
    for name, own in dict[str, Any](grids).items():
        if not isinstance(own, Mapping) or not own:
            raise ValueError(f"hydra.sweeper.grids.{name}={own}: must be a mapping of keys to values")
        words = [f"{key}={_said(value)}" for key, value in own.items()]
        parts.append(parse(parser.parse_overrides([*common, *words, *arguments]), {str(key) for key in own} - given))
    merged = {axis.key: axis for part in parts for axis in part.axes}
    axes = tuple(_merged([axis for part in parts for axis in part.axes if axis.key == key]) for key in merged)
    return Space(tuple(word for word in one.fixed if word.partition("=")[0] not in merged), axes, tuple(parts))


def _said(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(str(item) for item in value)
    return "null" if value is None else str(value)


def _merged(axes: Sequence[Axis]) -> Axis:
    """One axis with the values of several of a key."""
    if endless := next((axis for axis in axes if axis.interval), None):
        return endless  # which a grid refuses, and several grids are
    found = {choice: native for axis in axes for choice, native in zip(axis.choices, axis.natives, strict=True)}
    choices = tuple(found)
    natives = tuple(found.values()) if len(set(found.values())) == len(choices) else choices
    return Axis(axes[0].key, choices=choices, natives=natives)


def parse(overrides: Sequence[Override], swept: AbstractSet[str] = frozenset()) -> Space:
    """The search space of parsed overrides; of two with the same key, the later one holds.

    Args:
        swept: keys that are axes though one value alone is given for them.

    Raises:
        ValueError: for a key with nothing to choose from.
    """
    fixed: dict[str, str] = {}
    axes: dict[str, Axis] = {}
    for override in overrides:
        key = override.get_key_element()
        fixed.pop(key, None)
        axes.pop(key, None)
        if override.is_sweep_override():
            axes[key] = _axis(key, override)
        elif key in swept:
            choice = override.get_value_element_as_str()
            axes[key] = Axis(key, choices=(choice,), natives=(_native(override.value(), choice),))
        elif override.is_delete() and override.value() is None:
            fixed[key] = key
        else:
            fixed[key] = f"{key}={override.get_value_element_as_str()}"
    return Space(tuple(fixed.values()), tuple(axes.values()))


def _axis(key: str, override: Override) -> Axis:
    value: Any = override.value()
    if override.is_interval_sweep():
        assert isinstance(value, IntervalSweep)
        low, high = value.start, value.end
        if low is None or high is None or not low <= high or not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{override.input_line}: an interval needs two ends, the lower one first")
        integer = isinstance(low, int) and isinstance(high, int)
        log = "log" in value.tags
        if log and low <= 0:
            raise ValueError(f"{override.input_line}: tag(log, …) needs a lower end > 0")
        return Axis(key, low=float(low), high=float(high), integer=integer, log=log)
    if isinstance(value, RangeSweep) and not value.step:
        raise ValueError(f"{override.input_line}: the step must not be 0")
    parsed = {Transformer.str(item): item for item in override.sweep_iterator()}
    choices = list(parsed)
    if not choices:
        raise ValueError(f"{override.input_line}: nothing to choose from, so there is no trial to run")
    natives = [_native(item, choice) for choice, item in parsed.items()]
    if len(set(natives)) != len(choices):  # True == 1 == 1.0 for optuna: then the words themselves
        natives = list(choices)
    return Axis(key, choices=tuple(choices), natives=tuple(natives))


def _native(value: Any, choice: str) -> Any:
    """A choice as optuna shows it: a text, a number, a truth or nothing, else its words."""
    value = value.text if isinstance(value, QuotedString) else value
    return value if value is None or isinstance(value, str | int | float | bool) else choice


def nearest(word: str, allowed: Sequence[str]) -> str:
    """What is allowed, the nearest match first where there is one; of many, the nearest alone."""
    close = difflib.get_close_matches(word, allowed, n=LISTED, cutoff=0.4)
    hint = f"did you mean '{close[0]}'? " if close else ""
    if len(allowed) > LISTED:
        near = [*close, *(item for item in allowed if item not in close)][:LISTED]
        return f"{hint}allowed: {', '.join(near)} and {len(allowed) - LISTED} more"
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"
