"""An interrupted training goes on where it was and ends with the same bits, whatever stopped it and whenever."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import ends, run
from rna.corpora import data
from rna.settings import config
from rna.settings.fields import Settings
from rna.unlearning import train
from rna.unlearning.checkpoint import Checkpoint, OtherTrial, Pace
from tests import tiny
from tests.unlearning import test_train
from tests.unlearning.test_train import METHODS

STEPS = 7


def settings(*overrides: str) -> Settings:
    common = (f"train.steps={STEPS}", "train.lr=0.01", "noise.nu=0.1", "train.checkpoint_every=2")
    return config.check(run.compose([*common, *overrides], None))


class Killed(BaseException):
    """What a test throws where a kill would strike."""


def unlearn(
    made: Settings,
    checkpoint: Checkpoint | None = None,
    stop_at: int | None = None,
    read: data.Corpora | None = None,
    tokenizer: Any = None,
) -> tuple[Any, Any]:
    curve: list[dict[str, float]] = []

    def on_step(step: int, report: dict[str, float]) -> None:
        curve.append({key: value for key, value in report.items() if key != "train/tokens_per_second"})
        if step == stop_at:
            raise Killed

    read = read or test_train.corpora()
    if made.method.name != "dpo":
        read = data.Corpora(read.forget, read.retain, None)
    decoder = tiny.decoder(layers=4)
    feeds = train.feeds(made, read, 0)
    return train.train(made, decoder, feeds, on_step, tokenizer=tokenizer, checkpoint=checkpoint), curve


def assert_equal(one: tuple[Any, Any], two: tuple[Any, Any]) -> None:
    assert one[1] == two[1]
    assert one[0].keys() == two[0].keys()
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])


@pytest.mark.whole
@pytest.mark.parametrize("stop_at", [3, pytest.param(6, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("method", "retain_loss"), METHODS)
def test_every_method_ends_with_the_same_bits(method: str, retain_loss: str, stop_at: int, tmp_path: Path):
    made = settings(f"method={method}", f"retain={retain_loss}")
    whole = unlearn(made)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, stop_at)
    state = checkpoint.load()
    assert state is not None
    assert len(state["curve"]) == 2 * ((stop_at - 1) // 2)  # the kill came before step `stop_at` was saved
    assert_equal(unlearn(made, checkpoint), whole)


@pytest.mark.whole
def test_accumulated_gradients_resume_too(tmp_path: Path):
    made = settings("method=npo", "train.batch_size=2", "train.grad_accumulation=3")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, 5)
    assert_equal(unlearn(made, checkpoint), unlearn(made))


@pytest.mark.whole
@pytest.mark.parametrize("cut", [0, 1, 100, 2000, -1])
def test_a_truncated_checkpoint_costs_time_and_nothing_else(tmp_path: Path, cut: int):
    made = settings("method=npo")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, 5)
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:cut])
    assert checkpoint.load() is None
    assert_equal(unlearn(made, checkpoint), unlearn(made))


def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path):
    Checkpoint(tmp_path / "checkpoint.pt", "one").save({"curve": []})
    with pytest.raises(OtherTrial, match="belongs to trial one, not two"):
        Checkpoint(tmp_path / "checkpoint.pt", "two").load()


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    checkpoint.save({"curve": [1]})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save({"curve": [2]})
    assert checkpoint.load() == {"curve": [1]}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.whole
@pytest.mark.parametrize("step_seconds", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("cost", [0.01, 3.0, 60.0])
def test_saving_by_time_takes_at_most_three_parts_in_a_hundred(step_seconds: float, cost: float):
    """Ten hours of steps and saves that take so many seconds each, on a clock of our own."""
    pace, now, saving, saves = Pace(None, 5.0, since=0.0), 0.0, 0.0, 0
    while now < 36_000:
        now += step_seconds
        if pace.due(1, now):
            pace.saved(now, now + cost)
            now, saving, saves = now + cost, saving + cost, saves + 1
    assert saving / now <= 0.03
    assert saves >= min(36_000 / 330, 0.8 * 0.03 * 36_000 / cost) - 1  # and no rarer than it must


def test_steps_and_time_are_counted_apart():
    pace = Pace(3, None, since=0.0)
    assert [step for step in range(1, 10) if pace.due(step, 1e9)] == [3, 6, 9]


def test_a_training_saves_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved: list[int] = []
    monkeypatch.setattr(Checkpoint, "save", lambda _self, state: saved.append(len(state["curve"])))
    unlearn(settings("method=rmu", "train.checkpoint_minutes=1e-9"), Checkpoint(tmp_path / "checkpoint.pt", "k"))
    assert len(saved) > 1


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_saves_at_once_and_training_goes_on(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch):
    made = settings("method=rmu", "train.checkpoint_every=null")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    saved: list[int] = []
    monkeypatch.setattr(Checkpoint, "save", lambda _self, state: saved.append(len(state["curve"])))
    heard: list[int] = []
    earlier = signal.signal(number, lambda *_: heard.append(number))  # as a cluster's launcher would
    try:
        monkeypatch.setattr(train, "_draw", _warned(train._draw, at=3, number=number))
        unlearn(made, checkpoint)
    finally:
        signal.signal(number, earlier)
    assert saved == [3]
    assert heard == [number]  # and then whoever listened before hears it too


def _warned(draw: Any, *, at: int, number: int) -> Any:
    calls: list[int] = []

    def drawn(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), number)
        return draw(*arguments)

    return drawn


def test_sigterm_saves_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = settings("method=rmu", "train.checkpoint_every=null")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with monkeypatch.context() as patch:
        patch.setattr(train, "_draw", _warned(train._draw, at=4, number=signal.SIGTERM))
        with pytest.raises(ends.Interrupted, match="SIGTERM"):
            unlearn(made, checkpoint)
    state = checkpoint.load()
    assert state is not None
    assert len(state["curve"]) == 4
    assert_equal(unlearn(made, checkpoint), unlearn(made))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def command(folder: Path, *overrides: str) -> list[str]:
    common = ["train_only=true", "wandb=disabled", "cache.enabled=false", f"output_dir={folder}"]
    return [sys.executable, "-m", "rna.run", *common, *overrides]


def kill_until_done(folder: Path, overrides: list[str], kills: int, *, number: int = signal.SIGKILL) -> int:
    """Start the command again and again, killing it at random moments; how often it was killed while training."""
    moments, struck = random.Random(0), 0
    for _ in range(10 * kills):
        started = subprocess.Popen(command(folder, *overrides), stderr=subprocess.PIPE, text=True)
        assert started.stderr is not None
        training = next((True for line in started.stderr if "training" in line), False)
        if not training:
            assert started.wait() == 0
            return struck
        if struck < kills:
            time.sleep(moments.uniform(0.0, 1.0))
            started.send_signal(number)
            struck += started.wait() != 0
        started.stderr.read()
        started.wait()
        if started.returncode == 0:
            return struck
    raise AssertionError("never done")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("method", ["rmu", "adaptive_rmu", "rsv", "npo", "simnpo", "dpo"])
def test_killed_again_and_again_a_trial_ends_with_the_same_bits(method: str, number: int, tmp_path: Path):
    """At least ten kills for each method, of a process and its workers, at random moments of their training."""
    overrides = [f"method={method}", "train.steps=150", "train.checkpoint_every=3"]
    subprocess.run(command(tmp_path / "whole", *overrides), check=True, stderr=subprocess.DEVNULL)
    assert kill_until_done(tmp_path / "killed", overrides, 10, number=number) >= 10
    made = {
        folder: {path.parent.name: path.read_bytes() for path in (tmp_path / folder / "trials").glob("*/unlearned.*")}
        for folder in ("whole", "killed")
    }
    assert len(made["whole"]) == 2
    assert made["whole"] == made["killed"]
    assert not list(tmp_path.glob("killed/trials/*/checkpoint.pt"))
    assert len(list((tmp_path / "killed" / "results").iterdir())) == 2


@pytest.mark.slow
def test_a_killed_trial_goes_on_and_ends_with_the_same_bits(tmp_path: Path):
    """The short form of the one above: two kills of one method."""
    overrides = ["method=rmu", "train.steps=60", "train.checkpoint_every=2", "noise=none"]
    subprocess.run(command(tmp_path / "whole", *overrides), check=True, stderr=subprocess.DEVNULL)
    assert kill_until_done(tmp_path / "killed", overrides, 2) >= 1
    whole, killed = ((tmp_path / folder / "trials").glob("*/unlearned.safetensors") for folder in ("whole", "killed"))
    assert next(whole).read_bytes() == next(killed).read_bytes()
