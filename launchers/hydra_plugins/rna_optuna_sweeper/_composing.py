"""How a cell becomes a configuration, and where its record lies."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rna.sweep import Trial, ledger

from ._outcomes import one_line
from ._said import Said
from .space import Axis, Space

TOLD = 5.0  # seconds between two lines of how many cells are composed


@dataclass(frozen=True)
class Composer:
    """The configuration that a study's cells have in common, and the app's record store, if it has one."""

    hydra_context: HydraContext
    config: DictConfig
    space: Space
    study: str
    store: Any

    def address(self, cell: Sequence[str]) -> dict[str, Any]:
        """Where a cell's record lies. Raises HydraException if it cannot be composed, ValueError if it is refused."""
        composed = self.hydra_context.config_loader.load_sweep_config(
            self.config, [*self.space.fixed, *cell, self._named]
        )
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        return self.store.address(composed)

    def first_address(self) -> dict[str, Any] | None:
        """That of the axes' first values; None without a record store."""
        if self.store is None:
            return None
        return self.address([axis.override(_first(axis)) for axis in self.space.axes])

    def overrides(self, cell: Sequence[str], owner: str) -> list[str]:
        """What a launcher is given to start a cell for an owner."""
        return [*self.space.fixed, *cell, f"++hydra.job.env_set.{ledger.OWNER}={_quoted(owner)}", self._named]

    def fingerprint(self) -> Any:
        """What tells whether the configuration, or the code that a record depends on, has changed."""
        plain: Any = OmegaConf.to_container(self.config)
        common = {str(key): value for key, value in plain.items() if key != "hydra"}
        return self.store.fingerprint(common) if self.store else json.loads(json.dumps(common, default=str))

    @property
    def _named(self) -> str:
        """The study's name as an override: a job's sweeper must be the sweep's own, for Hydra 1.4 to the letter."""
        return f"hydra.sweeper.study_name={_quoted(self.study)}"


def address_all(
    trials: Mapping[int, Trial], fresh: Iterable[Trial], composer: Composer, spec: Mapping[str, Any], said: Said
) -> None:
    """Where each trial's record lies: composed once a cell, and again where configuration or code have changed.

    Args:
        fresh: those of the trials that are new, and come first.
        spec: what `sweep.json` said when this life of the sweep began.

    Raises:
        ValueError: for a cell that cannot be composed, or if the app's checks refuse every one.
    """
    changed = "fingerprint" in spec and spec["fingerprint"] != composer.fingerprint()
    there = [trial for trial in trials.values() if trial.status != ledger.RUNNING]
    todo = there if changed else [*fresh, *(trial for trial in there if not trial.address)]
    before = {trial.number: (trial.address or {}).get("key") for trial in todo}
    refused = _composed(todo, composer, said)
    if refused and len(refused) == len(trials):
        raise ValueError(f"{refused[0][0].name}: {refused[0][1]}")
    for trial, message in refused:
        said.say(f"{trial.name} cannot be run: {message}")
        trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, "bad config", message, None
        trial.address = None
    if changed:
        _queue_changed([trial for trial in todo if trial.address], before, said)


def _composed(todo: Sequence[Trial], composer: Composer, said: Said) -> list[tuple[Trial, str]]:
    """Give each trial its address; return those that the app refuses, with its words."""
    refused: list[tuple[Trial, str]] = []
    started = told = time.monotonic()
    for count, trial in enumerate({trial.number: trial for trial in todo}.values()):
        try:
            trial.address = composer.address(trial.cell)
        except HydraException as error:
            raise ValueError(f"{trial.name}: {one_line(error)}") from None
        except ValueError as error:
            refused.append((trial, str(error)))
        if time.monotonic() - told > TOLD:
            told = time.monotonic()
            said.say(f"composing {count + 1}/{len(todo)} cells ({told - started:.0f} s)")
    return refused


def _queue_changed(todo: Sequence[Trial], before: Mapping[int, str | None], said: Said) -> None:
    """Queue the trials whose record lies elsewhere now, and those that are refused no more."""
    moved = 0
    for trial in todo:
        if before[trial.number] not in (None, (trial.address or {}).get("key")):
            moved += 1
            trial.status, trial.metrics, trial.values, trial.attempts = ledger.QUEUED, {}, None, 0
            trial.curve = []
        elif trial.reason == "bad config":
            trial.status = ledger.QUEUED
    what = f"{moved} of {len(todo)} trials are other ones now and run anew; their old records stay, uncounted"
    said.say(f"configuration or code has changed since this sweep began: {what if moved else 'same trials'}")


def _first(axis: Axis) -> Any:
    return axis.natives[0] if axis.choices else axis.low


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
