"""Where an interrupted training goes on: everything the next step depends on, in one file that is whole or absent."""

import os
import pickle
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rna.ends import file_system_failed, patient

State = dict[str, Any]


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
