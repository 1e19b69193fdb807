"""How many cores this process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rna.settings import cores

COUNT = [sys.executable, "-c", "from rna.settings import cores; print(cores.available())"]


def counted(before: object = None) -> int:
    done = subprocess.run(COUNT, capture_output=True, text=True, check=True, preexec_fn=before)  # type: ignore[arg-type]
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux alone has it")
def test_a_process_that_may_use_one_core_counts_one():
    one = {min(os.sched_getaffinity(0))}
    assert counted(lambda: os.sched_setaffinity(0, one)) == 1
    if len(os.sched_getaffinity(0)) > 1:
        assert counted() >= 1


def test_a_quota_pays_for_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "OURS", tmp_path / "ours")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert cores.available() == 8
    (tmp_path / "ours").write_text("0::/user.slice/job.scope\n")
    job = tmp_path / "user.slice" / "job.scope"
    job.mkdir(parents=True)
    (job / "cpu.max").write_text("max 100000\n")
    assert cores.available() == 8
    (tmp_path / "user.slice" / "cpu.max").write_text("350000 100000\n")
    assert cores.available() == 3
    (job / "cpu.max").write_text("50000 100000\n")
    assert cores.available() == 1
    (tmp_path / "ours").write_text("4:memory:/else\n3:cpu,cpuacct:/docker/a\n")
    folder = tmp_path / "cpu" / "docker" / "a"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.available() == 8
    (folder / "cpu.cfs_quota_us").write_text("200000\n")
    assert cores.available() == 2


def test_a_real_quota_is_found():
    folder = Path("/sys/fs/cgroup/cpu/rna-test-cores")
    try:
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text("100000")
    except OSError:
        pytest.skip("making a control group (version 1) needs root, and the controller")
    try:
        assert counted(lambda: (folder / "cgroup.procs").write_text(str(os.getpid()))) == 1
    finally:
        folder.rmdir()
