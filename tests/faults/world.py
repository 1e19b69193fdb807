"""A small sweep of `rna.run`: four trials of a method that writes down each step it takes, for faults to fall upon."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file

from rna.sweep import ledger
from tests.launchers.running import environment

SEEDS, STEPS, EVERY = 4, 30, 5
PATIENCE = 1200.0  # seconds that a life of the sweep may take
METHOD = '''"""NPO's log-ratio, bounded, in steps that are slow and written down."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from rna.settings import Method

if os.environ.get("FAULTS_CLOCK"):  # of the trials' processes alone
    real_time = time.time
    time.time = lambda: real_time() + float(os.environ["FAULTS_CLOCK"])


@dataclass(kw_only=True)
class Counted(Method):
    label = "Counted"

    def forget_loss(self, step) -> Tensor:
        step.kept["steps"] = step.kept.get("steps", 0) + 1
        with Path(os.environ["FAULTS_STEPS"]).open("a") as stream:
            stream.write(f"{step.setup.seed} {step.kept['steps']} {os.getpid()}\\n")
        time.sleep(float(os.environ.get("FAULTS_SLOW", "0.1")))
        return (step.log_probs("forget") / 5).tanh().mean()
'''


@dataclass
class Row:
    """What a fault did to a sweep."""

    fault: str
    launcher: str
    lost: int
    twice: int
    failed: int
    restarts: int
    same: bool  # tensors, to the bit, as those of the undisturbed sweep

    @property
    def kept(self) -> bool:
        return (self.lost, self.twice, self.failed, self.same) == (0, 0, 0, True)


@dataclass
class World:
    """One sweep in a folder of its own, started as often as it takes."""

    folder: Path
    launcher: str
    words: tuple[str, ...] = ()
    more: dict[str, str] = field(default_factory=dict)  # environment variables
    starts: int = 0
    failures: set[int] = field(default_factory=set)
    records: dict[str, bytes] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.output.mkdir(exist_ok=True)
        (self.folder / "counted.py").write_text(METHOD)
        (self.folder / "conf" / "method").mkdir(parents=True, exist_ok=True)
        (self.folder / "conf" / "method" / "counted.yaml").write_text("name: counted\ntarget: counted.Counted\n")

    @property
    def output(self) -> Path:
        return self.folder / "outputs"

    @property
    def sweep(self) -> Path:
        return self.output / "sweeps" / "faults"

    @property
    def printed(self) -> str:
        return (self.folder / "printed.log").read_text()

    def begin(self, *more: str) -> "subprocess.Popen[bytes]":
        """Give the command; it is the same each time."""
        self.starts += 1
        words = ["--config-dir", "conf", "-m", "method=counted", f"seed={','.join(map(str, range(SEEDS)))}"]
        words += ["baseline=skip", "model.retrained=null", "eval.limit=4", "wandb=disabled", "noise.nu=0.05"]
        words += [f"train.steps={STEPS}", f"train.checkpoint_every={EVERY}", "train.lr=1e-4"]
        words += [f"output_dir={self.output}", "hydra.sweeper.study_name=faults"]
        words += [f"hydra/launcher={self.launcher}", *self.words, *more]
        mine = environment(FAULTS_STEPS=str(self.folder / "steps"), **self.more)
        with (self.folder / "printed.log").open("a") as stream:
            command = [sys.executable, "-m", "rna.run", *words]
            return subprocess.Popen(command, cwd=self.folder, env=mine, stdout=stream, stderr=stream)

    def finish(self, lives: int = 3) -> None:
        """Give the command until it ends well."""
        for _ in range(lives):
            if self.ended(self.begin()) == 0:
                return
        raise AssertionError(self.printed)

    def ended(self, running: "subprocess.Popen[bytes]") -> int:
        """Wait for the end of a life, and look at what it left."""
        try:
            return running.wait(PATIENCE)
        finally:
            if running.poll() is None:
                running.kill()
            self.look()

    def look(self) -> None:
        """Note who has failed by now, and which records are not what they were."""
        self.failures |= {trial.number for trial in ledger.trials(self.sweep) if trial.status == ledger.FAILED}
        now = {file.name: file.read_bytes() for file in self.output.glob("results/*.json")}
        self.changed |= {name for name, content in self.records.items() if now.get(name) != content}
        self.records |= now

    # What happens in it

    def steps(self) -> list[list[int]]:
        """Seed, count and process of each step taken."""
        file = self.folder / "steps"
        if not file.exists():
            return []
        return [[int(word) for word in line.split()] for line in file.read_text().splitlines()]

    def until_steps(self, count: int, running: "subprocess.Popen[bytes] | None" = None) -> None:
        """Wait for so many more steps; a sweep that ends before is in order."""
        there = len(self.steps())
        self.until(lambda: len(self.steps()) >= there + count or (running is not None and running.poll() is not None))

    def until(self, happens: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not happens():
            assert time.monotonic() < deadline, self.printed
            time.sleep(0.05)

    def stop(self, running: "subprocess.Popen[bytes]", number: int) -> None:
        """Send a signal, and wait for the end."""
        if running.poll() is None:
            running.send_signal(number)
        self.ended(running)

    def kill_a_worker(self) -> None:
        """SIGKILL for the process that took the last step."""
        os.kill(self.steps()[-1][2], signal.SIGKILL)

    # What is left of it

    def row(self, fault: str, whole: "dict[int, Path]", sick: frozenset[int] = frozenset()) -> Row:
        """Compare with the tensors of an undisturbed sweep, by seed; `sick` are trials that had to fail."""
        last = Counter(seed for seed, count, _ in self.steps() if count == STEPS)
        there = self.tensors()
        healthy = [seed for seed in range(SEEDS) if seed not in sick]
        return Row(
            fault=fault,
            launcher=self.launcher,
            lost=sum(seed not in there for seed in healthy),
            twice=sum(count > 1 for count in last.values()) + len(self.changed),
            failed=len(self.failures - sick),
            restarts=self.starts - 1,
            same=all(_equal(there[seed], whole[seed]) for seed in healthy if seed in there),
        )

    def tensors(self) -> "dict[int, Path]":
        """By seed, of the trials that are done."""
        found: dict[int, Path] = {}
        for trial in ledger.trials(self.sweep):
            if trial.status == ledger.DONE and trial.address is not None:
                key = trial.address["key"]
                record = json.loads((self.output / "results" / f"{key}.json").read_text())
                found[record["config"]["seed"]] = self.output / "trials" / key / "unlearned.safetensors"
        return found


def _equal(one: Path, other: Path) -> bool:
    mine, theirs = load_file(one), load_file(other)
    return mine.keys() == theirs.keys() and all((mine[name] == tensor).all() for name, tensor in theirs.items())
