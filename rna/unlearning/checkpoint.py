"""Where an interrupted training goes on: everything the next step depends on, in one file that is whole or absent."""

import os
import pickle
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.ends import file_system_failed, patient

State = dict[str, Any]
SHARE = 0.03  # of a training's time that checkpoints by time may take


@dataclass
class Pace:
    """When a training saves: every so many steps, and by time, so that a step may cost what it will.

    By time, a save waits until the last one's cost is at most SHARE of what has passed since.
    """

    every: int | None  # steps
    minutes: float | None
    since: float = field(default_factory=time.perf_counter)  # when the last save was over, or the training began
    cost: float = 0.0  # seconds that the last save took

    def due(self, step: int, now: float) -> bool:
        """Whether to save after a step (counted from 1)."""
        if self.every is not None and step % self.every == 0:
            return True
        return self.minutes is not None and now - self.since >= max(60 * self.minutes, self.cost / SHARE)

    def saved(self, began: float, now: float) -> None:
        self.since, self.cost = now, now - began


class OtherTrial(ValueError):
    """A checkpoint that lies where a trial's own belongs, and is another's."""


@dataclass(frozen=True)
class Checkpoint:
    """The checkpoint of one trial, at one place."""

    path: Path
    key: str  # the trial's TRAIN_KEY: all that can change the trained tensors

    @patient
    def save(self, state: State) -> None:
        """Replace the checkpoint by a newer one, by temp-then-rename; the earlier one stays whole until then."""
        import torch

        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                torch.save({"key": self.key, **state}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def load(self) -> State | None:
        """The state to go on from; None if there is no checkpoint or it cannot be read, which is no harm but time.

        Raises:
            OtherTrial: for a sound checkpoint of another trial.
            OSError: where the file system is in trouble that may pass: the checkpoint may be there.
        """
        try:
            state = self._read()
            key = state.pop("key")
        except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            if file_system_failed(error):
                raise
            return None
        if key != self.key:
            raise OtherTrial(
                f"{self.path}: this checkpoint belongs to trial {key}, not {self.key}; move it away to train anew"
            )
        return state

    @patient
    def _read(self) -> State:
        import torch

        return torch.load(self.path, map_location="cpu", weights_only=True)

    @patient
    def clear(self) -> None:
        """Remove it once the result it led to is on disk."""
        self.path.unlink(missing_ok=True)
