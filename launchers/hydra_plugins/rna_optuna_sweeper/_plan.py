"""What a sweep is going to do: checked, and compared with what earlier lives of it left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rna.sweep import ledger

from ._checks import check_objectives, constraint, record_store
from ._composing import Composer, address_all
from ._endings import Records
from ._goals import Goals, goals
from ._pruning import Referee, referee
from ._said import Said
from ._spec import check_same_configuration, check_spec, read_spec
from ._storage import open_storage
from ._todo import Todo
from ._work import InWork, adopt
from .config import RnaOptunaConf
from .space import Space


@dataclass(frozen=True)
class Plan:
    """All that is known before the first trial is started."""

    options: RnaOptunaConf
    space: Space
    sampler: str
    folder: Path
    launcher: Any
    storage: Any  # Optuna's
    composer: Composer
    goals: Goals
    referee: Referee | None
    records: Records
    todo: Todo
    adopted: list[InWork]  # trials of an earlier life that are still in work


def plan(plugin: Any, space: Space, sampler: str, folder: Path, said: Said) -> Plan:
    """Check what is asked, and find what there is: nothing is started, and no file of the sweep changed.

    But for two things that a kill left: a torn journal is mended, and a trial's process that nobody can adopt is ended.

    Raises:
        ValueError: for a user's mistake.
    """
    options: RnaOptunaConf = plugin.options
    store = record_store(options.store) if options.store else None
    constraints = [constraint(text) for text in options.constraints]
    composer = Composer(plugin.hydra_context, plugin.config, space, folder.name, store)
    spec = read_spec(folder)
    check_spec(spec, folder.name, space, sampler)
    if store is None:
        check_same_configuration(spec, folder.name, composer.fingerprint())
    launcher = plugin.launcher()

    todo = Todo(ledger.trials(folder), len(space.cells()) if sampler == "grid" else options.n_trials or 0)
    adopted = adopt(todo.trials.values(), launcher, folder)
    fresh = todo.add_cells(space) if sampler == "grid" else []
    if store is not None:
        address_all(todo.trials, fresh, composer, spec, said)

    address = todo.known_address() or composer.first_address()  # tells which metrics there will be
    wanted = goals(options, constraints, store, address, todo.trials.values())
    pruner = _referee(options, wanted, store, address, folder.name)
    if pruner is not None and spec.get("watched") != pruner.watched:  # curves of another metric, or at other steps
        for trial in todo.trials.values():
            trial.curve = []

    records = Records(store, wanted, pruner)
    for trial in todo.trials.values():
        if trial.status != ledger.RUNNING:
            records.recall(trial)
    return Plan(
        options=options,
        space=space,
        sampler=sampler,
        folder=folder,
        launcher=launcher,
        storage=open_storage(options.storage, folder),
        composer=composer,
        goals=wanted,
        referee=pruner,
        records=records,
        todo=todo,
        adopted=adopted,
    )


def _referee(
    options: RnaOptunaConf, wanted: Goals, store: Any, address: dict[str, Any] | None, study: str
) -> Referee | None:
    """The pruner. Raises ValueError for one that does not exist, or that this sweep cannot have."""
    if options.pruner is None:
        return None
    curves = store.curves(address) if store is not None and address is not None else None
    by = check_objectives(options.prune_by, "prune_by")
    return referee(options.pruner, options.pruning, by, wanted.objectives, curves, study)
