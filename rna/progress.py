"""Work on several arms, side by side where they are small, and show how far each one is."""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

from rna import ends, printing, trial
from rna.settings import cores
from rna.store import results
from rna.sweep import Pool, WorkerDied, ledger
from rna.trial import Arm

Tell = Callable[[str, str, int, int], None]  # (label, phase, done, total)


def work_on(rows: list[Arm]) -> None:
    """Bring all arms' records into being, as many at a time as there are cores for.

    A trial that takes all cores or a GPU runs alone, in this process, so that arms share the loaded model.
    Every arm is tried, whatever becomes of the others.

    Raises:
        TrialFailed: the first failure, after all arms are through.
        Interrupted: at SIGTERM, when the arms in work have written their checkpoints.
    """
    threads = rows[0].settings.model.threads
    # A pool's worker can have no workers of its own, and a cluster's job has not all of the machine's cores.
    inside = multiprocessing.current_process().daemon or "SLURM_JOB_ID" in os.environ
    workers = min(len(rows), cores.available() // threads) if threads and not inside else 1
    with display() as tell:
        failures = _in_turn(rows, tell) if workers <= 1 else _side_by_side(rows, workers, tell)
    if failures:
        raise failures[0]


def listener() -> trial.Listener:
    """The sweep that this process works for, if it does: signs of life, a watched metric's course, and its veto."""
    return trial.Listener(ledger.beat, ledger.report, ledger.check_owner, ledger.sweep())


def _in_turn(rows: list[Arm], tell: Tell) -> list[ends.TrialFailed]:
    """One arm after the other; what another process computes now comes last.

    In a sweep the trial's own arm comes last of all, and an arm that another trial computes is left to that one: should
    it be killed, it is tried again, and as its own record is not there yet, all it was to compute is.
    """
    failures: list[ends.TrialFailed] = []
    swept = ledger.OWNER in os.environ
    waiting = deque(reversed(rows) if swept else rows)
    patient: list[Arm] = []
    while waiting or patient:
        row, wait = (waiting.popleft(), False) if waiting else (patient.pop(0), True)
        try:
            wait = wait or (swept and not waiting)
            trial.work(row, partial(tell, row.label), wait=wait, listener=listener())
        except results.InFlight:
            if not swept:
                patient.append(row)
            continue
        except ends.TrialFailed as failure:
            failures.append(failure)
        tell(row.label, "done", 1, 1)
    return failures


def _side_by_side(rows: list[Arm], workers: int, tell: Tell) -> list[ends.TrialFailed]:
    """Each arm in a worker. Signals go to the arms in work, which write checkpoints; at a stop no other begins.

    A second Ctrl-C ends them as they are.
    """
    failures: list[ends.TrialFailed] = []
    stop: ends.Interrupted | KeyboardInterrupt | None = None
    with ends.noted(*ends.WARNINGS, *ends.STOPS) as heard, Pool([{}] * workers) as pool:
        work = partial(trial.work, listener=listener())
        running = {pool.submit(work, row): row for row in rows}
        while running:
            for event in pool.events(0.1):
                label = running[event.ticket].label
                if event.news is not None:
                    tell(label, *event.news)
                    continue
                tell(label, "done", 1, 1)
                del running[event.ticket]
                if isinstance(event.error, ends.Interrupted | KeyboardInterrupt):
                    stop = stop or event.error
                elif isinstance(event.error, ends.TrialFailed):
                    failures.append(event.error)
                elif isinstance(event.error, WorkerDied):
                    if stop is None:
                        failures.append(
                            ends.TrialFailed(f"{label}: {event.error}; the same command goes on from there")
                        )
                elif event.error is not None:
                    raise event.error
            if stop is not None and signal.SIGINT in heard.pending:
                raise KeyboardInterrupt
            for number in heard.pending:
                pool.signal(number)
            try:
                heard.obey()
            except (ends.Interrupted, KeyboardInterrupt) as asked:
                stop = asked
                for ticket in pool.cancel_waiting():
                    del running[ticket]
    if stop is not None:
        raise stop
    return failures


@contextmanager
def display() -> Generator[Tell]:
    """Live bars on a terminal; in a log, a line when an arm's phase begins and at each quarter, with the time left."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = ("{task.description:<10}", "{task.fields[phase]:<11}")
    bars = Progress(
        *(TextColumn(column, markup=False) for column in columns),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left", markup=False),
        TimeRemainingColumn(),
        console=printing.console(stderr=True),
    )
    tasks: dict[str, Any] = {}

    def tell(label: str, phase: str, done: int, total: int) -> None:
        if label not in tasks:
            tasks[label] = bars.add_task(label, phase=phase)
        bars.update(tasks[label], phase=phase, completed=done, total=total)

    with bars:
        yield tell


def _lines() -> Tell:
    started = time.perf_counter()
    said: dict[str, tuple[str, int]] = {}
    began: dict[tuple[str, str], tuple[float, int]] = {}

    def tell(label: str, phase: str, done: int, total: int) -> None:
        now = time.perf_counter()
        since, first = began.setdefault((label, phase), (now, done))
        quarter = 4 * done // max(total, 1)
        if said.get(label) == (phase, quarter):
            return
        said[label] = (phase, quarter)
        left = f", about {(now - since) * (total - done) / (done - first):.0f} s left" if first < done < total else ""
        print(f"[{now - started:5.1f} s] {label}: {phase} {done}/{total}{left}", file=sys.stderr, flush=True)

    return tell
