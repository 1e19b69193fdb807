"""The study in a real PostgreSQL: the same trials as in a journal, whatever is killed, the database included."""

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest

from tests.conftest import CORES
from tests.launchers.running import STORE, noted, start, study, sweep, trials

pytestmark = pytest.mark.postgresql
GRID = ("+x=1,2,3,4,5,6,7,8", "+y=0,1,2")
THREE = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=3")
EIGHT = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=8")


@dataclass
class Server:
    """A PostgreSQL in a folder of its own, run by a user who is not root, as it insists on."""

    folder: Path
    programs: Path
    port: int

    def run(self, program: str, *arguments: str) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*user, str(self.programs / program), *arguments]
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=self.folder, timeout=60)

    def control(self, *arguments: str) -> None:
        self.run("pg_ctl", "-D", str(self.folder / "data"), "-w", *arguments)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -h 127.0.0.1"
        self.control("-l", str(self.folder / "server.log"), "-o", options, "start")

    @contextmanager
    def frozen(self) -> Generator[None]:
        """All of its processes stopped: the kernel accepts for it, and nobody answers."""
        own = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        backends = subprocess.run(["pgrep", "-P", str(own)], capture_output=True, text=True, check=False).stdout
        those = [own, *map(int, backends.split())]
        for process in those:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in those:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module", autouse=True)
def every_core() -> Iterator[None]:
    """Eight workers beside a server are no work for the one core of a test worker."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, mine)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg", reason="needs psycopg")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    programs = found[-1] if found else shutil.which("initdb")
    if programs is None:
        pytest.skip("no PostgreSQL here: apt-get install postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="rna-postgresql-", dir="/tmp"))  # pytest's own are closed to other users
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    made = Server(folder, Path(programs).parent, port)
    made.run("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "-N")
    made.start()
    yield made
    made.control("-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """A database for each test."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    server.run("createdb", "-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", name)
    return server.url(name)


def until(happens: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def recorded(folder: Path) -> Counter[str]:
    return Counter(words[1] for words in noted(folder) if words[0] == "recorded")


def attributes(url: str) -> list[dict[str, object]]:
    return [trial.user_attrs for trial in optuna.load_study(study_name="toy", storage=url).get_trials()]


@pytest.mark.parametrize(
    "options",
    [
        (*STORE, *GRID, "+fail=3", "hydra.sweeper.pause_after=null"),
        ("+x=interval(0,1)", "+y=0,1", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=24"),
    ],
    ids=["grid", "random"],
)
def test_eight_workers_leave_the_study_that_a_journal_holds(tmp_path: Path, url: str, options: tuple[str, ...]):
    here, there = tmp_path / "journal", tmp_path / "database"
    code = 1 if "+fail=3" in options else 0
    for folder, more in ((here, ()), (there, (f"hydra.sweeper.storage={url}",))):
        folder.mkdir()
        sweep(folder, *EIGHT, *options, "+sleep=0.5", *more, code=code)
    assert len({words[2] for words in noted(there) if words[0] == "begin"}) > 4  # the last may come when all is done
    assert study(there, url) == study(here)
    assert Counter(state for _, state, _, _ in study(there, url)) == (
        {"COMPLETE": 21, "FAIL": 3} if code else {"COMPLETE": 24}
    )
    assert not (there / "sweeps" / "toy" / "journal.log").exists()
    found = optuna.load_study(study_name="toy", storage=url)
    assert found.metric_names == ["loss" if code else "value"]


def test_a_killed_sweeper_goes_on_and_the_study_is_that_of_an_undisturbed_one(tmp_path: Path, url: str):
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    disturbed.mkdir()
    whole.mkdir()
    common = (*THREE, *STORE, *GRID, "+sleep=0.5")
    for done in (1, 12):
        running = start(disturbed, *common, f"hydra.sweeper.storage={url}")
        until(lambda done=done: recorded(disturbed).total() >= done)
        running.kill()
        running.wait()
    sweep(disturbed, *common, f"hydra.sweeper.storage={url}")
    sweep(whole, *common)
    assert study(disturbed, url) == study(whole)
    assert set(recorded(disturbed).values()) == {1}
    assert len(recorded(disturbed)) == 24


def test_two_sweepers_of_one_study_are_one_and_of_one_name_are_told_apart(tmp_path: Path, url: str):
    """The lock is the folder's; two teams with the same name on one database never touch each other's study."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    theirs.mkdir()
    common = (*THREE, *STORE, "+x=1,2,3,4", f"hydra.sweeper.storage={url}")
    first = start(mine, *common, "+sleep=8")
    until(lambda: noted(mine))
    held = sweep(mine, *common, "+sleep=8", code=2)
    assert re.fullmatch(
        rf"error: sweep toy: process {first.pid} on .* works on it already; nothing was started\n", held
    )
    other = sweep(theirs, *common, code=2)
    assert other == (
        f"error: hydra.sweeper.study_name=toy: the database has a study of this name, of {platform.node()}:"
        f"{mine}/sweeps/toy; nothing was started. Give another name\n"
    )
    assert noted(theirs) == []
    assert first.wait(60) == 0
    assert [state for _, state, _, _ in study(mine, url)] == ["COMPLETE"] * 4
    moved = tmp_path / "moved"
    mine.rename(moved)
    assert "4 of 4 trials are done already" in sweep(moved, *common, "+sleep=8")


def test_a_study_of_another_program_is_left_alone(tmp_path: Path, url: str):
    optuna.create_study(study_name="toy", storage=url).add_trial(optuna.trial.create_trial(value=1.0))
    printed = sweep(tmp_path, "+x=1,2", f"hydra.sweeper.storage={url}", code=2)
    assert "the database has a study of this name, of an unknown folder" in printed
    assert len(study(tmp_path, url)) == 1


@pytest.mark.parametrize(
    "back", [pytest.param(True, id="comes-back"), pytest.param(False, id="stays-away", marks=pytest.mark.faults)]
)
def test_a_database_that_goes_away_stops_no_sweep(tmp_path: Path, server: Server, url: str, back: bool):
    sleep = "+sleep=5" if back else "+sleep=0.3"  # it is asked again, after twenty seconds, well before the end
    common = (*THREE, *STORE, *GRID, sleep, f"hydra.sweeper.storage={url}")
    running = start(tmp_path, *common)
    until(lambda: recorded(tmp_path).total() >= 2)
    server.control("-m", "immediate", "stop")
    try:
        until(lambda: "does not answer" in (tmp_path / "printed.log").read_text())
        if back:
            server.start()
        assert running.wait(240) == 0
    finally:
        if not back:
            server.start()
    printed = (tmp_path / "printed.log").read_text()
    assert "Traceback" not in printed
    assert "Warning" not in printed
    assert "its database does not answer" in printed
    assert "24 done, 0 failed" in printed
    assert {trial.status for trial in trials(tmp_path)} == {"done"}
    if back:
        assert "its database answers again" in printed
    else:
        assert "the study there is behind, and the same command brings it up to date" in printed
        assert "24 of 24 trials are done already" in sweep(tmp_path, *common)
    assert [state for _, state, _, _ in study(tmp_path, url)] == ["COMPLETE"] * 24
    assert set(recorded(tmp_path).values()) == {1}


@pytest.mark.parametrize(
    "launcher", [pytest.param((), id="default"), pytest.param(THREE, id="gpu_pool", marks=pytest.mark.faults)]
)
def test_a_frozen_database_holds_up_no_trial_and_no_stop(
    tmp_path: Path, server: Server, url: str, launcher: tuple[str, ...]
):
    common = (*launcher, *STORE, "+x=1,2,3,4,5,6,7,8", "+sleep=1", f"hydra.sweeper.storage={url}")
    running = start(tmp_path, *common)
    until(lambda: recorded(tmp_path).total() >= 1)
    with server.frozen():
        before = recorded(tmp_path).total()
        until(lambda: recorded(tmp_path).total() >= min(before + 3, 6))
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 128 + signal.SIGINT
    printed = (tmp_path / "printed.log").read_text()
    assert "its database does not answer; the study there is behind" in printed
    assert "Traceback" not in printed
    sweep(tmp_path, *common)
    assert [state for _, state, _, _ in study(tmp_path, url)] == ["COMPLETE"] * 8
    assert set(recorded(tmp_path).values()) == {1}
    assert {trial.attempts for trial in trials(tmp_path)} == {1}


@pytest.mark.faults  # by hand, with the matrix
def test_a_study_catches_up_by_itself_when_its_frozen_database_wakes(tmp_path: Path, server: Server, url: str):
    common = (*THREE, *STORE, *GRID, "+sleep=3", f"hydra.sweeper.storage={url}")
    running = start(tmp_path, *common)
    until(lambda: recorded(tmp_path).total() >= 1)
    with server.frozen():
        until(lambda: "does not answer; the sweep goes on" in (tmp_path / "printed.log").read_text())
    assert running.wait(240) == 0
    printed = (tmp_path / "printed.log").read_text()
    assert printed.count("its database answers again") == 1
    assert "24 done, 0 failed" in printed
    assert [state for _, state, _, _ in study(tmp_path, url)] == ["COMPLETE"] * 24


@pytest.fixture
def deaf() -> Iterator[str]:
    """The URL of a server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"postgresql://postgres@127.0.0.1:{listening.getsockname()[1]}/postgres"


def test_a_database_that_never_answers_is_refused_before_the_start(tmp_path: Path, deaf: str):
    printed = sweep(tmp_path, "+x=1,2", f"hydra.sweeper.storage={deaf}", code=2)
    assert "cannot be reached" in printed
    assert "nothing was started" in printed
    assert noted(tmp_path) == []


def test_ctrl_c_is_heard_while_a_database_does_not_answer_before_the_start(tmp_path: Path, deaf: str):
    running = start(tmp_path, "+x=1,2", f"hydra.sweeper.storage='{deaf}?connect_timeout=600'")
    until(lambda: connected(deaf) or running.poll() is not None)
    running.send_signal(signal.SIGINT)
    assert running.wait(120) == 128 + signal.SIGINT
    printed = (tmp_path / "printed.log").read_text()
    assert printed == "stopped by SIGINT; the same command goes on where this one was\n"


def connected(url: str) -> bool:
    """Whether somebody waits at this port, by the kernel's word."""
    port = f":{int(url.rpartition(':')[2].partition('/')[0]):04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[2].endswith(port) and line.split()[3] == "01" for line in lines)


def test_what_cannot_be_reached_is_one_line_and_nothing_is_started(tmp_path: Path, server: Server):
    printed = sweep(tmp_path, "+x=1,2", f"hydra.sweeper.storage={server.url('no_such_database')}", code=2)
    assert re.fullmatch(
        rf"error: hydra.sweeper.storage=postgresql://postgres@127.0.0.1:{server.port}/no_such_database: cannot be "
        r'reached \(.*database "no_such_database" does not exist.*\); nothing was started\n',
        printed,
    )
    assert noted(tmp_path) == []
