"""What a user asks of a sweep at work, cancel, pause, resume, logs; and looks that disturb nobody."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rna.sweep import asked, commands, ledger, logs, status
from rna.sweep.ledger import Trial
from tests.launchers.running import environment
from tests.sweep.test_sweep import called, made

ONE = ("baseline=skip", "model.retrained=null", "wandb=disabled", "train_only=true", "train.checkpoint_every=null")
Begun = Callable[..., subprocess.Popen[bytes]]
POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=1")


@pytest.fixture
def begun(tmp_path: Path) -> Iterator[Begun]:
    """Starts a sweep `s` as a user does; none outlives its test."""
    command = [sys.executable, "-m", "rna.run", "-m", f"output_dir={tmp_path}", "hydra.sweeper.study_name=s", *ONE]
    there: list[subprocess.Popen[bytes]] = []

    def begin(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "printed.log").open("a") as stream:
            options: dict[str, Any] = {"env": environment(), "stdout": stream, "stderr": stream}
            there.append(subprocess.Popen([*command, "noise.nu=0.01", *words], **options))
        return there[-1]

    yield begin
    for one in there:
        one.kill()
        one.wait()


def until(happens: Callable[[], object], folder: Path, seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, (folder / "printed.log").read_text()
        time.sleep(0.1)


def standing(folder: Path) -> list[str]:
    """Each trial in a word: its phase where it runs, else its status."""
    sweep = folder / "sweeps" / "s"
    found = ledger.trials(sweep)
    return [one.reason if one.cancelled else ledger.last_beat(sweep, one).get("phase") or one.status for one in found]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), POOL])
def test_cancel_a_trial_then_the_sweep_whose_pause_outlives_it(launcher: tuple[str, ...], begun: Begun, tmp_path: Path):
    long = ("seed=0,1,2", "train.steps=5000", *launcher)
    sweep = begun(*long)
    until(lambda: standing(tmp_path)[:1] == ["training"], tmp_path)
    assert called(tmp_path, "cancel", "s", "0", "2").startswith("#0, #2 cancelled; python -m rna.sweep retry")
    until(lambda: standing(tmp_path) == ["cancelled", "training", "cancelled"], tmp_path)
    assert "s: starts nothing more, what is in work goes on" in called(tmp_path, "pause", "s")
    assert "is paused already" in called(tmp_path, "pause", "s", code=2)
    assert "the sweeper has ended; give the sweep's command to go on" in called(tmp_path, "cancel", "s")
    assert sweep.wait(300) == 128 + signal.SIGINT, (tmp_path / "printed.log").read_text()
    trials = ledger.trials(tmp_path / "sweeps" / "s")
    assert [(one.status, one.attempts) for one in trials][1] == ("queued", 0)
    assert len(list(tmp_path.glob("trials/*/checkpoint.pt"))) >= 1
    assert not list(tmp_path.glob("results/*.json"))

    again = begun(*long)  # it is paused still, and waits
    until(lambda: "paused: 0 trials in work" in (tmp_path / "printed.log").read_text(), tmp_path)
    assert standing(tmp_path) == ["cancelled", "queued", "cancelled"]
    found = json.loads(called(tmp_path, "--json"))["sweeps"][0]
    assert (found["name"], found["sweeper"], found["paused"], found["cancelled"]) == ("s", True, True, 2)
    assert called(tmp_path, "resume", "s") == "s: goes on\n"
    until(lambda: standing(tmp_path) == ["cancelled", "training", "cancelled"], tmp_path)
    again.send_signal(signal.SIGINT)
    assert again.wait(300) == 128 + signal.SIGINT
    assert "no trial failed" in called(tmp_path, "retry", "s")
    assert called(tmp_path, "retry", "s", "2").startswith("1 trials queued again")
    assert ledger.trials(tmp_path / "sweeps" / "s")[2].status == ledger.QUEUED


@pytest.mark.slow
def test_a_pause_lets_what_is_in_work_end_and_frees_its_workers_and_logs_follow_it(begun: Begun, tmp_path: Path):
    sweep = begun("seed=0,1", "train.steps=40", *POOL)
    folder = tmp_path / "sweeps" / "s"
    until(lambda: standing(tmp_path)[:1] in (["training"], ["loading"]), tmp_path)
    asked.pause(folder)
    followed = "".join(logs.follow(folder, 0))
    assert followed == (folder / "logs" / "0" / "trial.log").read_text()
    assert "training 40/40" in followed
    assert called(tmp_path, "logs", "s", "0") == followed
    until(lambda: standing(tmp_path) == ["done", "queued"], tmp_path)
    listed = ["pgrep", "-P", str(sweep.pid), "-f", "spawn_main"]
    until(lambda: not subprocess.run(listed, capture_output=True, check=False).stdout, tmp_path)
    assert sweep.poll() is None
    asked.resume(folder)
    assert sweep.wait(300) == 0, (tmp_path / "printed.log").read_text()
    assert standing(tmp_path) == ["done", "done"]


def test_what_cannot_be_asked_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = made(tmp_path)

    def called(output_dir: Path, *words: str, code: int = 0) -> str:
        try:
            commands.main(["--output-dir", str(output_dir), *words])
            ended = 0
        except SystemExit as stop:
            ended = stop.code
        printed = capsys.readouterr()
        assert ended == code, printed.err
        return printed.out + printed.err

    assert "99: is no trial's number; allowed: 13" in called(tmp_path, "cancel", "grid", "99", code=2)
    assert "3: is done already; allowed: 13" in called(tmp_path, "cancel", "grid", "3", code=2)
    assert "no sweeper is at work and no trial is with a cluster" in called(tmp_path, "cancel", "grid", code=2)
    assert "grid: is not paused" in called(tmp_path, "resume", "grid", code=2)
    assert "99: is no trial's number in grid; allowed: 0 to 13" in called(tmp_path, "logs", "grid", "99", code=2)
    assert "its log is not there (logs/12/trial.log)" in called(tmp_path, "logs", "grid", "12", code=2)
    assert "has no log of its own" in called(tmp_path, "logs", "grid", "3", code=2)
    assert "allowed without --json" in called(tmp_path, "logs", "grid", "3", "-f", "--json", code=2)
    assert called(tmp_path, "cancel", "grid", "13").startswith("#13 cancelled")  # nobody has it: the ledger is enough
    assert ledger.trials(folder)[13].cancelled
    assert "grid: 12/15 done, 1 cancelled, 1 failed, 0 running, 1 queued" in called(tmp_path, "status", "grid")
    assert "grid: 12/15 done, 0 running, 1 failed, 1 cancelled; 20" in called(tmp_path)
    assert called(tmp_path / "elsewhere").startswith("no sweep in ")


def test_a_trial_that_is_cancelled_ends_at_its_next_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trial = Trial(0, ["seed=0"], status=ledger.RUNNING, token="t")
    ledger.save(tmp_path, trial)
    monkeypatch.setenv(ledger.OWNER, ledger.owner_value(tmp_path, trial))
    ledger.beat("training", 0, 2)
    trial.cancel()
    ledger.save(tmp_path, trial)
    with pytest.raises(ledger.Cancelled, match="trial 0: cancelled by a user"):
        ledger.beat("evaluating", 0, 2)


def test_a_log_is_followed_across_its_characters_until_nobody_works(tmp_path: Path):
    log = tmp_path / "logs" / "0" / "trial.log"
    log.parent.mkdir(parents=True)
    whole = "ν = 0.01 µ\n".encode()
    log.write_bytes(whole[:1])
    trial = Trial(0, [], status=ledger.RUNNING, token="t", log=str(log), job="7")
    ledger.save(tmp_path, trial)
    pieces = logs.follow(tmp_path, 0)

    def go_on() -> None:
        time.sleep(0.3)
        with log.open("ab") as stream:
            stream.write(whole[1:])
        (log.parents[1] / "slurm").mkdir()
        (log.parents[1] / "slurm" / "7_0_log.err").write_text("oom_kill\n")
        trial.status, trial.reason = ledger.FAILED, "killed"
        ledger.save(tmp_path, trial)

    thread = threading.Thread(target=go_on)
    thread.start()
    text = "".join(pieces)
    thread.join()
    assert text.startswith("ν = 0.01 µ\n") or f"==> {log} <==\nν = 0.01 µ\n" in text
    assert "7_0_log.err <==\noom_kill\n" in text


@pytest.mark.whole
def test_a_tight_loop_of_looks_refuses_no_start(tmp_path: Path):
    folder = made(tmp_path)
    code = f"""
from pathlib import Path
from rna.sweep import ledger
print("begun", flush=True)
seen = 0
while not Path({str(tmp_path)!r}, "enough").exists():
    seen += ledger.at_work(Path({str(folder)!r}))
print(seen)
"""
    looker = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert looker.stdout is not None
    assert looker.stdout.readline() == "begun\n"
    for _ in range(300):
        with ledger.held(folder):  # Busy, where a look takes what it looks at
            time.sleep(0.001)
        time.sleep(0.001)
    (tmp_path / "enough").touch()
    assert int(looker.communicate()[0]) > 10


@pytest.mark.whole
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount, and another user, need root")
def test_a_sweep_is_seen_by_another_user_and_on_a_read_only_disk(tmp_path: Path):
    folder = made(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if str(path).startswith("/tmp/"):
            path.chmod(0o755)
    look = "import json, os, sys; from pathlib import Path; from rna.sweep import status\n"
    look += "os.setgroups([]); os.setuid(int(sys.argv[2]))\n"  # with all imported: it may not be another user's to read
    look += "print(json.dumps(status.status(Path(sys.argv[1]))))"
    root, nobody = 0, 65534

    def seen(user: int, *before: str) -> dict[str, object]:
        done = subprocess.run(
            [*before, sys.executable, "-c", look, str(folder), str(user)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    there = ["unshare", "-m", "sh", "-c", f'mount --bind -o ro {tmp_path} {tmp_path} && exec "$@"', "sh"]
    files = sorted(folder.rglob("*"))
    for looker in ((root, *there), (nobody,)):
        assert seen(*looker)["sweeper"] is False
    assert sorted(folder.rglob("*")) == files  # not even a lock
    with ledger.held(folder):
        for looker in ((root, *there), (nobody,)):
            found = seen(*looker)
            assert (found["sweeper"], found["done"]) == (True, 12)
            assert str(found["holder"]).startswith(f"process {os.getpid()} on ")


def test_status_says_where_a_trial_is_and_why_it_waits(tmp_path: Path):
    folder = made(tmp_path)
    trial = ledger.trials(folder)[13]
    trial.job, trial.cluster = "7_3", "PENDING (Resources)"
    ledger.save(folder, trial)
    assert "#13 noise.nu=9 seed=1: training 5/20 on h, job 7_3, PENDING (Resources), silent" in "\n".join(
        status.status_lines(status.status(folder))
    )
