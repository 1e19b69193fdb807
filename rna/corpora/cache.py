"""What does not change between trials, computed once and kept under `outputs/cache` by content.

An entry is a safetensors file named by what it is and a hash of all that it depends on. It appears complete or not at
all, may be deleted at any time, and is computed again if it cannot be read. The entries used longest ago make room.
"""

import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rna.corpora.sources import digest

if TYPE_CHECKING:
    from torch import Tensor

R = TypeVar("R")
PAYS = 0.5  # of the time that computing states takes, what reading them may take
FREE = 2**31  # bytes that large entries leave free on a disk, for what must not be lost
ABANDONED = 86400.0  # seconds after which a writer's temporary file is nobody's, and an entry makes room


@dataclass(frozen=True)
class Cache:
    """A folder of entries, together no larger than `max_bytes`; with `folder=None` nothing is kept or found."""

    folder: Path | None
    max_bytes: int

    def _path(self, kind: str, identity: Any) -> Path | None:
        return self.folder / f"{kind}-{digest(identity)}.safetensors" if self.folder else None

    def load(self, kind: str, identity: Any, *, mapped: bool = False) -> "dict[str, Tensor] | None":
        """The entry's tensors, or None if there is none that can be read.

        Args:
            mapped: leave them on the disk until they are read.
        """
        path = self._path(kind, identity)
        if path is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        try:
            with path.open("rb"):  # safetensors says of whatever it cannot open that there is no such file
                tensors = load_file(path) if mapped else load(path.read_bytes())
            os.utime(path)  # used just now
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError):  # cut short by a full disk, or gone meanwhile
            with suppress(OSError):
                path.unlink()
            return None
        return tensors

    def save(self, kind: str, identity: Any, tensors: "dict[str, Tensor]") -> None:
        """Keep an entry, in place of an earlier one. A cache that cannot be written costs time, not the trial."""
        path = self._path(kind, identity)
        if path is not None and self._put(path, tensors):
            with suppress(OSError):
                self._make_room(self.max_bytes)

    def _put(self, path: Path, tensors: "dict[str, Tensor]") -> bool:
        from safetensors.torch import save

        temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            warnings.warn(f"the cache in {self.folder} cannot be written ({error.strerror}); going on", stacklevel=3)
            return False
        return True

    def admit(self, kind: str, identity: Any, tensors: "dict[str, Tensor]") -> bool:
        """Keep an entry if there is room for it beside those used today, and on the disk; whether it is kept.

        Entries that each trial asks for in turn are of no use where later ones drive out the first: of what does not
        fit as a whole, the part that came first stays.
        """
        path = self._path(kind, identity)
        if path is None:
            return False
        size = sum(tensor.nbytes for tensor in tensors.values())
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            fits = self._make_room(self.max_bytes - size, unused=ABANDONED) <= self.max_bytes - size
            return fits and shutil.disk_usage(path.parent).free - size >= FREE and self._put(path, tensors)
        return False

    def _make_room(self, max_bytes: int, *, unused: float = 0.0) -> int:
        """Let go of the entries used longest ago, none of the last `unused` seconds; the bytes of those that stay."""
        assert self.folder is not None
        entries: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another trial made room at the same time
                status = path.stat()
                if path.suffix == ".tmp" and time.time() - status.st_mtime > ABANDONED:
                    path.unlink()
                elif path.suffix == ".safetensors":
                    entries.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in entries)
        for used, size, path in sorted(entries):
            if total <= max_bytes or time.time() - used < unused:
                break
            path.unlink(missing_ok=True)
            total -= size
        return total


@dataclass
class Memory:
    """The reference's values on a trial's batches, by kind and feed, each loaded when it is first asked for."""

    cache: Cache
    common: dict[str, Any]  # what all of them depend on
    feeds: dict[str, dict[str, Any]]  # feed -> what its batches depend on
    found: "dict[tuple[str, str, str], Remembered]" = field(default_factory=dict, init=False)
    states: "dict[tuple[str, str], States]" = field(default_factory=dict, init=False)

    def entering(self, what: Any, feed: str) -> "States":
        """The hidden states on a feed's batches that enter a layer which no trial has changed yet."""
        key = (str(what), feed)
        if key not in self.states:
            self.states[key] = States(self.cache, self.common | {"what": what} | self.feeds[feed])
        return self.states[key]

    def of(self, kind: str, what: Any, feed: str) -> "Remembered":
        """The values of one kind (`norms`, `log_probs`), of `what` exactly, on a feed."""
        key = (kind, str(what), feed)
        if key not in self.found:
            self.found[key] = Remembered(self.cache, kind, self.common | {"what": what} | self.feeds[feed])
        return self.found[key]

    def keep(self) -> None:
        for values in self.found.values():
            values.keep()


@dataclass
class Remembered:
    """Values of one kind by number: the reference's own on each batch of a feed, whose order every trial shares."""

    cache: Cache
    kind: str
    identity: Any
    values: "dict[str, Tensor]" = field(init=False)
    added: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.values = self.cache.load(self.kind, self.identity) or {}

    def recall(self, number: int, compute: "Callable[[], Tensor]") -> "Tensor":
        """The value kept under this number, or else the computed one, which is kept."""
        name = str(number)
        if name in self.values:
            return self.values[name]
        value = compute()
        if self.cache.folder is not None:
            self.values[name] = value.detach().cpu()
            self.added = True
        return value

    def keep(self) -> None:
        """Write what was added. Of two trials that do so at once the last one's stays; either is right."""
        if self.added:
            self.cache.save(self.kind, self.identity, self.values)
            self.added = False


@dataclass
class States:
    """Hidden states by number, a file for each batch: far larger than other values, and read only where that pays.

    Whether it pays is measured on the first batch asked for; on it what is kept must also be what is computed, to the
    bit.
    """

    cache: Cache
    identity: Any
    pays: bool | None = field(init=False, default=None)  # None: not measured yet
    device: Any = field(init=False, default=None)

    def recall(self, number: int, compute: "Callable[[], Tensor]") -> "Tensor":
        """The states kept under this number, or else the computed ones, which are kept if there is room."""
        if self.cache.folder is None or self.pays is False:
            return compute()
        if self.pays is None:
            return self._measured(number, compute)
        kept = self._read(number)
        if kept is None:
            kept = compute()
            self._write(number, kept)
        return kept

    def _measured(self, number: int, compute: "Callable[[], Tensor]") -> "Tensor":
        compute()  # a first time may be slower
        made, computing = _timed(compute)
        self.device = made.device
        if self._read(number) is None:
            self._write(number, made)
        kept, reading = _timed(lambda: self._read(number))
        self.pays = kept is not None and reading < PAYS * computing and bool((kept == made).all())
        return made

    def _read(self, number: int) -> "Tensor | None":
        found = self.cache.load("states", [self.identity, number])
        return None if found is None else found["states"].to(self.device, copy=True)  # aligned as torch has it

    def _write(self, number: int, states: "Tensor") -> None:
        self.cache.admit("states", [self.identity, number], {"states": states.detach().cpu()})


def _timed(work: "Callable[[], R]") -> "tuple[R, float]":
    """What it gives, and the seconds until a GPU has it too."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    made = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return made, time.perf_counter() - started
