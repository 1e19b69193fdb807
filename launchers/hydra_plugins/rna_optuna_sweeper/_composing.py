"""How a cell becomes a configuration, and where its record lies."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from rna.settings import Memo
from rna.sweep import Trial, ledger

from ._outcomes import one_line
from .space import Space


class Refused(ValueError):
    """A cell that cannot be composed, or that the app's checks refuse."""


@dataclass(frozen=True)
class Composer:
    """The configuration that a study's cells have in common, and the app's record store, if it has one."""

    hydra_context: HydraContext
    config: DictConfig
    space: Space
    study: str
    store: Any

    def address(self, cell: Sequence[str]) -> dict[str, Any] | None:
        """Where a cell's record lies; None without a record store.

        Raises:
            Refused: if it cannot be composed, or the app's checks refuse it.
        """
        try:
            composed = self._memo.compose([*self.space.fixed, *cell, self._named])
            return None if self.store is None else self.store.address(composed)
        except HydraException as error:
            raise Refused(one_line(error)) from None
        except ValueError as error:
            raise Refused(str(error)) from None

    def holds(self, trial: Trial) -> bool:
        """Whether what is known of a trial's address is of this configuration and code."""
        known = trial.address is not None or trial.over  # one that is refused has none
        return self.store is None or (known and trial.composed_of == self.mark)

    def readdress(self, trial: Trial) -> bool:
        """Find out where a trial's record lies; return whether that is another place than before.

        Where it is, or where it is refused no more, the trial is to run.

        Raises:
            Refused: then it has no address.
        """
        before, changed = (trial.address or {}).get("key"), trial.composed_of not in (None, self.mark)
        trial.address, trial.composed_of = None, self.mark
        trial.address = self.address(trial.cell)
        moved = before not in (None, (trial.address or {}).get("key"))
        if moved:
            trial.status, trial.metrics, trial.values, trial.attempts = ledger.QUEUED, {}, None, 0
            trial.curve = []
        elif changed and trial.reason == "bad config":
            trial.status = ledger.QUEUED
        return moved

    def overrides(self, cell: Sequence[str], owner: str) -> list[str]:
        """What a launcher is given to start a cell for an owner."""
        return [*self.space.fixed, *cell, f"++hydra.job.env_set.{ledger.OWNER}={_quoted(owner)}", self._named]

    @cached_property
    def fingerprint(self) -> Any:
        """What tells whether the configuration, or the code that a record depends on, has changed."""
        plain: Any = OmegaConf.to_container(self.config)
        common = {str(key): value for key, value in plain.items() if key != "hydra"}
        return self.store.fingerprint(common) if self.store else json.loads(json.dumps(common, default=str))

    @cached_property
    def mark(self) -> str:
        """The fingerprint in a word, which each address carries: whenever a sweep is killed, none is taken for new."""
        return digest(self.fingerprint)

    @cached_property
    def _memo(self) -> Memo:
        loader = self.hydra_context.config_loader
        return Memo(loader, lambda overrides: loader.load_sweep_config(self.config, overrides))

    @property
    def _named(self) -> str:
        """The study's name as an override: a job's sweeper must be the sweep's own, for Hydra 1.4 to the letter."""
        return f"hydra.sweeper.study_name={_quoted(self.study)}"


def digest(fingerprint: Any) -> str:
    said = json.dumps(fingerprint, sort_keys=True, default=str)
    return hashlib.sha256(said.encode(errors="surrogateescape")).hexdigest()[:16]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
