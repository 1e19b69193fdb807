"""What a model has answered so far, kept on disk, so that an evaluation that was interrupted goes on where it was."""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rna.ends import patient

EVERY = 30.0  # seconds between two writes


@dataclass
class Answers:
    """By what was asked, a list with a part for each batch that is done. With `path=None` nothing is kept or found.

    `state` parts the answers of one model that a probe alters: the same question is another one in each.

    A file that cannot be read, or written, costs time and not the evaluation.
    """

    path: Path | None
    parts: dict[str, list[Any]] = field(default_factory=dict)
    written: float = field(default_factory=time.monotonic)
    changed: bool = False
    state: str = ""

    def __post_init__(self) -> None:
        if self.path is not None:
            with suppress(OSError, ValueError):
                self.parts = json.loads(patient(self.path.read_text)(encoding="utf-8"))

    def of(self, asked: str) -> list[Any]:
        """The parts that are done, which `add` makes longer."""
        return self.parts.setdefault(f"{self.state}/{asked}" if self.state else asked, [])

    def add(self, asked: str, part: Any) -> None:
        self.of(asked).append(part)
        self.changed = True
        if time.monotonic() - self.written > EVERY:
            self.keep()

    def keep(self) -> None:
        """Write what there is, by temp-then-rename."""
        self.written = time.monotonic()
        if self.path is None or not self.changed:
            return
        with suppress(OSError):
            self._write(self.path)
            self.changed = False

    @patient
    def _write(self, path: Path) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.parts), encoding="utf-8")
            temporary.replace(path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all, once it is recorded."""
        self.parts, self.changed = {}, False
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
                self.path.parent.rmdir()  # where a trial keeps nothing else
