"""The ledger's trials as the records have them."""

import os
from contextlib import suppress
from pathlib import Path

from rna.store import lookup
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
        results = f"{where['output_dir']}/results"
        if results not in listings:
            with suppress(FileNotFoundError), os.scandir(results) as entries:
                listings[results] = {entry.name for entry in entries}
        there = listings.get(results, set[str]())
        recorded = all(f"{key}.json" in there for key in (where["key"], *where["evals"].values()))
        if trial.status == ledger.DONE and not recorded:
            trial.status, trial.metrics = ledger.QUEUED, {}
        elif trial.status in (ledger.QUEUED, ledger.RUNNING) and recorded:
            found = lookup.metrics(where)
            if found is not None:
                trial.status, trial.metrics = ledger.DONE, found
    return trials
