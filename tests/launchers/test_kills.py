"""`kill -9` of sweeper, worker or both, at random moments: no trial lost, none computed again once recorded."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.launchers.running import STORE, noted, start, study, sweep, trials

POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=3", "hydra.sweeper.max_retries=99")
GRID = (f"+x={','.join(str(number / 8) for number in range(10))}", "+y=0,1,2,3", "+sleep=0.8")  # 40 trials
RANDOM = (
    "+x=interval(0,1)",
    "+y=interval(0,9)",
    "hydra.sweeper.sampler=random",
    "hydra.sweeper.n_trials=40",
    "+sleep=0.8",
)


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return [int(number) for number, words in lines if "spawn_main" in words]


def kill(running: subprocess.Popen[Any], what: str, draw: random.Random) -> None:
    workers = children(running.pid)
    if what in ("worker", "both") and workers:
        os.kill(draw.choice(workers), signal.SIGKILL)
    if what in ("sweeper", "both"):
        running.kill()
        running.wait()


def disturb(folder: Path, arguments: tuple[str, ...], kills: int, seed: int, longest: float = 4.0) -> int:
    """Kill at random moments, `longest` seconds apart at most, starting again after each end; return how many."""
    draw, done = random.Random(seed), 0
    before: dict[str, int] = {}
    running = start(folder, *POOL, *STORE, *arguments)
    while done < kills:
        time.sleep(draw.uniform(0.0, longest if done % 3 and len(before) < 40 else 0.9))
        if running.poll() is None:
            kill(running, ("sweeper", "worker", "both")[done % 3], draw)
            done += 1
        files = {str(file): file.stat().st_mtime_ns for file in (folder / "record").glob("*.json")}
        assert {name: files.get(name) for name in before} == before  # what was recorded stays as it was
        before = files
        if running.poll() is not None:
            running = start(folder, *POOL, *STORE, *arguments)
    running.wait(120)
    return done


def check(folder: Path, arguments: tuple[str, ...], count: int) -> None:
    sweep(folder, *POOL, *STORE, *arguments)
    seen = noted(folder)
    recorded = Counter(words[1] for words in seen if words[0] == "recorded")
    assert len(list((folder / "record").glob("*.json"))) == count
    assert set(recorded.values()) <= {1}
    finished: set[str] = set()
    for word, name, *_ in seen:
        assert word != "begin" or name not in finished, f"{name} was begun again after it was recorded"
        finished |= {name} if word == "recorded" else set()
    found = trials(folder)
    assert [trial.number for trial in found] == list(range(count))
    assert {trial.status for trial in found} == {"done"}


@pytest.mark.slow
def test_a_few_kills(tmp_path: Path):
    arguments = ("+x=1,2,3,4,5,6,7,8,9", "+sleep=0.6")
    disturb(tmp_path, arguments, 3, seed=0, longest=1.5)
    check(tmp_path, arguments, 9)
    assert [(state, params["x"]) for _, state, params, _ in study(tmp_path)] == [("COMPLETE", x) for x in range(1, 10)]


@pytest.mark.slow
def test_thirty_kills_of_a_grid_leave_the_study_of_an_undisturbed_one(tmp_path: Path):
    disturbed, whole = tmp_path / "disturbed", tmp_path / "whole"
    disturbed.mkdir()
    whole.mkdir()
    kills = disturb(disturbed, (*GRID, "+slower=1"), 30, seed=1)
    check(disturbed, (*GRID, "+slower=1"), 40)
    sweep(whole, *POOL, *STORE, *GRID)
    assert study(disturbed) == study(whole)
    assert kills >= 30


@pytest.mark.slow
def test_thirty_kills_of_a_random_search_lose_and_repeat_nothing(tmp_path: Path):
    kills = disturb(tmp_path, RANDOM, 30, seed=2)
    check(tmp_path, RANDOM, 40)
    assert len({str(params) for _, _, params, _ in study(tmp_path)}) == 40
    assert kills >= 30


@pytest.mark.slow
def test_a_paused_worker_that_outlives_its_sweeper_neither_blocks_nor_commits(tmp_path: Path):
    arguments = (*POOL, *STORE, "+x=1,2", "+sleep=1")
    running = start(tmp_path, *arguments)
    while len(noted(tmp_path)) < 2:
        time.sleep(0.05)
    paused = [int(words[2]) for words in noted(tmp_path)]
    for pid in paused:
        os.kill(pid, signal.SIGSTOP)
    running.kill()
    running.wait()
    sweep(tmp_path, *arguments)
    for pid in paused:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            continue
    time.sleep(1.5)
    assert Counter(words[1] for words in noted(tmp_path) if words[0] == "recorded") == {"x1": 1, "x2": 1}
