"""One run of the sweeper: what there is to do, one trial after the other, and what becomes of each."""

import importlib
import itertools
import math
import os
import signal
import time
from collections import Counter, deque
from pathlib import Path
from typing import Any

import optuna
from hydra.core.utils import JobReturn
from hydra.errors import HydraException

from rna import ledger, signals
from rna.ledger import Trial

from . import space as search_space
from ._checks import check_objectives, constraint, record_store
from ._composing import Composer, address_all
from ._endings import Endings, Records
from ._goals import Goals, goals
from ._one_by_one import OneByOne
from ._outcomes import Stopped, end_survivor, one_line
from ._pruning import Referee, referee
from ._said import Said
from ._sampling import Brain, brain
from ._spec import check_same_configuration, check_spec, read_spec, write_spec
from ._storage import open_storage
from ._study import Mirror, mirror

PATIENCE = 60.0  # seconds that trials have to write a checkpoint when the sweep is stopped, and to end when pruned


class Sweep:
    """One run of the sweeper over a study that it holds."""

    def __init__(self, plugin: Any, space: search_space.Space, sampler: str, folder: Path) -> None:
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
        self.composer = Composer(plugin.hydra_context, plugin.config, space, folder.name, self.store)
        self.began = time.monotonic()
        self.stopping: int | None = None  # by which signal
        self.left_alone = False  # jobs were submitted, and nobody waits for them
        self.said = Said(folder)
        self.brain: Brain | None = None
        self.referee: Referee | None = None
        self.pruned_at: dict[int, float] = {}  # trial number -> when it was told to end
        self.mirror: Mirror
        self.goals: Goals
        self.endings: Endings

    def run(self) -> int:
        """Bring the study to its end; return how many trials failed."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        constraints = [constraint(said) for said in self.options.constraints]
        spec = read_spec(self.folder)
        check_spec(spec, self.folder.name, self.space, self.sampler)
        if self.store is None:
            check_same_configuration(spec, self.folder.name, self.composer.fingerprint())
        launcher = self.plugin.launcher()
        self._take_over(launcher)
        fresh = self._queue_cells()
        if self.store is not None:
            address_all(self.trials, fresh, self.composer, spec, self.said)
        address = self._some_address()
        self.goals = goals(self.options, constraints, self.store, address)
        self.referee = self._referee(address, spec)
        if self.referee is not None and isinstance(launcher, OneByOne):
            launcher.meanwhile = lambda: self._watch(launcher)
        records = Records(self.store, self.goals, self.referee)
        for trial in self.trials.values():
            if trial.number not in self.running:
                records.recall(trial)
        storage = open_storage(self.options.storage, self.folder)
        places = self.options.n_jobs or launcher.places
        write_spec(
            self.folder,
            space=self.space.described(),
            fixed=list(self.space.fixed),
            sampler=self.sampler,
            seed=self.options.seed,
            n_trials=self._total(),
            objectives=self.goals.objectives,
            constraints=[str(item) for item in constraints],
            watched=self.referee.watched if self.referee else None,
            fingerprint=self.composer.fingerprint(),
            store=self.options.store,
        )
        ordered = [self.trials[number] for number in sorted(self.trials)]
        for trial in ordered:
            ledger.save(self.folder, trial)
        ledger.clear_beats(self.folder, [self.trials[number] for number in self.running])
        directions = list(self.goals.objectives.values())
        self.mirror = mirror(storage, self.folder, self.space, self.goals.objectives, ordered)
        if self.sampler != "grid":
            self.brain = brain(self.sampler, self.options.seed, self.space, directions, ordered)
        if self.referee is not None:
            for trial in ordered:
                if trial.over:
                    self.referee.learn(trial)
        queue = deque(trial for trial in ordered if trial.status == ledger.QUEUED)
        self.endings = Endings(
            folder=self.folder,
            records=records,
            mirror=self.mirror,
            brain=self.brain,
            referee=self.referee,
            said=self.said,
            max_retries=self.options.max_retries,
            queue=queue,
        )
        if done := sum(trial.status == ledger.DONE for trial in ordered):
            self.said.say(f"{done} of {self._total()} trials are done already")
        try:
            with signals.noted(*signals.STOPS, *signals.WARNINGS) as heard:
                self._loop(launcher, queue, places, heard)
        finally:
            launcher.close()
            self.mirror.end()
        if self.stopping is not None:
            raise Stopped(self.stopping)
        return self._end()

    def _loop(self, launcher: Any, queue: deque[Trial], places: int, heard: Any) -> None:
        deadline: float | None = None
        while True:
            while len(self.running) < places and self._may_start():
                trial = self._next(queue)
                if trial is None:
                    break
                self._start(launcher, trial)
            self.said.progress(
                list(self.trials.values()), [self.trials[n] for n in sorted(self.running)], self._total()
            )
            if not self.running:
                return
            for number, ended in launcher.poll(0.2):
                self._ended(self.trials[number], ended)
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
                    self.said.say(f"stopping; {len(self.running)} trials write their checkpoints")
            if deadline is not None and time.monotonic() > deadline:
                return

    def _may_start(self) -> bool:
        late = self.options.timeout is not None and time.monotonic() - self.began > self.options.timeout
        return self.stopping is None and self.endings.full is None and not late

    # What there is to do

    def _total(self) -> int:
        if self.sampler == "grid":
            return len(self.space.cells())
        assert self.options.n_trials is not None
        return self.options.n_trials

    def _take_over(self, launcher: Any) -> None:
        """Of the trials in work in an earlier life: watch those that outlived it, and requeue those that died."""
        for trial in self.trials.values():
            if trial.status != ledger.RUNNING:
                continue
            if launcher.survives and trial.job:
                launcher.adopt(trial.number, trial.job)
                self.running[trial.number] = time.monotonic()
            else:
                end_survivor(ledger.last_beat(self.folder, trial))
                trial.status, trial.token = ledger.QUEUED, ""

    def _queue_cells(self) -> list[Trial]:
        """Queue a grid's cells that are new."""
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

    def _some_address(self) -> dict[str, Any] | None:
        """One that tells which metrics there will be; before the first draw that of the axes' first values."""
        address = next((trial.address for trial in self.trials.values() if trial.address), None)
        return address or self.composer.first_address()

    # One trial after the other

    def _next(self, queue: deque[Trial]) -> Trial | None:
        """The next trial to start; those that have a record by now are done without being started."""
        while queue:
            trial = queue.popleft()
            if not self.endings.done_elsewhere(trial):
                return trial
        while self.brain is not None and len(self.trials) < self._total():
            taken = {tuple(trial.cell) for trial in self.trials.values()}
            trial = self.brain.draw(self._free_number(), taken)
            if trial is None:
                self.said.say(f"every combination has been drawn: {len(self.trials)} trials, no more")
                self.options.n_trials = len(self.trials)
                return None
            self.trials[trial.number] = trial
            if self.store is not None:
                try:
                    trial.address = self.composer.address(trial.cell)
                except (ValueError, HydraException) as error:
                    self.endings.fail(trial, "bad config", one_line(error))
                    continue
            if not self.endings.done_elsewhere(trial):
                return trial
        return None

    def _start(self, launcher: Any, trial: Trial) -> None:
        trial.status, trial.token = ledger.RUNNING, os.urandom(8).hex()
        trial.attempts += 1
        trial.reason = trial.message = None
        trial.curve = []
        ledger.save(self.folder, trial)
        self.mirror.follow(trial)
        self.running[trial.number] = time.monotonic()
        where = trial.address or {}
        title = f"{where['title']}-s{where['seed']}" if "title" in where else trial.name
        overrides = self.composer.overrides(trial.cell, ledger.owner_value(self.folder, trial))
        trial.job = None
        trial.log = launcher.start(overrides, trial.number, title)
        if trial.log:
            ledger.save(self.folder, trial)

    def _note_jobs(self, launcher: Any) -> None:
        """Write down under which ids a cluster knows the trials: by these another life finds them again."""
        for number, job in launcher.jobs.items():
            trial = self.trials[number]
            if trial.job != job:
                trial.job = job
                ledger.save(self.folder, trial)

    def _ended(self, trial: Trial, ended: JobReturn) -> None:
        trial.seconds = round(time.monotonic() - self.running.pop(trial.number), 3)
        trial.ended = time.time()
        self.endings.end(trial, ended, stopping=self.stopping is not None)

    def _end_hung(self, launcher: Any) -> None:
        """End a trial whose phase has said nothing for longer than the phase is allowed to."""
        for number in list(self.running):
            trial = self.trials[number]
            told = ledger.last_beat(self.folder, trial)
            allowed = self.options.stall.get(told.get("phase", ""))
            if allowed is not None and time.time() - told["time"] > allowed and trial.reason != "hung":
                trial.reason = "hung"
                launcher.stop(number)

    # Trials that are not worth their end

    def _referee(self, address: dict[str, Any] | None, spec: dict[str, Any]) -> Referee | None:
        """The pruner; what was told of another metric, or at other steps, is forgotten.

        Raises:
            ValueError: for a pruner that does not exist, or that this sweep cannot have.
        """
        if self.options.pruner is None:
            return None
        made = referee(
            self.options.pruner,
            self.options.pruning,
            check_objectives(self.options.prune_by, "prune_by"),
            self.goals.objectives,
            self.store.curves(address) if self.store is not None and address is not None else None,
            self.folder.name,
        )
        if spec.get("watched") != made.watched:
            for trial in self.trials.values():
                trial.curve = []
        return made

    def _watch(self, launcher: Any) -> None:
        """Read the curves of the trials in work, and tell those to end that the pruner gives up."""
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

    def _end(self) -> int:
        """The last words; return how many trials failed."""
        if self.endings.full:
            raise OSError(self.endings.full)
        counts = Counter(trial.status for trial in self.trials.values())
        if self.left_alone:
            self.said.say(
                f"{len(self.running)} trials are with the cluster; python -m rna.sweep status {self.folder.name}"
            )
            return counts[ledger.FAILED]
        left = self._total() - counts[ledger.DONE] - counts[ledger.FAILED] - counts[ledger.PRUNED]
        pruned = f"{counts[ledger.PRUNED]} pruned, " if counts[ledger.PRUNED] else ""
        more = f", {left} left: the same command goes on" if left else ""
        self.said.say(f"{counts[ledger.DONE]} done, {pruned}{counts[ledger.FAILED]} failed{more}; {self.folder}")
        done = [trial for trial in self.trials.values() if trial.status == ledger.DONE]
        if self.options.finish:
            module, _, function = self.options.finish.rpartition(".")
            getattr(importlib.import_module(module), function)(self.folder)
        elif done and len(self.goals.objectives) == 1:
            ((metric, direction),) = self.goals.objectives.items()
            sign = -1 if direction == "maximize" else 1
            best = min(done, key=lambda trial: sign * (trial.values or [math.inf])[0])
            print(f"best: #{best.number} {best.name}: {metric}={(best.values or [math.nan])[0]:g}")
        return counts[ledger.FAILED]
