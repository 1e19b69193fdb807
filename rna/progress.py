"""Work on several arms, side by side where they are small, and show how far each one is."""

import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from queue import Empty
from typing import Any

from rna import signals, trial
from rna.trial import Arm, Progress

Tell = Callable[[str, str, int, int], None]  # (label, phase, done, total)

_mail: Any = None  # a worker's end of the queue that progress travels on


def work_on(rows: list[Arm]) -> None:
    """Bring all arms' records into being, as many at a time as there are cores for.

    A trial that takes all cores or a GPU runs alone, in this process, so that arms share the loaded model.
    Every arm is tried, whatever becomes of the others.

    Raises:
        TrialFailed: the first failure, after all arms are through.
        Interrupted: at SIGTERM, when the arms in work have written their checkpoints.
    """
    threads = rows[0].settings.model.threads
    workers = min(len(rows), (os.cpu_count() or 1) // threads) if threads else 1
    with display() as tell:
        failures = _in_turn(rows, tell) if workers <= 1 else _side_by_side(rows, workers, tell)
    if failures:
        raise failures[0]


def _in_turn(rows: list[Arm], tell: Tell) -> list[trial.TrialFailed]:
    failures: list[trial.TrialFailed] = []
    for row in rows:
        try:
            trial.work(row, partial(tell, row.label))
        except trial.TrialFailed as failure:
            failures.append(failure)
        tell(row.label, "done", 1, 1)
    return failures


def _side_by_side(rows: list[Arm], workers: int, tell: Tell) -> list[trial.TrialFailed]:
    context = get_context("spawn")
    mail: Any = context.Queue()
    failures: list[trial.TrialFailed] = []
    stopped: BaseException | None = None
    # A signal is for the trials: they write checkpoints. At a stop no further one begins.
    with (
        signals.noted(*signals.WARNINGS, *signals.STOPS) as heard,
        ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(mail,)) as pool,
    ):
        running: dict[Future[None], Arm] = {pool.submit(_work, row): row for row in rows}
        while running:
            finished, _ = wait(running, timeout=0.1, return_when=FIRST_COMPLETED)
            _deliver(mail, tell)
            for number in heard.pending:
                for child in active_children():
                    if child.pid is not None:
                        os.kill(child.pid, number)
            try:
                heard.obey()
            except (signals.Interrupted, KeyboardInterrupt) as stop:
                stopped = stop
                for future in running:
                    future.cancel()
            for future in finished:
                row = running.pop(future)
                error = None if future.cancelled() else future.exception()
                if isinstance(error, trial.TrialFailed):
                    failures.append(error)
                elif isinstance(error, signals.Interrupted | KeyboardInterrupt):
                    stopped = stopped or error
                elif isinstance(error, BrokenProcessPool):
                    killed = f"{row.label}: its process was killed, most likely for want of memory"
                    failures.append(trial.TrialFailed(f"{killed}; give the same command again to go on"))
                elif error is not None:
                    raise error
                tell(row.label, "done", 1, 1)
    if stopped is not None:
        raise stopped
    return failures


def _begin(mail: Any) -> None:
    """A worker's start: where its news go, and that it must not outlive its parent."""
    global _mail
    _mail = mail
    parent = parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _work(row: Arm) -> None:
    post: Progress = lambda phase, done, total: _mail.put((row.label, phase, done, total))  # noqa: E731
    trial.work(row, post)


def _deliver(mail: Any, tell: Tell) -> None:
    try:
        while True:
            tell(*mail.get_nowait())
    except Empty:
        pass


@contextmanager
def display() -> Generator[Tell]:
    """Live bars on a terminal; in a log, a line when an arm's phase begins and at each quarter of it."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = ("{task.description:<10}", "{task.fields[phase]:<11}")
    bars = Progress(
        *(TextColumn(column) for column in columns),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
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

    def tell(label: str, phase: str, done: int, total: int) -> None:
        quarter = 4 * done // max(total, 1)
        if said.get(label) != (phase, quarter):
            said[label] = (phase, quarter)
            print(
                f"[{time.perf_counter() - started:5.1f} s] {label}: {phase} {done}/{total}", file=sys.stderr, flush=True
            )

    return tell
