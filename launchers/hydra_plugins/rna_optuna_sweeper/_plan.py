"""What a sweep is going to do: checked, and compared with what earlier lives of it left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rna.sweep import ledger
from rna.sweep.race import Race

from ._ahead import as_text, readdress_ended
from ._checks import check_objectives, constraint, record_store
from ._composing import Composer, Refused, digest
from ._endings import Records
from ._goals import Goals, goals
from ._outcomes import end_survivor
from ._pruning import Referee, referee
from ._racing import RACED, Racing, rules
from ._said import Said
from ._spec import check_same_configuration, check_spec, read_spec
from ._storage import open_storage
from ._todo import Todo
from ._trying import try_values
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
    racing: Racing | None
    todo: Todo
    adopted: list[InWork]  # trials of an earlier life that are still in work
    before: dict[int, str]  # the trials as they were read
    begun: bool  # whether there was an earlier life


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
    check_spec(spec, folder.name, space, sampler, options.seed)
    if store is None:
        check_same_configuration(spec, folder.name, composer.fingerprint)
    launcher = plugin.launcher()

    kept = ledger.recorded(folder, mend=True)
    before = {trial.number: as_text(trial) for trial in kept}
    for trial in kept:
        if trial.address is not None and trial.composed_of is None and "fingerprint" in spec:  # of an older version
            trial.composed_of = digest(spec["fingerprint"])
    todo = Todo(kept, space, sampler, options.n_trials)
    if sampler == "grid":
        todo.add_cells(space)
    tried = try_values(composer, list(todo.trials.values()))
    for trial in todo.trials.values():
        found = tried.addresses.get(tuple(sorted(trial.cell)))
        if found is not None and trial.address is None and not trial.over:
            trial.address, trial.composed_of = found, composer.mark
    _let_go(todo, composer, folder)
    adopted = adopt(todo.trials.values(), launcher, folder)
    if store is not None:
        readdress_ended(todo.trials, composer, folder, said)
    if todo.outside:
        said.say(f"{len(todo.outside)} trials are not of the values given now: kept, neither run nor counted")

    address = tried.address  # tells which metrics there will be
    wanted = goals(options, constraints, store, address, todo.trials.values())
    racing = None
    if address is not None and address.get("race"):
        asked = rules(options, space, sampler, wanted, store, address, todo.total)
        racing = Racing(Race(asked), store, folder, todo, said, int(options.race["finalists"]))
    else:
        _end_of_racing(todo)
    pruner = _referee(options, wanted, store, address, folder.name)
    if pruner is not None and spec.get("watched") != pruner.watched:  # curves of another metric, or at other steps
        for trial in todo.trials.values():
            trial.curve = []

    records = Records(store, wanted, pruner)
    for trial in todo.trials.values():
        if trial.status != ledger.RUNNING and composer.holds(trial):  # else that is found out before its turn
            records.recall(trial)
    if racing is not None:
        racing.join_all(todo.ordered)
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
        racing=racing,
        todo=todo,
        adopted=adopted,
        before=before,
        begun=bool(spec),
    )


def _let_go(todo: Todo, composer: Composer, folder: Path) -> None:
    """Take from their owners the trials in work that are asked for no more: other values, configuration or code."""
    gone = [trial for trial in todo.outside if trial.status == ledger.RUNNING]
    for trial in todo.trials.values():
        if trial.status == ledger.RUNNING and not composer.holds(trial):
            try:
                moved = composer.readdress(trial)
            except Refused:
                moved = True  # when its turn comes, it is said why
            if moved:
                gone.append(trial)
    for trial in gone:
        end_survivor(ledger.last_beat(folder, trial))
        trial.status, trial.token, trial.attempts = ledger.QUEUED, "", 0


def _end_of_racing(todo: Todo) -> None:
    """Trials that a race stopped in an earlier life are evaluated whole, as all are without one."""
    for trial in todo.trials.values():
        if trial.status != ledger.RUNNING:
            trial.race = None
        if trial.status == ledger.PRUNED and trial.reason == RACED:
            trial.status, trial.reason, trial.message, trial.ended = ledger.QUEUED, None, None, None


def _referee(
    options: RnaOptunaConf, wanted: Goals, store: Any, address: dict[str, Any] | None, study: str
) -> Referee | None:
    """The pruner. Raises ValueError for one that does not exist, or that this sweep cannot have."""
    if options.pruner is None:
        return None
    curves = store.curves(address) if store is not None and address is not None else None
    by = check_objectives(options.prune_by, "prune_by")
    return referee(options.pruner, options.pruning, by, wanted.objectives, curves, study)
