"""What a sweep says on standard error while it runs: a line that changes on a terminal, few lines in a log."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rna.sweep import Trial, ledger

SHOWN = 8  # trials in work whose phases a terminal's line has room for
TOLD = 30.0  # seconds between two progress lines of a log


@dataclass
class Said:
    """The lines of one sweep; `took` holds the seconds of the trials that ended."""

    folder: Path
    took: list[float] = field(default_factory=list)
    last: str = ""
    at: float = 0.0

    def say(self, line: str) -> None:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
        print(f"{self.folder.name}: {line}", file=sys.stderr, flush=True)

    def progress(self, counts: Mapping[str, int], running: list[Trial], total: int) -> None:
        """How far the sweep is, if that is news; `counts` of the trials that are over, by how they ended."""
        line = self._counted(counts, running, total)
        now = time.monotonic()
        if sys.stderr.isatty():
            if now - self.at > 0.5 or line != self.last:
                self.last, self.at = line, now
                shown = f"{self.folder.name}: {line} {' '.join(map(self._phase, running[:SHOWN]))}"
                print(f"\r\x1b[K{shown}"[:160], end="", file=sys.stderr, flush=True)
        elif line != self.last or now - self.at > TOLD:
            self.last, self.at = line, now
            self.say(line)

    def _counted(self, counts: Mapping[str, int], running: list[Trial], total: int) -> str:
        parts = [f"{counts[ledger.DONE]}/{total} done"]
        parts += [f"{counts[status]} {status}" for status in (ledger.PRUNED, ledger.FAILED) if counts[status]]
        parts.append(f"{len(running)} running")
        left = total - counts[ledger.DONE] - counts[ledger.FAILED] - counts[ledger.PRUNED]
        if self.took and left and running:
            minutes = left * sum(self.took) / len(self.took) / len(running) / 60
            parts.append(f"about {math.ceil(minutes)} min left")
        return ", ".join(parts)

    def _phase(self, trial: Trial) -> str:
        told = ledger.last_beat(self.folder, trial)
        return f"[#{trial.number} {told['phase']} {told['done']}/{told['total']}]" if told else f"[#{trial.number}]"
