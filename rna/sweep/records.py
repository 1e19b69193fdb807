"""What the records say of a ledger's trials: whether they are done, their single questions, their plain twins."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna import intervals
from rna.intervals import Score, Terms, scores_of
from rna.settings import DEFENCES, NoiseSettings, without_defaults
from rna.store import lookup, results
from rna.sweep import ledger
from rna.sweep.ledger import Trial


def current(folder: Path) -> list[Trial]:
    """The trials as ledger and records have them: done where there is a record, and not where it is gone."""
    listings: dict[str, set[str]] = {}
    trials = ledger.trials(folder)
    for trial in trials:
        where = trial.address
        if where is None or "output_dir" not in where:  # of another app, with a record store of its own
            continue
        place = f"{where['output_dir']}/results"
        if place not in listings:
            with suppress(FileNotFoundError), os.scandir(place) as entries:
                listings[place] = {entry.name for entry in entries}
        there = listings.get(place, set[str]())
        recorded = all(f"{key}.json" in there for key in (where["key"], *where["evals"].values()))
        if trial.status == ledger.DONE and not recorded:
            trial.status, trial.metrics = ledger.QUEUED, {}
        elif trial.status in (ledger.QUEUED, ledger.RUNNING) and recorded:
            found = lookup.metrics(where)
            if found is not None:
                trial.status, trial.metrics = ledger.DONE, found
    return trials


@dataclass
class Reader:
    """Reads each record once, and only those that are asked for."""

    _records: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _twins: dict[tuple[str, ...], Trial | None] = field(default_factory=dict)

    def terms(self, trial: Trial, metric: str) -> Terms:
        """A metric as the mean of its tasks' scores, which hold the single questions; nothing where no record does.

        Accuracies are shares, as in the ledger.
        """
        where = trial.address or {}
        kind, _, rest = metric.partition("/")
        part, _, rest = rest.partition("/")
        half, _, leaf = rest.rpartition("/")
        tasks = lookup.tasks_of(where, part) if "output_dir" in where else []
        own: dict[str, Any] = where.get("own", {})
        told = own[part]["score"] if tasks == [part] and part in own else "acc"
        if kind != "eval" or leaf not in (told, "nll") or not tasks:
            return []
        found: list[Score] = []
        for task in tasks:
            metrics = self._record(where["output_dir"], where["evals"][task]).get("metrics") or {}
            metrics = metrics.get(part) or {} if where.get("kind") == "perplexity" else metrics
            score = scores_of(metrics, part if "nll" in metrics else task).get(half or "all")
            if score is None or not math.isfinite(score.value):
                return []
            found.append(score)
        scale = 1.0 if leaf == "nll" else 0.01
        return [(scale * weight, score) for weight, score in intervals.mean(found)] if found else []

    def plain(self, trial: Trial) -> Trial | None:
        """The same setting and seed without noise and defence, from its records; None where there are none.

        In a sweep with `baseline=skip` it may be a cell of its own, or have been made by another sweep.
        """
        where = trial.address
        key = self._plain_key(where) if where is not None and "output_dir" in where else None
        if where is None or key is None or key == where["key"]:
            return None
        evals = {name: key + own.removeprefix(where["key"]) for name, own in where["evals"].items()}
        address = where | {"key": key, "evals": evals, "uses": [key]}
        name = (where["output_dir"], key, *evals.values())
        if name not in self._twins:
            metrics = lookup.metrics(address)
            twin = Trial(trial.number, trial.cell, status=ledger.DONE, address=address, metrics=metrics or {})
            self._twins[name] = twin if metrics is not None else None
        return self._twins[name]

    def protected(self, trial: Trial) -> bool:
        """Whether a trial was trained with noise or a defence."""
        where = trial.address
        return where is not None and "output_dir" in where and self._plain_key(where) is not None

    def _plain_key(self, where: lookup.Address) -> str | None:
        uses: list[str] = where.get("uses") or []
        if len(uses) > 1:
            return uses[1]
        identity = self._record(where["output_dir"], where["key"]).get("identity") or {}
        if identity.get("noise", {}).get("name", "none") == "none" and not set(DEFENCES).intersection(identity):
            return None
        plain = {name: value for name, value in identity.items() if name not in DEFENCES}
        return results.train_key(plain | {"noise": without_defaults(NoiseSettings(name="none", layers=[]))})

    def _record(self, output_dir: str, key: str) -> dict[str, Any]:
        if (output_dir, key) not in self._records:
            self._records[output_dir, key] = ledger.read_json(results.path_of(output_dir, key)) or {}
        return self._records[output_dir, key]
