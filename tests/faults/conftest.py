"""One undisturbed sweep to compare with, a SLURM for the cells that need one, and the table at the end."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Row, World

TABLE = pytest.StashKey[list[Row]]()
SLURM = Path(__file__).parents[1] / "slurm"


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[Row]:
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The tensors of a sweep that nothing disturbed, by seed."""
    world = World(tmp_path_factory.mktemp("whole"), "basic")
    world.finish(1)
    return world.tensors()


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    root = os.environ | {"SLURM_TEST_ROOT": "/tmp/rna-test-slurm"}
    started = subprocess.run([SLURM / "start-slurm.sh"], env=root, capture_output=True, text=True, check=True)
    os.environ["SLURM_CONF"] = str(re.search(r"SLURM_CONF=(\S+)", started.stdout)[1])  # type: ignore[index]
    yield
    subprocess.run([SLURM / "stop-slurm.sh"], env=root, check=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[TABLE]
    if not rows:
        return
    terminalreporter.section("the promise, measured")
    terminalreporter.write_line("| fault | launcher | lost | computed twice | healthy ones failed | restarts |")
    terminalreporter.write_line("|---|---|---|---|---|---|")
    for row in rows:
        said = (row.fault, row.launcher, row.lost, row.twice, row.failed, row.restarts)
        terminalreporter.write_line(f"| {' | '.join(map(str, said))} |")
