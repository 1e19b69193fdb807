"""{faults} × {launchers}: nothing lost, nothing computed twice, nobody healthy failed, the same tensors to the bit."""

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.world import Row, World
from tests.launchers import broken, running
from tests.launchers.test_postgresql import Server, server, url
from tests.launchers.test_stale import library, troubled

__all__ = ["library", "server", "url"]  # fixtures
pytestmark = pytest.mark.faults
POOL = ("hydra.launcher.processes=2",)
JOBS = (
    "hydra.launcher.submit_every=2",
    "hydra.launcher.ask_every=3",
    "hydra.launcher.time_min=20",
    "hydra.launcher.setup=['export PYTHONDONTWRITEBYTECODE=1']",
)
OPTIONS = {"basic": (), "gpu_pool": POOL, "slurm": JOBS}
EVERYWHERE = pytest.mark.parametrize("launcher", ["basic", "gpu_pool", "slurm"])


@pytest.fixture
def world(launcher: str, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    if launcher == "slurm":
        request.getfixturevalue("cluster")
    return World(tmp_path, launcher, OPTIONS[launcher])


def settle(world: World, fault: str, whole: dict[int, Path], table: list[Row], sick: frozenset[int] = frozenset()):
    row = world.row(fault, whole, sick)
    table.append(row)
    assert row.kept, f"{row}\n{world.printed}"


@EVERYWHERE
@pytest.mark.parametrize(("fault", "number"), [("Ctrl-C × 5", signal.SIGINT), ("sweeper killed × 5", signal.SIGKILL)])
def test_the_sweeper_ends_five_times(fault: str, number: int, world: World, whole: dict[int, Path], table: list[Row]):
    for _ in range(5):
        begun = world.begin()
        world.until_steps(8, begun)
        world.stop(begun, number)
    world.finish()
    settle(world, fault, whole, table)


@pytest.mark.parametrize("launcher", ["gpu_pool", "slurm"])
def test_a_worker_is_killed(world: World, whole: dict[int, Path], table: list[Row]):
    begun = world.begin()
    world.until_steps(2 * 8)
    world.kill_a_worker()
    assert world.ended(begun) == 0
    settle(world, "worker killed", whole, table)


@EVERYWHERE
def test_a_clock_is_an_hour_off(world: World, whole: dict[int, Path], table: list[Row]):
    world.more["FAULTS_CLOCK"] = "-3600"
    world.words += ("hydra.sweeper.stall.training=30", "hydra.sweeper.stall.evaluating=30")
    world.finish(1)
    settle(world, "clock an hour off", whole, table)


@pytest.mark.parametrize("launcher", ["basic", "gpu_pool"])
def test_the_disk_is_full_at_one_write_after_another(world: World, whole: dict[int, Path], table: list[Row]):
    """A file system that grows by a little at each start, so that it is full at another write each time."""
    size = 100
    mounted = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(world.output)]
    subprocess.run(mounted, check=True)
    try:
        while world.ended(world.begin()) != 0:
            assert size < 40_000, world.printed
            size = round(size * 1.5)
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(world.output)], check=True)
        settle(world, "disk full at one write after another", whole, table)
    finally:
        subprocess.run(["umount", "-l", str(world.output)], check=True)


@pytest.mark.parametrize("launcher", ["basic", "gpu_pool"])
def test_the_database_freezes(world: World, server: Server, url: str, whole: dict[int, Path], table: list[Row]):
    """Stopped in the midst, with all its backends: it accepts and does not answer."""
    pid = int((server.folder / "data" / "postmaster.pid").read_text().split()[0])
    listed = ["ps", "-o", "pid=", "--ppid", str(pid)]
    world.words += (f"hydra.sweeper.storage={url}",)
    begun = world.begin()
    world.until_steps(8)
    found = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()
    frozen = [pid, *(int(word) for word in found)]
    try:
        for process in frozen:
            os.kill(process, signal.SIGSTOP)
        world.until_steps(8)  # the trials go on beside it
        world.stop(begun, signal.SIGINT)
    finally:
        for process in frozen:
            os.kill(process, signal.SIGCONT)
    world.finish()
    settle(world, "frozen database, Ctrl-C", whole, table)


@pytest.mark.parametrize("launcher", ["gpu_pool"])
def test_the_device_of_one_place_of_four_fails(world: World, whole: dict[int, Path], table: list[Row]):
    """Torch's own error in each backward pass there."""
    world.words = ("model.device=cpu",)
    path = broken.on_path(world.folder / "site", "rna.trial", broken.BACKWARD)
    world.more |= {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "PYTHONPATH": path, "BROKEN_GPUS": "2"}
    world.finish(1)
    settle(world, "device error on 1 of 4 places", whole, table)


@EVERYWHERE
def test_handles_are_stale(world: World, library: str, whole: dict[int, Path], table: list[Row]):
    """ESTALE from beneath Python, at the first open, fsync, rename and link of each file."""
    world.more |= {
        name: value
        for name, value in troubled(library, world.output).items()
        if name == "LD_PRELOAD" or name.startswith("STALE_")
    }
    world.finish(1)
    settle(world, "ESTALE at each file", whole, table)


@pytest.mark.parametrize("launcher", ["basic", "gpu_pool", "slurm"])
def test_a_result_is_none(launcher: str, tmp_path: Path, request: pytest.FixtureRequest, table: list[Row]):
    """The toy app, as `rna.run` gives none; one of four trials is sick, the others are not."""
    if launcher == "slurm":
        request.getfixturevalue("cluster")
    logs = (f"hydra.sweep.dir={tmp_path}/logs",)
    running.sweep(tmp_path, f"hydra/launcher={launcher}", *OPTIONS[launcher], *logs, "+x=0,1,2,3", "+none=2", code=1)
    found = {trial.cell[0]: trial.status for trial in running.trials(tmp_path)}
    healthy = {cell: status for cell, status in found.items() if cell != "+x=2"}
    assert found["+x=2"] == "failed"
    begun = Counter(words[1] for words in running.noted(tmp_path) if words[0] == "begin")
    lost, failed = (sum(status == bad for status in healthy.values()) for bad in ("queued", "failed"))
    table.append(Row("None result", launcher, lost, sum(n > 1 for n in begun.values()), failed, 0, same=True))
    assert table[-1].kept


@pytest.fixture
def busy_sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The real one behind a script that speaks twice as a busy controller does."""
    script = tmp_path / "bin" / "sbatch"
    script.parent.mkdir()
    script.write_text(
        f"""#!/bin/bash
echo . >>{tmp_path}/asked
if [ $(wc -l <{tmp_path}/asked) -le 2 ]; then
    echo "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation" >&2; exit 1
fi
PATH=${{PATH#*:}} exec sbatch "$@"
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return


@pytest.mark.parametrize("launcher", ["slurm"])
@pytest.mark.usefixtures("busy_sbatch")
def test_sbatch_fails_twice(world: World, whole: dict[int, Path], table: list[Row]):
    world.finish(1)
    settle(world, "sbatch fails twice", whole, table)


@pytest.mark.parametrize("launcher", ["slurm"])
def test_a_trial_needs_five_times_its_time_limit(world: World, whole: dict[int, Path], table: list[Row]):
    """Warned fifty seconds after its start, of which loading may take half; a minute is SLURM's shortest limit."""
    world.words += ("hydra.launcher.time_min=1", "hydra.launcher.warn_s=10")
    world.more["FAULTS_SLOW"] = "6"
    world.finish(1)
    settle(world, "time limit × 5", whole, table)


@pytest.mark.parametrize("launcher", ["slurm"])
def test_trials_are_preempted(world: World, whole: dict[int, Path], table: list[Row]):
    begun = world.begin()
    world.until_steps(8)
    cpus = subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True, check=True).stdout.split()[0]
    subprocess.run(["srun", "-p", "urgent", "-c", cpus, "true"], check=True, timeout=120, capture_output=True)
    assert world.ended(begun) == 0
    settle(world, "preemption", whole, table)
