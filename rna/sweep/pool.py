"""Warm worker processes: each does one job after another, tells its news, and never outlives its parent."""

import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

from rna import printing

Job = Callable[..., Any]  # called with its arguments and then with a function that takes its news
SPAWN = get_context("spawn")  # a forked process would inherit threads of torch that are not there


class WorkerDied(RuntimeError):
    """A worker's process ended in the middle of a job, most often killed for want of memory."""

    def __init__(self, exitcode: int | None) -> None:
        super().__init__(exitcode)
        self.exitcode = exitcode

    def __str__(self) -> str:
        if self.exitcode is not None and self.exitcode < 0:
            return f"its process was killed by signal {-self.exitcode}, most likely for want of memory"
        return f"its process ended with exit code {self.exitcode}"


@dataclass
class Event:
    """What a job had to say: `news`, or its end with `value` or `error`, and the number of the place it is at."""

    ticket: int
    news: tuple[Any, ...] | None = None
    value: Any = None
    error: BaseException | None = None
    place: int = -1

    @property
    def done(self) -> bool:
        return self.news is None


@dataclass
class _Worker:
    process: Any
    connection: Connection
    place: int
    ticket: int | None = None


class Pool:
    """At most one process for each of `places`, started when there is a job for it, kept while jobs succeed.

    Args:
        places: the environment variables of each worker, set before anything is imported there.
    """

    def __init__(self, places: Sequence[Mapping[str, str]]) -> None:
        self.places = [dict(place) for place in places]
        self.closed: set[int] = set()  # places that are given no more jobs, by number
        self.barred: dict[int, set[int]] = {}  # by ticket, places it is given to only where no other is open
        self.waiting: deque[tuple[int, Job, tuple[Any, ...]]] = deque()
        self.workers: list[_Worker] = []
        self.tickets = 0

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, job: Job, *arguments: Any, barred: set[int] | None = None) -> int:
        """Queue a job, and give the ticket its events will carry. Both must be importable by a fresh process.

        Args:
            barred: places, by number, that get it only if no other is open.
        """
        self.tickets += 1
        if barred:
            self.barred[self.tickets] = barred
        self.waiting.append((self.tickets, job, arguments))
        self._hand_out()
        return self.tickets

    def cancel_waiting(self) -> list[int]:
        """Forget the jobs that no worker has begun, and say which."""
        tickets = [ticket for ticket, _, _ in self.waiting]
        self.waiting.clear()
        self.barred.clear()
        return tickets

    @property
    def busy(self) -> list[int]:
        """The tickets of jobs in work."""
        return [worker.ticket for worker in self.workers if worker.ticket is not None]

    def signal(self, number: int) -> None:
        """Send a signal to every worker that has a job."""
        for worker in self.workers:
            if worker.ticket is not None and worker.process.is_alive():
                os.kill(worker.process.pid, number)

    def kill(self, ticket: int) -> None:
        """End the process that has this job, even one that is stopped; its event will say that it died."""
        for worker in self.workers:
            if worker.ticket == ticket:
                worker.process.kill()

    def events(self, timeout: float | None = None) -> list[Event]:
        """What has happened, waiting up to `timeout` seconds for something to happen.

        Workers that are free by it get their next job at the next call: what has happened may close their place.
        """
        self._hand_out()
        found: list[Event] = []
        ready = wait([worker.connection for worker in self.workers], timeout)
        for worker in [worker for worker in self.workers if worker.connection in ready]:
            found += self._read(worker)
        return found

    def close(self) -> None:
        """Let idle workers end, and end the others."""
        for worker in self.workers:
            worker.connection.close()
            if worker.ticket is not None:
                worker.process.kill()
        for worker in self.workers:
            worker.process.join(10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self.workers.clear()

    def _read(self, worker: _Worker) -> list[Event]:
        found: list[Event] = []
        try:
            while worker.connection.poll():
                event: Event = worker.connection.recv()
                event.place = worker.place
                found.append(event)
                if event.done:
                    worker.ticket = None
                    if event.error is not None:
                        self._retire(worker)
                        break
        except (EOFError, OSError):
            ticket = worker.ticket
            self._retire(worker)
            if ticket is not None:
                found.append(Event(ticket, error=WorkerDied(worker.process.exitcode), place=worker.place))
        return found

    def _retire(self, worker: _Worker) -> None:
        """After a failure the place gets a fresh process: who knows what the failure left behind."""
        worker.connection.close()
        worker.process.join()
        self.workers.remove(worker)

    def _hand_out(self) -> None:
        """Give what waits, in its order, to idle workers and free places that may have it."""
        for one in list(self.waiting):
            at_work = sum(worker.ticket is not None and worker.place not in self.closed for worker in self.workers)
            if at_work >= len(self.places) - len(self.closed):
                return
            while (worker := self._worker_for(one[0])) is not None:
                try:
                    worker.connection.send(one)
                except OSError:  # died while idle
                    self._retire(worker)
                    continue
                worker.ticket = one[0]
                self.waiting.remove(one)
                self.barred.pop(one[0], None)
                break

    def _worker_for(self, ticket: int) -> _Worker | None:
        """An idle worker at a place that may have this job, or a new one at a free place; None if there is none."""
        open_ = [place for place in range(len(self.places)) if place not in self.closed]
        barred = self.barred.get(ticket, set())
        allowed = [place for place in open_ if place not in barred] or open_
        taken = {worker.place for worker in self.workers}
        idle = next((one for one in self.workers if one.ticket is None and one.place in allowed), None)
        free = next((place for place in allowed if place not in taken), None)
        return idle if idle is not None or free is None else self._start(free)

    def _start(self, place: int, *, again: bool = True) -> _Worker:
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=_serve, args=(theirs, self.places[place]), daemon=True)
        try:
            process.start()
        except BrokenPipeError:  # killed before it had read what it is to do
            if not again:
                raise
            return self._start(place, again=False)
        theirs.close()
        worker = _Worker(process, ours, place)
        self.workers.append(worker)
        return worker


def _serve(connection: Connection, environment: dict[str, str]) -> None:
    """A worker's life: jobs until the parent hangs up, or one fails."""
    printing.prepare()
    os.environ.update(environment)
    threading.Thread(target=_follow_parent, daemon=True).start()
    try:
        while True:
            ticket, job, arguments = connection.recv()
            lock = threading.Lock()

            def tell(*news: Any, ticket: int = ticket, lock: threading.Lock = lock) -> None:
                with lock:
                    connection.send(Event(ticket, news=news))

            try:
                done = Event(ticket, value=job(*arguments, tell))
            except BaseException as error:  # the parent decides what it means, an interrupt too
                _send_failure(connection, ticket, error)
                return
            connection.send(done)
    except (EOFError, OSError, KeyboardInterrupt):  # the parent has hung up, or is being stopped with us
        return


def _send_failure(connection: Connection, ticket: int, error: BaseException) -> None:
    import pickle

    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error with a constructor of its own kind
        error = RuntimeError("".join(traceback.format_exception(error)))
    connection.send(Event(ticket, error=error))


def _follow_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
