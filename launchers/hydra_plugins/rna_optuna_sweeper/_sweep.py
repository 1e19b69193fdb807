"""One run of the sweeper: plan it, write the plan down, bring it to its end, and say what came of it."""

import importlib
import math
import time
from collections import deque
from pathlib import Path
from typing import Any

import optuna

from rna import ends
from rna.sweep import ledger
from rna.sweep.race import race_path

from ._ahead import Ahead, write_down
from ._asked import Asked
from ._endings import Endings
from ._following import Follower, follower
from ._loop import Loop
from ._one_by_one import OneByOne
from ._outcomes import Stopped
from ._plan import Plan, plan
from ._said import Said
from ._sampling import brain
from ._spec import write_spec
from ._work import Work
from .space import Space


def run_sweep(plugin: Any, space: Space, sampler: str, folder: Path) -> int:
    """Bring the study that a folder holds to its end; return how many trials failed.

    Raises:
        ValueError: for a user's mistake; nothing was started.
        OSError: if the disk is full.
        Stopped: after a signal.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    timeout: float | None = plugin.options.timeout
    late = math.inf if timeout is None else time.monotonic() + timeout
    said = Said(folder)
    planned = plan(plugin, space, sampler, folder, said)
    _write_down(planned)
    study = follower(planned.storage, folder, space, planned.goals.objectives, planned.todo.recorded)
    loop = _loop(planned, study, said, late)
    if done := planned.todo.counts[ledger.DONE]:
        said.say(f"{done} of {planned.todo.total} trials are done already")
    patient = False
    try:
        with ends.noted(*ends.STOPS, *ends.WARNINGS, heeds=True) as heard:
            loop.run(heard)
        loop.ahead.save()
        patient = loop.stopping is None
    finally:
        planned.launcher.close()
        study.end(patient=patient)
    if loop.stopping is not None:
        raise Stopped(loop.stopping)
    return _last_words(planned, loop)


def _write_down(planned: Plan) -> None:
    """Bring the sweep's folder up to date: it is the truth, which the study is then compared with."""
    options, folder = planned.options, planned.folder
    given: list[str] = list(planned.composer.config.hydra.overrides.hydra)
    spec = {
        "space": planned.space.described(),
        "fixed": list(planned.space.fixed),
        "grids": len(planned.space.grids),
        "options": [word for word in given if not word.startswith("hydra.mode=")],
        "sampler": planned.sampler,
        "seed": options.seed,
        "n_trials": planned.todo.total,
        "objectives": planned.goals.objectives,
        "constraints": [str(item) for item in planned.goals.constraints],
        "watched": planned.referee.watched if planned.referee else None,
        "fingerprint": planned.composer.fingerprint,
        "store": options.store,
    }
    if planned.racing is None:
        race_path(folder).unlink(missing_ok=True)
    if not planned.begun:  # the name is this sweep's from here on
        write_spec(folder, **spec)
    write_down(folder, planned.todo.recorded, planned.before, grid=planned.sampler == "grid")
    write_spec(folder, **spec)  # last: what was read by the old one has been written by now
    ledger.clear_beats(folder, [one.trial for one in planned.adopted])


def _loop(planned: Plan, study: Follower, said: Said, late: float) -> Loop:
    """The parts of the sweep, each told of the trials that are over."""
    options, folder, launcher = planned.options, planned.folder, planned.launcher
    todo, referee = planned.todo, planned.referee
    directions = list(planned.goals.objectives.values())
    drawing = None
    if planned.sampler != "grid":
        drawing = brain(planned.sampler, options.seed, planned.space, directions, todo.ordered)
    if referee is not None:
        for trial in todo.ordered:
            if trial.over:
                referee.learn(trial)
    todo.line_up()
    endings = Endings(
        folder=folder,
        records=planned.records,
        mirror=study,
        brain=drawing,
        referee=referee,
        said=said,
        max_retries=options.max_retries,
        pause_after=options.pause_after,
        racing=planned.racing,
        queue=todo.queue,
        counts=todo.counts,
    )
    work = Work(
        launcher=launcher,
        folder=folder,
        composer=planned.composer,
        mirror=study,
        referee=referee,
        stall=options.stall,
        said=said,
        adopted=planned.adopted,
    )
    waiting = deque(todo.queue if planned.composer.store is not None else ())
    ahead = Ahead(folder=folder, composer=planned.composer, endings=endings, waiting=waiting)
    asked = Asked(launcher, folder, todo, work, endings, said)
    if isinstance(launcher, OneByOne):

        def meanwhile() -> None:
            asked.look()
            work.prune()
            said.progress(todo.counts, work.trials, todo.total)

        launcher.meanwhile = meanwhile
    return Loop(
        launcher=launcher,
        n_jobs=options.n_jobs,
        late=late,
        todo=todo,
        brain=drawing,
        ahead=ahead,
        work=work,
        endings=endings,
        racing=planned.racing,
        asked=asked,
        said=said,
    )


def _last_words(planned: Plan, loop: Loop) -> int:
    """Say what came of the sweep; return how many trials failed.

    Raises:
        OSError: if the disk is full.
    """
    folder, todo, objectives = planned.folder, planned.todo, planned.goals.objectives
    if loop.endings.full:
        raise OSError(loop.endings.full)
    counts = todo.counts
    cancelled = sum(trial.cancelled for trial in todo.trials.values())
    failed = counts[ledger.FAILED] - cancelled
    if loop.left_alone:
        there = len(loop.work.running)
        loop.said.say(f"{there} trials are with the cluster; python -m rna.sweep status {folder.name}")
        return failed
    left = todo.total - counts[ledger.DONE] - counts[ledger.FAILED] - counts[ledger.PRUNED]
    pruned = f"{counts[ledger.PRUNED]} pruned, " if counts[ledger.PRUNED] else ""
    pruned += f"{cancelled} cancelled, " if cancelled else ""
    more = f", {left} left: the same command goes on" if left else ""
    loop.said.say(f"{counts[ledger.DONE]} done, {pruned}{failed} failed{more}; {folder}")
    if planned.racing is not None:
        loop.said.say(planned.racing.last_words())
    done = [trial for trial in todo.trials.values() if trial.status == ledger.DONE]
    if planned.options.finish:
        module, _, function = planned.options.finish.rpartition(".")
        getattr(importlib.import_module(module), function)(folder)
    elif done and len(objectives) == 1:
        ((metric, direction),) = objectives.items()
        sign = -1 if direction == "maximize" else 1
        best = min(done, key=lambda trial: sign * (trial.values or [math.inf])[0])
        print(f"best: #{best.number} {best.name}: {metric}={(best.values or [math.nan])[0]:g}")
    return failed
