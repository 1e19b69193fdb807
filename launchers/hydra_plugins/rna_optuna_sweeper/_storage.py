"""Where the Optuna study is kept: a journal, mended where it is torn, or a database."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage

ANSWER = 60.0  # seconds in which a database has to answer before anything is started
ALIVE = {  # of a connection to PostgreSQL; a host that swallows packets, or is gone, would else take minutes or hours
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",  # milliseconds
}


def answered(act: Callable[[], Any], stirs: Callable[[], Any] = lambda: None) -> Any:
    """What an act returns that waits for a database: done aside, so that a signal is heard meanwhile.

    Args:
        stirs: what changes as the act goes on.

    Raises:
        TimeoutError: if nothing stirs for `ANSWER` seconds.
    """
    ended: list[tuple[Any, BaseException | None]] = []

    def aside() -> None:
        try:
            ended.append((act(), None))
        except BaseException as error:  # whoever waits decides what it means
            ended.append((None, error))

    threading.Thread(target=aside, daemon=True).start()
    known, heard = stirs(), time.monotonic()
    while not ended:
        time.sleep(0.02)
        if stirs() != known:
            known, heard = stirs(), time.monotonic()
        if time.monotonic() - heard > ANSWER:
            raise TimeoutError
    value, error = ended[0]
    if error is not None:
        raise error
    return value


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
        options["connect_args"] = {key: parsed.query.get(key, usual) for key, usual in ALIVE.items()}
    try:
        return answered(lambda: optuna.storages.RDBStorage(url, engine_kwargs=options))
    except TimeoutError:
        raise ValueError(
            f"hydra.sweeper.storage={shown}: has not answered for {ANSWER:.0f} s; nothing was started"
        ) from None
    except ImportError as error:
        advice = "pip install 'rna-unlearning[postgresql]'" if postgresql else str(error)
        raise ValueError(
            f"hydra.sweeper.storage={shown}: its driver is not installed; nothing was started ({advice})"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"hydra.sweeper.storage={shown}: cannot be reached ({reason}); nothing was started") from None
