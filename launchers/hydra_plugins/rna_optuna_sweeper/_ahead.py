"""What is done beside the trials in work: cells are composed before their turn comes."""

import json
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.sweep import Trial, ledger

from ._composing import Composer, Refused
from ._endings import Endings
from ._said import Said

TOLD = 5.0  # seconds between two lines of how many trials are composed anew
SAVED = 5.0  # seconds of composing that a kill may lose


@dataclass
class Ahead:
    """Finds out where the records of trials lie that wait, and settles those that have one, or are refused."""

    folder: Path
    composer: Composer
    endings: Endings
    waiting: deque[Trial]
    fresh: list[Trial] = field(default_factory=list)  # composed, and not written down yet
    saved: float = field(default_factory=time.monotonic)

    def step(self, seconds: float) -> bool:
        """Go on for so many seconds; return whether there is more to do."""
        until = time.monotonic() + seconds
        while self.waiting and time.monotonic() < until:
            trial = self.waiting.popleft()
            if trial.status == ledger.QUEUED and not self.composer.holds(trial) and self.addressed(trial):
                self.fresh.append(trial)
                self.endings.done_elsewhere(trial)
        if not self.waiting or time.monotonic() - self.saved > SAVED:
            self.save()
        return bool(self.waiting)

    def addressed(self, trial: Trial) -> bool:
        """Give a trial its address, if it has none; one that is refused has failed."""
        if self.composer.holds(trial):
            return True
        try:
            self.composer.readdress(trial)
        except Refused as error:
            self.endings.fail(trial, "bad config", str(error))
            return False
        return True

    def save(self) -> None:
        """Write down what was found out of trials that still wait; those that do not have been written down whole."""
        files = ledger.with_file(self.folder) if self.fresh else set[int]()
        wait = [trial for trial in self.fresh if trial.status == ledger.QUEUED]
        for trial in wait:
            if trial.number in files:
                ledger.save(self.folder, trial)
        if lines := [trial for trial in wait if trial.number not in files]:
            ledger.add_addresses(self.folder, lines)
        self.fresh, self.saved = [], time.monotonic()


def readdress_ended(trials: Mapping[int, Trial], composer: Composer, folder: Path, said: Said) -> None:
    """Find out anew, once configuration or code have changed, which of the trials that are over are still the same.

    Each is written down as soon as that is known, so that a kill loses nothing of it.
    """
    todo = [trial for trial in trials.values() if trial.over and not composer.holds(trial)]
    if not todo:
        return
    moved = 0
    started = told = time.monotonic()
    for count, trial in enumerate(todo):
        try:
            moved += composer.readdress(trial)
        except Refused as error:
            said.say(f"{trial.name} cannot be run: {error}")
            trial.status, trial.reason, trial.message, trial.values = ledger.FAILED, "bad config", str(error), None
        ledger.save(folder, trial)
        if time.monotonic() - told > TOLD:
            told = time.monotonic()
            said.say(f"composing {count + 1}/{len(todo)} cells ({told - started:.0f} s)")
    what = f"{moved} of {len(todo)} trials are other ones now and run anew; their old records stay, uncounted"
    said.say(f"configuration or code has changed since this sweep began: {what if moved else 'same trials'}")


def write_down(folder: Path, trials: list[Trial], before: Mapping[int, str], *, grid: bool) -> None:
    """Bring a sweep's folder up to date, whatever instant a kill left it at: what differs from what was read there."""
    (folder / "trials").mkdir(exist_ok=True)
    files = ledger.with_file(folder)
    for trial in trials:
        listed = grid and trial.number not in files and trial.status == ledger.QUEUED
        if not listed and as_text(trial) != before.get(trial.number):
            ledger.save(folder, trial)
            files.add(trial.number)
    cells = [_cell(trial, whole=trial.number not in files) for trial in trials] if grid else []
    if cells and (cells != ledger.read_json(folder / "cells.json") or (folder / "addresses.jsonl").exists()):
        ledger.save_cells(folder, cells)


def _cell(trial: Trial, *, whole: bool) -> dict[str, Any]:
    known: dict[str, Any] = {"number": trial.number, "cell": trial.cell, "params": trial.params}
    return known | ({"address": trial.address, "composed_of": trial.composed_of} if whole and trial.address else {})


def as_text(trial: Trial) -> str:
    return json.dumps(vars(trial))
