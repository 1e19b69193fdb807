"""`hydra/sweeper=rna_optuna`: every trial exactly once, whatever is killed in between.

Truth is the ledger of `rna.ledger` and, where the app has a record store, its records; the Optuna study follows them.
A launcher that can `start` a trial and `poll` for those that ended gets as many at a time as it has `places` for; any
other is called for one trial after another.
"""

import errno
import importlib
import itertools
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from . import space as search_space
from .config import RnaOptunaConf

if TYPE_CHECKING:
    from rna.ledger import Trial

    from ._pruning import Referee
    from ._study import Brain, Constraint, Mirror

TRY_AGAIN = ("killed", "hung", "preempted", "out of memory", "timeout")  # another time may end otherwise
PATIENCE = 60.0  # seconds that trials have to write a checkpoint when the sweep is stopped
TOLD = 30.0  # seconds between two progress lines of a log


class Stopped(Exception):
    """A signal ended the sweep in good order."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class OneByOne:
    """Any Hydra launcher, called for one trial after another."""

    places = 1
    wait, survives = True, False

    def __init__(self, launcher: Any) -> None:
        self.launcher = launcher
        self.jobs: dict[int, str] = {}
        self.next: tuple[list[str], int] | None = None

    def start(self, overrides: list[str], number: int, _title: str) -> str | None:
        self.next = (overrides, number)
        return None

    def poll(self, timeout: float) -> list[tuple[int, JobReturn]]:
        assert self.next is not None, timeout
        (overrides, number), self.next = self.next, None
        try:
            return [(number, self.launcher.launch([overrides], initial_job_idx=number)[0])]
        except SystemExit as ended:
            return [(number, failed(RuntimeError(f"its process ended with exit code {ended.code}")))]
        except HydraException as error:
            return [(number, failed(ValueError(one_line(error))))]

    def stop(self, number: int) -> None:
        """Nothing to stop: between two calls nothing runs."""

    def signal(self, number: int) -> None:
        """Nothing to tell."""

    def close(self) -> None:
        """Nothing to end."""


class RnaOptunaSweeper(Sweeper):
    """The plugin: options as in `RnaOptunaConf`."""

    def __init__(self, **options: Any) -> None:
        self.options: RnaOptunaConf = SimpleNamespace(**options)  # type: ignore[assignment]

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing. A user's mistake ends in one line and exit code 2, failed trials in exit code 1."""
        from rna import signals

        try:
            failures = self._sweep(arguments)
        except (ValueError, HydraException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(f"error: {one_line(error)}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            full = error.errno in (None, errno.ENOSPC, errno.EDQUOT)
            advice = "make room, and give the same command again" if full else "give the same command again"
            print(f"error: {one_line(error)}; nothing that was written is lost: {advice}", file=sys.stderr)
            sys.exit(1)
        except (Stopped, signals.Interrupted, KeyboardInterrupt) as stop:
            number = getattr(stop, "number", signal.SIGINT)
            name = signal.Signals(number).name
            print(f"stopped by {name}; the same command goes on where this one was", file=sys.stderr)
            sys.exit(128 + number)
        if failures:
            sys.exit(1)

    def _sweep(self, arguments: list[str]) -> int:
        from rna import ledger

        options = self.options
        params = [f"{key}={_said(value)}" for key, value in (options.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        space = search_space.parse(parser.parse_overrides([*params, *arguments]))
        sampler = check_sampler(options, space)
        name = options.study_name or f"{self.config.hydra.job.name}-{space.digest()}"
        if Path(name).name != name or name.startswith("."):
            raise ValueError(
                f"hydra.sweeper.study_name={name}: must be the name of a folder, without / and no leading ."
            )
        folder = Path(options.folder) / name
        ours = self.config.hydra.sweeper
        with read_write(ours), open_dict(ours):
            ours.study_name = name
        with ledger.held(folder):
            return Sweep(self, space, sampler, folder).run()

    def launcher(self) -> Any:
        """The launcher, with `start` and `poll` whatever it is.

        Raises:
            ValueError: if more than one trial at a time is asked of a launcher that cannot do that.
        """
        try:
            made = Plugins.instance().instantiate_launcher(
                hydra_context=self.hydra_context, task_function=self.task_function, config=self.config
            )
        except HydraException as error:
            raise ValueError(one_line(error.__cause__ or error)) from None
        if hasattr(made, "start"):
            return made
        if (self.options.n_jobs or 1) > 1:
            raise ValueError(
                f"hydra.sweeper.n_jobs={self.options.n_jobs}: {type(made).__name__} runs one trial at a time here; "
                "allowed: 1, or hydra/launcher=gpu_pool"
            )
        return OneByOne(made)


class Sweep:
    """One run of the sweeper over a study that it holds."""

    def __init__(self, plugin: RnaOptunaSweeper, space: search_space.Space, sampler: str, folder: Path) -> None:
        from rna import ledger

        self.plugin, self.options, self.space, self.sampler, self.folder = (
            plugin,
            plugin.options,
            space,
            sampler,
            folder,
        )
        self.store: Any = record_store(self.options.store) if self.options.store else None
        self.trials = {trial.number: trial for trial in ledger.trials(folder)}
        self.running: dict[int, float] = {}  # trial number -> when it was started
        self.began = time.monotonic()
        self.stopping: int | None = None  # by which signal
        self.full: str | None = None  # what a trial said of the disk
        self.left_alone = False  # jobs were submitted, and nobody waits for them
        self.said, self.said_at = "", 0.0
        self.took: list[float] = []
        self.brain: Brain | None = None
        self.referee: Referee | None = None
        self.pruned_at: dict[int, float] = {}  # trial number -> when it was told to end
        self.mirror: Mirror
        self.objectives: dict[str, str]
        self.constraints: list[Constraint]

    def run(self) -> int:
        """Bring the study to its end; return how many trials failed."""
        import optuna

        from rna import ledger, signals

        from . import _study as study

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.constraints = [study.constraint(said) for said in self.options.constraints]
        self._check_space()
        launcher = self.plugin.launcher()
        self._take_over(launcher)
        fresh = self._queue_cells()
        self._address(fresh)
        self.objectives = self._objectives()
        self.referee = self._referee()
        for trial in self.trials.values():
            if trial.number not in self.running:
                self._recall(trial)
        storage = study.open_storage(self.options.storage, self.folder)
        places = self.options.n_jobs or launcher.places
        self._keep_spec()
        ordered = [self.trials[number] for number in sorted(self.trials)]
        for trial in ordered:
            ledger.save(self.folder, trial)
        ledger.clear_beats(self.folder, [self.trials[number] for number in self.running])
        directions = list(self.objectives.values())
        self.mirror = study.mirror(storage, self.folder, self.space, self.objectives, ordered)
        if self.sampler != "grid":
            self.brain = study.brain(self.sampler, self.options.seed, self.space, directions, ordered)
        if self.referee is not None:
            for trial in ordered:
                if trial.over:
                    self.referee.learn(trial)
        queue = deque(trial for trial in ordered if trial.status == ledger.QUEUED)
        if done := sum(trial.status == ledger.DONE for trial in ordered):
            self._print(f"{done} of {self._total()} trials are done already")
        try:
            with signals.noted(*signals.STOPS, *signals.WARNINGS) as heard:
                self._loop(launcher, queue, places, heard)
        finally:
            launcher.close()
            self.mirror.end()
        if self.stopping is not None:
            raise Stopped(self.stopping)
        return self._end()

    def _loop(self, launcher: Any, queue: "deque[Trial]", places: int, heard: Any) -> None:
        deadline: float | None = None
        while True:
            while len(self.running) < places and self._may_start():
                trial = self._next(queue)
                if trial is None:
                    break
                self._start(launcher, trial)
            self._progress()
            if not self.running:
                return
            for number, ended in self._polled(launcher):
                self._ended(self.trials[number], ended, queue)
            self._watch(launcher)
            self._note_jobs(launcher)
            if not launcher.wait and self.running and not queue and launcher.settled():
                self._note_jobs(launcher)
                self.left_alone = True
                return
            self._end_hung(launcher)
            if heard.pending:
                number, heard.pending[:] = heard.pending[0], []
                launcher.signal(number)
                if number in (signal.SIGTERM, signal.SIGINT):
                    if self.stopping is not None or launcher.survives:
                        self.stopping = number
                        return
                    self.stopping, deadline = number, time.monotonic() + PATIENCE
                    self._print(f"stopping; {len(self.running)} trials write their checkpoints")
            if deadline is not None and time.monotonic() > deadline:
                return

    def _may_start(self) -> bool:
        late = self.options.timeout is not None and time.monotonic() - self.began > self.options.timeout
        return self.stopping is None and self.full is None and not late

    # What there is to do

    def _check_space(self) -> None:
        """Raises ValueError if the study's name belongs to another search space, or to another configuration.

        With a record store a changed configuration makes other trials, and the old ones keep their records; a returned
        value has none, and could only be mixed with the new ones, or lost.
        """
        from rna import ledger

        spec = ledger.read_json(self.folder / "sweep.json")
        if spec is None:
            return
        there, here = spec["space"], self.space.described()
        if there != here or spec["sampler"] != self.sampler:
            differs = sorted(key for key in {*there, *here} if there.get(key) != here.get(key)) or ["sampler"]
            raise ValueError(
                f"hydra.sweeper.study_name={self.folder.name}: this study has another search space "
                f"({', '.join(differs)} differ); give another name, or the space it was begun with"
            )
        there, here = spec["fingerprint"], self._fingerprint()
        if self.store is None and there != here:
            differs = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
            raise ValueError(
                f"hydra.sweeper.study_name={self.folder.name}: this study was begun with another configuration "
                f"({', '.join(differs)} differ); give another name, or the configuration it was begun with"
            )

    def _keep_spec(self) -> None:
        from rna import ledger

        spec = {
            "name": self.folder.name,
            "space": self.space.described(),
            "fixed": list(self.space.fixed),
            "sampler": self.sampler,
            "seed": self.options.seed,
            "n_trials": self._total(),
            "objectives": self.objectives,
            "constraints": [str(item) for item in self.constraints],
            "watched": self.referee.watched if self.referee else None,
            "fingerprint": self._fingerprint(),
            "store": self.options.store,
        }
        ledger.write_json(self.folder / "sweep.json", spec)

    def _fingerprint(self) -> Any:
        plain: Any = OmegaConf.to_container(self.plugin.config)
        common = {str(key): value for key, value in plain.items() if key != "hydra"}
        return self.store.fingerprint(common) if self.store else json.loads(json.dumps(common, default=str))

    def _total(self) -> int:
        if self.sampler == "grid":
            return len(self.space.cells())
        assert self.options.n_trials is not None
        return self.options.n_trials

    def _take_over(self, launcher: Any) -> None:
        """Of the trials in work in an earlier life: watch those that outlived it, and requeue those that died."""
        from rna import ledger

        for trial in self.trials.values():
            if trial.status != ledger.RUNNING:
                continue
            if launcher.survives and trial.job:
                launcher.adopt(trial.number, trial.job)
                self.running[trial.number] = time.monotonic()
            else:
                end_survivor(ledger.last_beat(self.folder, trial))
                trial.status, trial.token = ledger.QUEUED, ""

    def _queue_cells(self) -> "list[Trial]":
        """Queue a grid's cells that are new."""
        from rna.ledger import Trial

        if self.sampler != "grid":
            return []
        known = {tuple(trial.cell) for trial in self.trials.values()}
        fresh: list[Trial] = []
        for cell in self.space.cells():
            if tuple(cell) not in known:
                fresh.append(Trial(self._free_number(), cell, self.space.params(cell)))
                self.trials[fresh[-1].number] = fresh[-1]
        return fresh

    def _free_number(self) -> int:
        """The lowest that no trial has: where a trial's file was lost, its number comes back, and with it its cell."""
        return next(number for number in itertools.count() if number not in self.trials)

    def _address(self, fresh: "list[Trial]") -> None:
        """Where each trial's record lies: composed once a cell, and again where configuration or code have changed.

        Raises:
            ValueError: for a cell that cannot be composed, or if the app's checks refuse every one.
        """
        from rna import ledger

        if self.store is None:
            return
        spec = ledger.read_json(self.folder / "sweep.json") or {}
        changed = "fingerprint" in spec and spec["fingerprint"] != self._fingerprint()
        there = [trial for trial in self.trials.values() if trial.number not in self.running]
        todo = there if changed else fresh + [trial for trial in there if not trial.address]
        before = {trial.number: (trial.address or {}).get("key") for trial in todo}
        refused: list[tuple[Trial, str]] = []
        started = told = time.monotonic()
        for count, trial in enumerate({trial.number: trial for trial in todo}.values()):
            try:
                trial.address = self._composed(trial.cell)
            except HydraException as error:
                raise ValueError(f"{trial.name}: {one_line(error)}") from None
            except ValueError as error:
                refused.append((trial, str(error)))
            if time.monotonic() - told > 5:
                told = time.monotonic()
                self._print(f"composing {count + 1}/{len(todo)} cells ({told - started:.0f} s)")
        if refused and len(refused) == len(self.trials):
            raise ValueError(f"{refused[0][0].name}: {refused[0][1]}")
        for trial, message in refused:
            self._print(f"{trial.name} cannot be run: {message}")
            trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, "bad config", message, None
        if changed:
            moved = 0
            for trial in todo:
                if before[trial.number] not in (None, (trial.address or {}).get("key")):
                    moved += 1
                    trial.status, trial.metrics, trial.values, trial.attempts = ledger.QUEUED, {}, None, 0
                elif trial.reason == "bad config" and trial.address:
                    trial.status = ledger.QUEUED
            what = f"{moved} of {len(todo)} trials are other ones now and run anew; their old records stay, uncounted"
            self._print(f"configuration or code has changed since this sweep began: {what if moved else 'same trials'}")

    def _composed(self, cell: Sequence[str]) -> dict[str, Any]:
        """A cell's address. Raises HydraException if it cannot be composed, ValueError if the app refuses it."""
        composed = self.plugin.hydra_context.config_loader.load_sweep_config(
            self.plugin.config, [*self.space.fixed, *cell, self._named]
        )
        with read_write(composed), open_dict(composed):
            del composed["hydra"]
        return self.store.address(composed)

    @property
    def _named(self) -> str:
        """The study's name as an override: a job's sweeper must be the sweep's own, for Hydra 1.4 to the letter."""
        return f"hydra.sweeper.study_name={_quoted(self.folder.name)}"

    def _objectives(self) -> dict[str, str]:
        """Metric -> direction. Raises ValueError for a direction or a metric that does not exist."""
        from . import _study as study

        address = next((trial.address for trial in self.trials.values() if trial.address), None)
        if address is None and self.store is not None:  # nothing is known before the first draw
            address = self._composed([axis.override(_first(axis)) for axis in self.space.axes])
        given = check_objectives(self.options.objectives)
        if self.options.direction not in study.DIRECTIONS:
            allowed = search_space.nearest(self.options.direction, study.DIRECTIONS)
            raise ValueError(f"hydra.sweeper.direction={self.options.direction}: {allowed}")
        if address is not None:
            names = self.store.names(address)
            study.check_metrics("hydra.sweeper.objectives", list(given), names)
            study.check_metrics("hydra.sweeper.constraints", [item.metric for item in self.constraints], names)
            return given or self.store.objectives(address)
        return given or {"value": self.options.direction}

    def _recall(self, trial: "Trial") -> bool:
        """Take a trial's outcome from its record, where there is one; one whose record is gone runs again."""
        from rna import ledger

        if trial.status in (ledger.FAILED, ledger.PRUNED):
            return False
        if self.store is not None:
            found = self.store.metrics(trial.address) if trial.address else None
            if found is None:
                trial.status, trial.metrics, trial.values = ledger.QUEUED, {}, None
                return False
            trial.metrics = found
            if self.referee is not None and not trial.curve:
                whole = self.store.curve(trial.address, self.referee.metric)
                trial.curve = ledger.thinned(whole, self.referee.every)
        elif trial.status != ledger.DONE:
            return False
        self._judge(trial)
        return True

    def _judge(self, trial: "Trial") -> None:
        """Set a finished trial's objective values and constraints from its metrics.

        Raises:
            ValueError: for a metric that it does not have.
        """
        from rna import ledger

        from . import _study as study

        study.check_metrics("hydra.sweeper.objectives", list(self.objectives), list(trial.metrics))
        study.check_metrics(
            "hydra.sweeper.constraints", [item.metric for item in self.constraints], list(trial.metrics)
        )
        values = [trial.metrics[metric] for metric in self.objectives]
        if any(value is None or not math.isfinite(value) for value in values):
            said = ", ".join(f"{metric}={value}" for metric, value in zip(self.objectives, values, strict=True))
            trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, "not finite", said, None
            return
        trial.status, trial.values = ledger.DONE, [float(value) for value in values]
        trial.reason = trial.message = None
        for item in self.constraints:  # under the names that Optuna's `Trial.set_constraint` gives them
            trial.attributes[f"constraints:{item}"] = item.violation(trial.metrics)

    # One trial after the other

    def _next(self, queue: "deque[Trial]") -> "Trial | None":
        """The next trial to start; those that have a record by now are done without being started."""
        while queue:
            trial = queue.popleft()
            if not self._done_elsewhere(trial):
                return trial
        while self.brain is not None and len(self.trials) < self._total():
            taken = {tuple(trial.cell) for trial in self.trials.values()}
            trial = self.brain.draw(self._free_number(), taken)
            if trial is None:
                self._print(f"every combination has been drawn: {len(self.trials)} trials, no more")
                self.options.n_trials = len(self.trials)
                return None
            self.trials[trial.number] = trial
            if self.store is not None:
                try:
                    trial.address = self._composed(trial.cell)
                except (ValueError, HydraException) as error:
                    self._fail(trial, "bad config", one_line(error))
                    continue
            if not self._done_elsewhere(trial):
                return trial
        return None

    def _done_elsewhere(self, trial: "Trial") -> bool:
        if self.store is None or not self._recall(trial):
            return False
        self._settle(trial)
        return True

    def _start(self, launcher: Any, trial: "Trial") -> None:
        from rna import ledger

        trial.status, trial.token = ledger.RUNNING, os.urandom(8).hex()
        trial.attempts += 1
        trial.reason = trial.message = None
        trial.curve = []
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        owner = _quoted(ledger.owner_value(self.folder, trial))
        ours = [f"++hydra.job.env_set.{ledger.OWNER}={owner}", self._named]
        self.running[trial.number] = time.monotonic()
        where = trial.address or {}
        title = f"{where['title']}-s{where['seed']}" if "title" in where else trial.name
        trial.job = None
        trial.log = launcher.start([*self.space.fixed, *trial.cell, *ours], trial.number, title)
        if trial.log:
            ledger.save(self.folder, trial)

    def _note_jobs(self, launcher: Any) -> None:
        """Write down under which ids a cluster knows the trials: by these another life finds them again."""
        from rna import ledger

        for number, job in launcher.jobs.items():
            trial = self.trials[number]
            if trial.job != job:
                trial.job = job
                ledger.save(self.folder, trial)

    def _ended(self, trial: "Trial", ended: JobReturn, queue: "deque[Trial]") -> None:
        from rna import ledger

        trial.seconds = round(time.monotonic() - self.running.pop(trial.number), 3)
        trial.ended = time.time()
        if trial.status == ledger.PRUNED:
            return self._ended_pruned(trial)
        if self.referee is not None:
            trial.curve = ledger.read_curve(ledger.curve_path(self.folder, trial))
        if ended.status == JobStatus.COMPLETED:
            self.took.append(trial.seconds)
            if self.store is None:
                trial.metrics = returned(ended._return_value)
                self._judge(trial)
            elif not self._recall(trial):
                return self._fail(trial, "no record", "it ended well, and left no record")
            return self._settle(trial)
        error: BaseException = ended._return_value
        reason = "hung" if trial.reason == "hung" else reason_of(error)
        message = one_line(error) or type(error).__name__
        if self.store is not None and self._recall(trial):  # killed after its last word
            return self._settle(trial)
        if reason == "disk full":
            self.full = message
        if self.full or (self.stopping is not None and reason in TRY_AGAIN):
            trial.status, trial.token = ledger.QUEUED, ""
            trial.attempts -= 1
            self._forget_curve(trial)
            ledger.save(self.folder, trial)
        elif reason in TRY_AGAIN and trial.attempts <= self.options.max_retries:
            self._print(f"#{trial.number} {trial.name}: {reason} ({message}); tried again")
            trial.status, trial.token, trial.reason, trial.message = ledger.QUEUED, "", reason, message
            self._forget_curve(trial)
            ledger.save(self.folder, trial)
            queue.append(trial)
        else:
            self._fail(trial, reason, message)
        return None

    def _fail(self, trial: "Trial", reason: str, message: str) -> None:
        from rna import ledger

        trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, reason, message, None
        trial.ended = trial.ended or time.time()
        where = f"; {trial.log}" if trial.log else ""
        self._print(f"#{trial.number} {trial.name} failed: {reason}: {message}{where}")
        self._settle(trial)

    def _settle(self, trial: "Trial") -> None:
        """Write down how a trial ended: in the ledger first, which is the truth."""
        from rna import ledger

        trial.token = ""
        trial.ended = trial.ended or time.time()
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        if self.brain is not None:
            self.brain.learn(trial)
        if self.referee is not None:
            self.referee.learn(trial)

    def _end_hung(self, launcher: Any) -> None:
        """End a trial whose phase has said nothing for longer than the phase is allowed to."""
        from rna import ledger

        for number in list(self.running):
            trial = self.trials[number]
            told = ledger.last_beat(self.folder, trial)
            allowed = self.options.stall.get(told.get("phase", ""))
            if allowed is not None and time.time() - told["time"] > allowed and trial.reason != "hung":
                trial.reason = "hung"
                launcher.stop(number)

    # Trials that are not worth their end

    def _referee(self) -> "Referee | None":
        """Raises ValueError for a pruner that does not exist, or that this sweep cannot have."""
        if self.options.pruner is None:
            return None
        from . import _pruning

        address = next((trial.address for trial in self.trials.values() if trial.address), None)
        return _pruning.referee(
            self.options.pruner,
            self.options.pruning,
            check_objectives(self.options.prune_by, "prune_by"),
            self.objectives,
            self.store.curves(address) if self.store is not None and address is not None else None,
        )

    def _polled(self, launcher: Any) -> list[tuple[int, JobReturn]]:
        """The trials that have ended; a launcher that blocks for a trial is no reason not to watch it."""
        if self.referee is None or not isinstance(launcher, OneByOne):
            return launcher.poll(0.2)
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                self._watch(launcher)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            return launcher.poll(0.2)
        finally:
            ended.set()
            watcher.join()

    def _watch(self, launcher: Any) -> None:
        """Read the curves of the trials in work, and tell those to end that the pruner gives up."""
        from rna import ledger

        for number in list(self.running) if self.referee is not None else []:
            trial = self.trials[number]
            if trial.status == ledger.PRUNED:
                if time.monotonic() - self.pruned_at[number] > PATIENCE:
                    self.pruned_at[number] = math.inf
                    launcher.stop(number)
                continue
            assert self.referee is not None
            curve = ledger.read_curve(ledger.curve_path(self.folder, trial))
            if len(curve) == len(trial.curve):
                continue
            trial.curve = curve
            self.mirror.follow_curve(trial)
            if self.referee.judge(trial, curve):
                self.pruned_at[number] = time.monotonic()
                step, value = curve[-1]
                trial.status, trial.token, trial.reason = ledger.PRUNED, "", "pruned"
                trial.message = f"pruned at step {step}: {self.referee.metric}={value:g}"
                ledger.save(self.folder, trial)

    def _forget_curve(self, trial: "Trial") -> None:
        """A trial that is tried again tells its curve again."""
        trial.curve = []
        if self.referee is not None:
            self.referee.learn(trial)

    def _ended_pruned(self, trial: "Trial") -> None:
        """A trial that was told to end has: done after all if it was quicker than the word."""
        from rna import ledger

        message = trial.message
        trial.status = ledger.QUEUED
        if self.store is None or not self._recall(trial):
            trial.status, trial.reason, trial.message, trial.values = ledger.PRUNED, "pruned", message, None
            self._print(f"#{trial.number} {trial.name}: {message}")
        self._settle(trial)

    # What a person sees

    def _print(self, line: str) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        print(f"{self.folder.name}: {line}", file=sys.stderr, flush=True)

    def _progress(self) -> None:
        from rna import ledger

        counts = Counter(trial.status for trial in self.trials.values())
        line = f"{counts[ledger.DONE]}/{self._total()} done"
        if counts[ledger.PRUNED]:
            line += f", {counts[ledger.PRUNED]} pruned"
        if counts[ledger.FAILED]:
            line += f", {counts[ledger.FAILED]} failed"
        line += f", {len(self.running)} running"
        left = self._total() - counts[ledger.DONE] - counts[ledger.FAILED] - counts[ledger.PRUNED]
        if self.took and left and self.running:
            minutes = left * sum(self.took) / len(self.took) / len(self.running) / 60
            line += f", about {math.ceil(minutes)} min left"
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self.said_at > 0.5 or line != self.said:
                self.said, self.said_at = line, now
                parts = [self._phase(self.trials[number]) for number in sorted(self.running)]
                print(
                    f"\r\x1b[K{self.folder.name}: {line} {' '.join(parts)}"[:160], end="", file=sys.stderr, flush=True
                )
        elif line != self.said or now - self.said_at > TOLD:
            self.said, self.said_at = line, now
            self._print(line)

    def _phase(self, trial: "Trial") -> str:
        from rna import ledger

        told = ledger.last_beat(self.folder, trial)
        return f"[#{trial.number} {told['phase']} {told['done']}/{told['total']}]" if told else f"[#{trial.number}]"

    def _end(self) -> int:
        """The last words; return how many trials failed."""
        from rna import ledger

        if self.full:
            raise OSError(self.full)
        counts = Counter(trial.status for trial in self.trials.values())
        if self.left_alone:
            self._print(
                f"{len(self.running)} trials are with the cluster; python -m rna.sweep status {self.folder.name}"
            )
            return counts[ledger.FAILED]
        left = self._total() - counts[ledger.DONE] - counts[ledger.FAILED] - counts[ledger.PRUNED]
        pruned = f"{counts[ledger.PRUNED]} pruned, " if counts[ledger.PRUNED] else ""
        more = f", {left} left: the same command goes on" if left else ""
        self._print(f"{counts[ledger.DONE]} done, {pruned}{counts[ledger.FAILED]} failed{more}; {self.folder}")
        done = [trial for trial in self.trials.values() if trial.status == ledger.DONE]
        if self.options.finish:
            module, _, function = self.options.finish.rpartition(".")
            getattr(importlib.import_module(module), function)(self.folder)
        elif done and len(self.objectives) == 1:
            ((metric, direction),) = self.objectives.items()
            sign = -1 if direction == "maximize" else 1
            best = min(done, key=lambda trial: sign * (trial.values or [math.inf])[0])
            print(f"best: #{best.number} {best.name}: {metric}={(best.values or [math.nan])[0]:g}")
        return counts[ledger.FAILED]


def check_sampler(options: RnaOptunaConf, space: search_space.Space) -> str:
    """The sampler's name. Raises ValueError for one that does not exist, or does not fit the space."""
    samplers = ("grid", "random", "tpe", "nsga2")
    sampler = options.sampler or "grid"
    if sampler not in samplers:
        raise ValueError(f"hydra.sweeper.sampler={sampler}: {search_space.nearest(sampler, samplers)}")
    for key, value, low in (("n_jobs", options.n_jobs, 1), ("max_retries", options.max_retries, 0)):
        if value is not None and value < low:
            raise ValueError(f"hydra.sweeper.{key}={value}: must be a whole number ≥ {low}")
    if options.timeout is not None and not options.timeout >= 0:
        raise ValueError(f"hydra.sweeper.timeout={options.timeout:g}: must be a number of seconds ≥ 0, or null")
    if sampler == "grid":
        if endless := next((axis for axis in space.axes if axis.interval), None):
            raise ValueError(
                f"{endless.key}=interval({endless.low:g},{endless.high:g}): a grid needs values it can count; allowed: "
                "a list, choice(…), range(…), or hydra.sweeper.sampler=random, tpe, nsga2"
            )
        return sampler
    if not space.axes:
        raise ValueError(f"hydra.sweeper.sampler={sampler}: nothing is swept; give a list, range or interval")
    if options.n_trials is None or options.n_trials < 1:
        raise ValueError(f"hydra.sweeper.n_trials={options.n_trials}: {sampler} needs a whole number ≥ 1")
    return sampler


def record_store(module: str) -> Any:
    """Raises ValueError for a module that is not there; what goes wrong within it is its own matter."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"hydra.sweeper.store={module}: no such module; allowed: null, or one that can be imported"
        ) from None


def check_objectives(given: Any, option: str = "objectives") -> dict[str, str]:
    """Raises ValueError for what is no mapping of metrics to directions."""
    from ._study import DIRECTIONS

    if given is not None and not hasattr(given, "items"):
        raise ValueError(f"hydra.sweeper.{option}={given}: allowed: {{METRIC: minimize}}, {{METRIC: maximize}}")
    objectives = {str(metric): str(direction) for metric, direction in (given or {}).items()}
    for metric, direction in objectives.items():
        if direction not in DIRECTIONS:
            allowed = search_space.nearest(direction, DIRECTIONS)
            raise ValueError(f"hydra.sweeper.{option}.{metric}={direction}: {allowed}")
    return objectives


def reason_of(error: BaseException) -> str:
    """Why a trial ended without an outcome, in the few words that decide whether it is tried again."""
    from rna.pool import WorkerDied
    from rna.signals import Interrupted

    told = getattr(error, "reason", None)
    if isinstance(told, str):
        return told
    kinds: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        (ValueError, "bad config"),
        (MemoryError, "out of memory"),
        (ArithmeticError, "not finite"),
        (WorkerDied, "killed"),
        ((Interrupted, KeyboardInterrupt), "preempted"),
        (TimeoutError, "timeout"),
    ]
    return next((reason for kind, reason in kinds if isinstance(error, kind)), "error")


def returned(value: Any) -> dict[str, Any]:
    """What a job returned, as metrics by name.

    Raises:
        ValueError: for what is no number, list of numbers or mapping.
    """
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items() if item is None or isinstance(item, int | float)}
    if isinstance(value, list | tuple):
        return {f"value_{index}": float(item) for index, item in enumerate(value)}
    if isinstance(value, int | float) or hasattr(value, "__float__"):
        return {"value": float(value)}
    raise ValueError(f"the job returned {value!r}: must be a number, a list of numbers, or a mapping of metrics")


def failed(error: BaseException) -> JobReturn:
    made = JobReturn()
    made.status, made.return_value = JobStatus.FAILED, error
    return made


def end_survivor(told: dict[str, Any]) -> None:
    """Kill a trial's process that outlived its sweeper on this machine, as one that was paused does."""
    from rna import ledger

    if told.get("host") == platform.node() and told.get("started") == ledger.started(told["pid"]):
        os.kill(told["pid"], signal.SIGKILL)


def one_line(error: BaseException) -> str:
    """What an error says, without the list of folders that Hydra looked into."""
    said = str(error).partition("Config search path:")[0].partition("full_key:")[0]
    return " ".join(line.strip() for line in said.splitlines() if line.strip())


def _first(axis: search_space.Axis) -> Any:
    return axis.natives[0] if axis.choices else axis.low


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return "null" if value is None else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
