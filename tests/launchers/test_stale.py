"""A file system in passing trouble: real error numbers from beneath Python, by a library that is preloaded."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rna import ends
from rna.store import results
from rna.sweep import ledger
from rna.sweep.ledger import Trial
from tests.launchers.running import environment

OURS = "/results/:/trials/:/beats/:/locks/:sweep.json:/lock"  # and not Optuna's journal, Hydra's files or the caches


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler, and Linux")
    made = tmp_path_factory.mktemp("stale") / "stale.so"
    source = Path(__file__).with_name("stale.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"], check=True)
    return str(made)


def troubled(library: str, folder: Path, number: int = errno.ESTALE, count: int = 1) -> dict[str, str]:
    said = {"STALE_PATH": str(folder), "STALE_PARTS": OURS, "STALE_COUNT": str(count), "STALE_ERRNO": str(number)}
    return environment(LD_PRELOAD=library, STALE_LOG=f"{folder}.log", **said)


FILES = """
import sys
from pathlib import Path
from rna import ends
from rna.store import results
from rna.sweep import ledger

ends.PAUSES = (0.01,) * len(ends.PAUSES)
folder = Path(sys.argv[1])
ledger.save(folder, ledger.Trial(3, ["x=1"]))
assert [trial.number for trial in ledger.trials(folder)] == [3]
results.write(str(folder), "KEY", {"a": 1})
assert results.read(str(folder), "KEY") == {"a": 1}
with results.single_flight(str(folder), "KEY"), ledger.held(folder):
    pass
try:
    results.write(str(folder), "KEY", {"a": 2})
except FileExistsError:
    print("well")
"""


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT])
def test_the_ledger_and_the_records_wait_for_a_file_system_that_comes_back(tmp_path: Path, library: str, number: int):
    folder = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", FILES, str(folder)],
        env=troubled(library, folder, number),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr
    kinds = Counter(line.split()[0] for line in Path(f"{folder}.log").read_text().splitlines())
    assert min(kinds[kind] for kind in ("open", "rename", "link", "fsync")) > 0, kinds


def test_other_errors_are_told_at_once_and_a_dead_file_system_after_a_while(monkeypatch: pytest.MonkeyPatch):
    waited: list[float] = []
    monkeypatch.setattr(ends.time, "sleep", waited.append)

    def fails(number: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(PermissionError):
        ends.patient(fails)(errno.EACCES)
    assert waited == []
    with pytest.raises(OSError, match="Stale file handle") as told:
        ends.patient(fails)(errno.ESTALE)
    assert waited == list(ends.PAUSES)
    assert 25 < sum(waited) < 40
    assert ends.file_system_failed(told.value)
    assert not ends.file_system_failed(OSError(errno.ENOSPC, "No space left on device"))
    assert ends.file_system_failed(RuntimeError("cannot be read: Stale file handle (os error 116)"))


def test_a_link_that_the_server_made_before_its_answer_was_lost_is_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own, calls = os.link, []

    def lost(source: Path, target: Path) -> None:
        own(source, target)
        calls.append(target)
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(os, "link", lambda *words: (own if calls else lost)(*words))
    results.write(str(tmp_path), "KEY", {"a": 1})
    assert results.read(str(tmp_path), "KEY") == {"a": 1}
    assert len(calls) == 1


def sweep(folder: Path, variables: dict[str, str]) -> tuple[list[Trial], dict[str, str], str]:
    words = ("-m", "seed=0,1", "noise.nu=0.01", "baseline=skip", "model.retrained=null", "wandb=disabled")
    words = (*words, "train.steps=4", "train.checkpoint_every=2", "eval.limit=4", "hydra.sweeper.study_name=s")
    words = (*words, "hydra/launcher=gpu_pool", "hydra.launcher.processes=1", "hydra.launcher.gpus=0")
    command = [sys.executable, "-m", "rna.run", *words, f"output_dir={folder}"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr + done.stdout
    files = folder.glob("trials/*/unlearned.safetensors")
    tensors = {file.parent.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return ledger.trials(folder / "sweeps" / "s"), tensors, done.stderr


@pytest.mark.faults
def test_a_sweep_on_stale_handles_loses_no_attempt_and_trains_the_same_bits(tmp_path: Path, library: str):
    found, tensors, _ = sweep(tmp_path / "disturbed", troubled(library, tmp_path / "disturbed"))
    assert [(trial.status, trial.attempts) for trial in found] == [("done", 1)] * 2
    log = (tmp_path / "disturbed.log").read_text()
    for file in ("/results/", "checkpoint.pt", "unlearned", "sweeps/s/trials/0.json", "/beats/", "/locks/"):
        assert file in log, log
    _, undisturbed, _ = sweep(tmp_path / "whole", environment())
    assert len(tensors) == 2
    assert tensors == undisturbed
