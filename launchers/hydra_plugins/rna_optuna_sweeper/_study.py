"""The Optuna study as a view of the ledger: compared on every start, and made anew where it differs."""

import json
import math
import platform
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from rna.sweep import Trial, ledger

from .space import Space

STATES = {
    ledger.QUEUED: TrialState.WAITING,
    ledger.RUNNING: TrialState.RUNNING,
    ledger.DONE: TrialState.COMPLETE,
    ledger.FAILED: TrialState.FAIL,
    ledger.PRUNED: TrialState.PRUNED,
}
EXACT = 2**53  # up to which Optuna's floats hold every whole number
WORDS = 600  # characters that an axis of words may take in each trial
ASKED_AGAIN = 20.0  # seconds between two attempts to reach a database that went away


def frozen(distributions: Mapping[str, Any], trial: Trial, directions: int) -> FrozenTrial:
    """A trial of the ledger as Optuna keeps it."""
    state = STATES[trial.status]
    values = trial.values if state == TrialState.COMPLETE else None
    if state == TrialState.COMPLETE and (values is None or len(values) != directions):
        state, values = TrialState.FAIL, None
    made = create_trial(
        state=state,
        values=values,
        params=trial.params,
        distributions={name: one for name, one in distributions.items() if name in trial.params},
        user_attrs=_shown(trial),
        intermediate_values=dict(trial.curve),
        system_attrs=trial.attributes,
    )
    made.datetime_start = None if state == TrialState.WAITING else made.datetime_start
    if trial.ended is not None and state.is_finished():
        made.datetime_complete = datetime.fromtimestamp(trial.ended)
        made.datetime_start = datetime.fromtimestamp(trial.ended - (trial.seconds or 0.0))
    return made


@dataclass(frozen=True)
class View:
    """The parameters of a study as a storage keeps them, with every trial: in a few bytes, however many values.

    Numbers lie between their least and greatest. Of many long words each trial gets its place among them as the
    parameter, and the word itself as an attribute of the same name.
    """

    distributions: dict[str, Any]
    places: dict[str, dict[Any, int]]  # parameter -> value -> its place

    def frozen(self, trial: Trial, directions: int) -> FrozenTrial:
        placed = {name: places for name, places in self.places.items() if name in trial.params}
        shown = trial.params | {name: places[trial.params[name]] for name, places in placed.items()}
        made = frozen(self.distributions, replace(trial, params=shown), directions)
        made.user_attrs |= {name: trial.params[name] for name in placed}
        return made


def view(space: Space, trials: Iterable[Trial]) -> View:
    """What a study of this space shows, with the values of trials that the space no longer has."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kept = list(trials)
    made, places = dict[str, Any](), dict[str, dict[Any, int]]()
    for axis in space.axes:
        if axis.interval:
            made[axis.name] = axis.distribution()
            continue
        values = list(dict.fromkeys([*axis.natives, *(t.params[axis.name] for t in kept if axis.name in t.params)]))
        if all(type(value) is int and abs(value) <= EXACT for value in values):
            made[axis.name] = IntDistribution(min(values), max(values))
        elif all(type(value) in (int, float) and math.isfinite(value) for value in values):
            made[axis.name] = FloatDistribution(min(values), max(values))
        elif len(json.dumps(values)) <= WORDS:
            made[axis.name] = CategoricalDistribution(values)
        else:
            made[axis.name] = IntDistribution(0, len(values) - 1)
            places[axis.name] = {value: place for place, value in enumerate(values)}
    return View(made, places)


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
    view: View
    objectives: dict[str, str]
    trials: dict[int, Trial]
    ids: dict[int, int] = field(default_factory=dict)  # trial number -> Optuna's id
    known: dict[int, tuple[str, Any]] = field(default_factory=dict)  # trial number -> status and values there
    behind: deque[Trial] = field(default_factory=deque)  # those that the study has not yet, by their numbers
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

    def grow(self, seconds: float) -> bool:
        """Add trials that wait for their turn, for so many seconds; return whether there are more.

        A study of ten thousand takes its time, and the first trial need not wait for it.
        """
        until = time.monotonic() + seconds
        while self.behind and self.away is None and time.monotonic() < until:
            self._unless_away(self._add_next)
        return bool(self.behind) and self.away is None

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
        self.behind = deque(trials[len(self.ids) :])
        waiting = next((back for back, one in enumerate(reversed(trials)) if one.status != ledger.QUEUED), len(trials))
        for trial in trials[: len(trials) - waiting]:
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
        wanted = [self.view.frozen(trial, len(self.objectives)) for trial in trials[: len(there)]]
        directions = [item.name.lower() for item in study.directions]
        if (
            (directions, study.metric_names) == (list(self.objectives.values()), list(self.objectives))
            and owner
            and len(there) <= len(trials)
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
        while self.behind and self.behind[0].number <= trial.number:  # Optuna counts them itself
            self._add_next()
        if self.known.get(trial.number) == wanted:
            return
        if trial.number not in self.ids:
            self._add(trial)
        elif self.known[trial.number][0] in (ledger.DONE, ledger.FAILED, ledger.PRUNED):
            raise AssertionError("a finished trial is never changed; the study is made anew on start")
        else:
            self._update(trial)
        self.known[trial.number] = wanted

    def _add_next(self) -> None:
        self._add(self.behind[0])
        self.behind.popleft()

    def _add(self, trial: Trial) -> None:
        study = self.storage.get_study_id_from_name(self.folder.name)
        made = self.view.frozen(trial, len(self.objectives))
        self.ids[trial.number] = self.storage.create_new_trial(study, template_trial=made)
        self.known[trial.number] = (trial.status, trial.values)

    def _follow_curve(self, trial: Trial) -> None:
        number = self.ids[trial.number]
        there = self.storage.get_trial(number).intermediate_values
        for step, value in trial.curve:
            if there.get(step) != value:
                self.storage.set_trial_intermediate_value(number, step, value)

    def _update(self, trial: Trial) -> None:
        number, made = self.ids[trial.number], self.view.frozen(trial, len(self.objectives))
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
    """The study of a sweep, which `compare` brings to what the ledger has."""
    return Mirror(storage, folder, view(space, trials), objectives, {one.number: replace(one) for one in trials})


def _agree(there: FrozenTrial, wanted: FrozenTrial) -> bool:
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    states = there.state == wanted.state or (there.state in open_states and wanted.state in open_states)
    return (
        states
        and (there.params, there.distributions, there.values) == (wanted.params, wanted.distributions, wanted.values)
        and (there.state in open_states or there.constraints == wanted.constraints)
    )
