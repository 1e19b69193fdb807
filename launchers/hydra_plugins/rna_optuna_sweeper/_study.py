"""The Optuna study as a view of the ledger: mended where torn, compared on every start, made anew where it differs.

Hydra imports every module of its plugins at every start, but for those whose name begins like this one's.
"""

import json
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from rna import ledger
from rna.ledger import Trial

from .space import Space, nearest

SAMPLERS = ("grid", "random", "tpe", "nsga2")
DIRECTIONS = ("minimize", "maximize")
STATES = {
    ledger.QUEUED: TrialState.WAITING,
    ledger.RUNNING: TrialState.RUNNING,
    ledger.DONE: TrialState.COMPLETE,
    ledger.FAILED: TrialState.FAIL,
    ledger.PRUNED: TrialState.PRUNED,
}
ASKED_AGAIN = 20.0  # seconds between two attempts to reach a database that went away
REDRAWS = 20  # of a cell that was drawn before, by a sampler that learns


def lock_of(path: Path) -> JournalFileSymlinkLock:
    """Optuna's own lock of a journal; one left by a process that was killed is broken after three seconds.

    It is a link to the journal, and by a relative path it would point nowhere: then Optuna waits for ever.
    """
    return JournalFileSymlinkLock(str(path.absolute()), grace_period=3)


def salvage(path: Path) -> int:
    """Keep each line of a journal that is whole, also one that was appended to a torn one; return how many were lost.

    The study is compared with the ledger afterwards, so that what a lost line said comes back from there.
    """
    if not path.exists():
        return 0
    lock = lock_of(path)
    lock.acquire()
    try:
        lines = path.read_bytes().split(b"\n")
        kept, lost = [], 0
        for number, line in enumerate(lines):
            last = number == len(lines) - 1
            found = _whole(line)
            if found is None:
                lost += bool(line)
            elif last or found != line:
                kept.append(found)
                lost += 1
            else:
                kept.append(found)
        if lost:
            temporary = path.with_name(path.name + ".mended")
            temporary.write_bytes(b"".join(line + b"\n" for line in kept))
            temporary.replace(path)
        return lost
    finally:
        lock.release()


def _whole(line: bytes) -> bytes | None:
    """The last complete operation in a line, None if there is none."""
    start = line.rfind(b'{"op_code":')
    while start >= 0:
        try:
            if isinstance(json.loads(line[start:]), dict):
                return line[start:]
        except ValueError:
            pass
        start = line.rfind(b'{"op_code":', 0, start)
    return None


def open_storage(url: str | None, folder: Path) -> Any:
    """The journal in the study's folder, or the database of a URL.

    Raises:
        ValueError: if the URL cannot be reached, or its driver is not installed.
    """
    if url is None:
        path = (folder / "journal.log").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if lost := salvage(path):
            print(f"sweep {folder.name}: {lost} torn lines in its journal; mended from the trials' files", flush=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock_of(path)))
    import sqlalchemy.engine
    import sqlalchemy.exc

    try:
        parsed = sqlalchemy.engine.make_url(url)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError(
            f"hydra.sweeper.storage={url}: not a storage; allowed: null for a journal file, or a URL such as "
            "postgresql://USER@HOST/DATABASE"
        ) from None
    shown = parsed.render_as_string(hide_password=True)
    options: dict[str, Any] = {"pool_pre_ping": True}  # a database that was started anew is not noticed
    if postgresql := parsed.get_backend_name() == "postgresql":
        wait = parsed.query.get("connect_timeout", "10")  # seconds; a host that swallows packets takes minutes
        options["connect_args"] = {"connect_timeout": wait}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options)
    except ImportError as error:
        advice = "pip install 'rna[postgresql]'" if postgresql else str(error)
        raise ValueError(
            f"hydra.sweeper.storage={shown}: its driver is not installed; nothing was started ({advice})"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"hydra.sweeper.storage={shown}: cannot be reached ({reason}); nothing was started") from None


def frozen(space: Space, trial: Trial, directions: int) -> FrozenTrial:
    """A trial of the ledger as Optuna keeps it."""
    state = STATES[trial.status]
    values = trial.values if state == TrialState.COMPLETE else None
    if state == TrialState.COMPLETE and (values is None or len(values) != directions):
        state, values = TrialState.FAIL, None
    made = create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions={axis.name: axis.distribution() for axis in space.axes},
        user_attrs=_shown(trial),
        intermediate_values=dict(trial.curve),
        system_attrs=trial.attributes,
    )
    made.datetime_start = None if state == TrialState.WAITING else made.datetime_start
    if trial.ended is not None and state.is_finished():
        made.datetime_complete = datetime.fromtimestamp(trial.ended)
        made.datetime_start = datetime.fromtimestamp(trial.ended - (trial.seconds or 0.0))
    return made


def _shown(trial: Trial) -> dict[str, Any]:
    """What a dashboard shows beside a trial's parameters."""
    shown: dict[str, Any] = {key: value for key, value in trial.metrics.items() if value is not None}
    key = (trial.address or {}).get("key")
    return shown | ({"key": key} if key else {}) | ({"failure": trial.message} if trial.message else {})


@dataclass
class Mirror:
    """The study in its storage; the ledger is the truth, and this follows it.

    A database may go away: the sweep goes on without it, and the study is compared with the ledger again later.
    """

    storage: Any
    folder: Path
    space: Space
    objectives: dict[str, str]
    trials: dict[int, Trial]
    ids: dict[int, int] = field(default_factory=dict)  # trial number -> Optuna's id
    known: dict[int, tuple[str, Any]] = field(default_factory=dict)  # trial number -> status and values there
    away: float | None = None  # since when the database does not answer, or was asked last

    def follow(self, trial: Trial) -> None:
        """Bring one trial of the study up to date."""
        self.trials[trial.number] = trial
        if self.away is None:
            self._unless_away(lambda: self._follow(trial))
        elif time.monotonic() - self.away > ASKED_AGAIN:
            self.catch_up()

    def follow_curve(self, trial: Trial) -> None:
        """Bring the curve of a trial in work up to date."""
        if self.away is None:
            self._unless_away(lambda: self._follow_curve(trial))

    def catch_up(self) -> None:
        """Bring the study up to date with all that it missed."""
        if self.away is not None and self._unless_away(self.compare):
            print(f"sweep {self.folder.name}: its database answers again", file=sys.stderr, flush=True)
            self.away = None

    def end(self) -> None:
        """Catch up for the last time, or say that the study is behind."""
        self.catch_up()
        if self.away is not None:
            said = "its database does not answer; the study there is behind, and the same command brings it up to date"
            print(f"sweep {self.folder.name}: {said}", file=sys.stderr, flush=True)

    def _unless_away(self, act: Callable[[], None]) -> bool:
        try:
            act()
            return True
        except optuna.exceptions.StorageInternalError as error:
            if self.away is None:
                reason = str(error.__cause__ or error).splitlines()[0]
                said = f"its database does not answer ({reason}); the sweep goes on, the study follows later"
                print(f"sweep {self.folder.name}: {said}", file=sys.stderr, flush=True)
            self.away = time.monotonic()
            return False

    def compare(self) -> None:
        """Keep the study if it agrees with the ledger, make it anew if not, and bring it up to date.

        Raises:
            ValueError: if a database has a study of this name that is another sweep's.
        """
        self.ids, self.known = {}, {}
        trials = [self.trials[number] for number in sorted(self.trials)]
        if self._kept(trials):
            there = self._study().get_trials(deepcopy=False)
            for one, trial in zip(there, trials, strict=False):
                self.ids[trial.number] = one._trial_id
                self.known[trial.number] = (trial.status, trial.values)
        else:
            self._made()
        for trial in trials:
            self._follow(trial)

    def _study(self) -> optuna.Study:
        return optuna.load_study(study_name=self.folder.name, storage=self.storage)

    def _kept(self, trials: Sequence[Trial]) -> bool:
        """Whether the study is there and agrees; one that is ours and does not is deleted."""
        name = self.folder.name
        if name not in optuna.get_all_study_names(self.storage):
            return False
        study = self._study()
        there = study.get_trials(deepcopy=False)
        owner = study.user_attrs.get("sweep")
        if not isinstance(self.storage, JournalStorage) and owner != ledger.identity(self.folder) and (owner or there):
            raise ValueError(
                f"hydra.sweeper.study_name={name}: the database has a study of this name, of "
                f"{study.user_attrs.get('folder', 'an unknown folder')}; nothing was started. Give another name"
            )
        wanted = [frozen(self.space, trial, len(self.objectives)) for trial in trials]
        directions = [item.name.lower() for item in study.directions]
        if (
            (directions, study.metric_names) == (list(self.objectives.values()), list(self.objectives))
            and owner
            and len(there) <= len(wanted)
            and all(_agree(one, other) for one, other in zip(there, wanted, strict=False))
        ):
            return True
        optuna.delete_study(study_name=name, storage=self.storage)
        return False

    def _made(self) -> None:
        try:
            study = optuna.create_study(
                study_name=self.folder.name, storage=self.storage, directions=list(self.objectives.values())
            )
        except optuna.exceptions.DuplicatedStudyError:
            raise ValueError(
                f"hydra.sweeper.study_name={self.folder.name}: another sweep of this name begins on the database; "
                "nothing was started. Give another name"
            ) from None
        study.set_user_attr("folder", f"{platform.node()}:{self.folder.absolute()}")
        study.set_user_attr("sweep", ledger.identity(self.folder))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(self.objectives))

    def _follow(self, trial: Trial) -> None:
        wanted = (trial.status, trial.values)
        if self.known.get(trial.number) == wanted:
            return
        if trial.number not in self.ids:
            study = self.storage.get_study_id_from_name(self.folder.name)
            made = frozen(self.space, trial, len(self.objectives))
            self.ids[trial.number] = self.storage.create_new_trial(study, template_trial=made)
        elif self.known[trial.number][0] in (ledger.DONE, ledger.FAILED, ledger.PRUNED):
            raise AssertionError("a finished trial is never changed; the study is made anew on start")
        else:
            self._update(trial)
        self.known[trial.number] = wanted

    def _follow_curve(self, trial: Trial) -> None:
        number = self.ids[trial.number]
        there = self.storage.get_trial(number).intermediate_values
        for step, value in trial.curve:
            if there.get(step) != value:
                self.storage.set_trial_intermediate_value(number, step, value)

    def _update(self, trial: Trial) -> None:
        number, made = self.ids[trial.number], frozen(self.space, trial, len(self.objectives))
        if made.state == TrialState.WAITING:  # Optuna has no way back from running, and needs none
            return
        if made.state.is_finished():
            if self.storage.get_trial(number).state == TrialState.WAITING:
                self.storage.set_trial_state_values(number, TrialState.RUNNING)
            self._follow_curve(trial)
            for key, value in made.user_attrs.items():
                self.storage.set_trial_user_attr(number, key, value)
            for key, value in made.system_attrs.items():
                self.storage.set_trial_system_attr(number, key, value)
            self.storage.set_trial_state_values(number, made.state, made.values)
        elif self.storage.get_trial(number).state == TrialState.WAITING:
            self.storage.set_trial_state_values(number, TrialState.RUNNING)


def mirror(storage: Any, folder: Path, space: Space, objectives: dict[str, str], trials: Sequence[Trial]) -> Mirror:
    """The study as the ledger has it: kept if it agrees, made anew if not, and continued.

    Raises:
        ValueError: if a database has a study of this name that is another sweep's.
    """
    made = Mirror(storage, folder, space, objectives, {trial.number: trial for trial in trials})
    made.compare()
    return made


def _agree(there: FrozenTrial, wanted: FrozenTrial) -> bool:
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    states = there.state == wanted.state or (there.state in open_states and wanted.state in open_states)
    return states and there.params == wanted.params and there.values == wanted.values


@dataclass
class Brain:
    """The sampler and what it has seen: an Optuna study in memory, which each draw is made from."""

    sampler: str
    seed: int
    space: Space
    study: Any
    numbers: dict[int, int]  # trial number -> its number in `study`

    def learn(self, trial: Trial) -> None:
        """Take in how a trial ended, or that one was drawn in an earlier life."""
        count = len(self.study.directions)
        if trial.number not in self.numbers:
            made = frozen(self.space, trial, count)
            made.intermediate_values = {}  # of the metric that is pruned by, which need not be the objective
            if made.state == TrialState.WAITING:  # else the next draw would be this one
                made.state, made.datetime_start = TrialState.RUNNING, datetime.now()
            self.study.add_trial(made)
            self.numbers[trial.number] = len(self.study.get_trials(deepcopy=False)) - 1
        elif trial.over:
            made = frozen(self.space, trial, count)
            number = self.numbers[trial.number]
            stored = self.study.get_trials(deepcopy=False)[number]
            for key, value in made.system_attrs.items():
                self.study._storage.set_trial_system_attr(stored._trial_id, key, value)
            self.study.tell(number, made.values, state=made.state)

    def draw(self, number: int, taken: set[tuple[str, ...]]) -> Trial | None:
        """The trial of this number, by (seed, number) and what has been learnt; None if every cell is taken."""
        distributions = {axis.name: axis.distribution() for axis in self.space.axes}
        discrete = not any(axis.interval for axis in self.space.axes)
        if discrete and len(taken) >= len(self.space.cells()):
            return None
        for again in range(REDRAWS):
            self.study.sampler = _sampler(self.sampler, random.Random(f"{self.seed}/{number}/{again}").getrandbits(31))
            asked = self.study.ask(distributions)
            cell = [axis.override(asked.params[axis.name]) for axis in self.space.axes]
            if not discrete or tuple(cell) not in taken:
                break
            self.study.tell(asked.number, state=TrialState.FAIL)
        else:
            free = [cell for cell in self.space.cells() if tuple(cell) not in taken]
            cell = random.Random(f"{self.seed}/{number}").choice(free)
            self.study.enqueue_trial(self.space.params(cell))
            asked = self.study.ask(distributions)
        self.numbers[number] = asked.number
        stored = self.study.get_trials(deepcopy=False)[asked.number]
        return Trial(number, cell, dict(stored.params), attributes=dict(stored.system_attrs))


def brain(sampler: str, seed: int, space: Space, directions: list[str], trials: Sequence[Trial]) -> Brain:
    made = Brain(sampler, seed, space, optuna.create_study(directions=directions), {})
    for trial in trials:
        made.learn(trial)
    return made


def _sampler(name: str, seed: int) -> Any:
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if name == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


# Objectives and constraints


@dataclass(frozen=True)
class Constraint:
    """`METRIC <= BOUND` or `METRIC >= BOUND`."""

    metric: str
    sign: int
    bound: float

    def violation(self, metrics: dict[str, Any]) -> float:
        """At most 0 where it holds, as Optuna wants it."""
        return self.sign * (float(metrics[self.metric]) - self.bound)

    def __str__(self) -> str:
        return f"{self.metric} {'<=' if self.sign > 0 else '>='} {self.bound:g}"


def constraint(said: str) -> Constraint:
    """Raises ValueError for what is no constraint."""
    for sign, operator in ((1, "<="), (-1, ">=")):
        metric, found, bound = said.partition(operator)
        if found:
            try:
                return Constraint(metric.strip(), sign, float(bound))
            except ValueError:
                break
    raise ValueError(f"hydra.sweeper.constraints={said}: allowed: METRIC <= NUMBER, METRIC >= NUMBER")


def check_metrics(key: str, wanted: Sequence[str], names: Sequence[str]) -> None:
    """Raises ValueError, with the nearest names, for a metric that no record has."""
    for metric in wanted:
        if metric not in names:
            raise ValueError(f"{key}={metric}: no record has this metric; {nearest(metric, sorted(names))}")
