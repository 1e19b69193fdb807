"""What a sweep says on standard error while it runs: a line for each trial that ends, and one of how far it is."""

import math
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from rna.sweep import Trial, ledger

SHOWN = 8  # trials in work whose phases a line has room for
TOLD = 30.0  # seconds between two progress lines of a log
SCORES = ("forget", "retain", "perturbed")  # of a trial, in the line of its end


@dataclass
class Said:
    """The lines of one sweep; `took` holds the seconds of the trials that ended."""

    folder: Path
    took: list[float] = field(default_factory=list)
    last: str = ""
    at: float = 0.0
    stream: TextIO = field(default_factory=lambda: sys.stderr)  # a trial in this process may print elsewhere
    over: int = 0  # trials that are, as of the last line
    total: int = 0

    def say(self, line: str) -> None:
        if self.stream.isatty():
            print("\r\x1b[K", end="", file=self.stream)
        print(f"{self.folder.name}: {line}", file=self.stream, flush=True)

    def ended(self, trial: Trial, counts: Mapping[str, int]) -> None:
        """The line of a trial that is done: which of how many, its settings, its time, and its scores."""
        self.over = sum(counts.values())
        known = [
            f"{name} {100 * value:.1f} %" if kind == "acc" else f"{name} {value:.3f} nats"
            for name in SCORES
            for kind in ("acc", "nll")
            if isinstance(value := trial.metrics.get(f"eval/{name}/{kind}"), int | float)
        ]
        seconds = [] if trial.seconds is None else [f"{trial.seconds:.0f} s"]
        said = ", ".join([f"#{trial.number} {trial.name}", *seconds, *known])
        self.say(f"cell {self.over} of {self.total} done: {said}")

    def progress(self, counts: Mapping[str, int], running: list[Trial], total: int) -> None:
        """How far the sweep is, if that is news; `counts` of the trials that are over, by how they ended."""
        self.over, self.total = sum(counts.values()), total
        line = self._counted(counts, running)
        now = time.monotonic()
        if self.stream.isatty():
            if now - self.at > 0.5 or line != self.last:
                self.last, self.at = line, now
                shown = f"{self.folder.name}: {line}{self._phases(running)}"
                width = shutil.get_terminal_size().columns
                print(f"\r\x1b[K{shown[: width - 1]}", end="", file=self.stream, flush=True)
        elif not self.last or now - self.at > TOLD:
            self.last, self.at = line, now
            self.say(f"{line}{self._phases(running)}")

    def _counted(self, counts: Mapping[str, int], running: list[Trial]) -> str:
        otherwise = [f"{counts[status]} {status}" for status in (ledger.PRUNED, ledger.FAILED) if counts.get(status)]
        ended = f" ({', '.join(otherwise)})" if otherwise else ""
        parts = [f"{self.over} of {self.total} cells over{ended}, {len(running)} running"]
        left = self.total - self.over
        if self.took and left and running:
            minutes = left * sum(self.took) / len(self.took) / len(running) / 60
            parts.append(f"about {math.ceil(minutes)} min left")
        return ", ".join(parts)

    def _phases(self, running: list[Trial]) -> str:
        return "".join(f" {self._phase(trial)}" for trial in running[:SHOWN])

    def _phase(self, trial: Trial) -> str:
        told = ledger.last_beat(self.folder, trial)
        return f"[#{trial.number} {told['phase']} {told['done']}/{told['total']}]" if told else f"[#{trial.number}]"
