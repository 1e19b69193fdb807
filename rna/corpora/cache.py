"""What does not change between trials, computed once and kept under `outputs/cache` by content.

An entry is a safetensors file named by what it is and a hash of all that it depends on. It appears complete or not at
all, may be deleted at any time, and is computed again if it cannot be read. The entries used longest ago make room.
"""

import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna.corpora.sources import digest

if TYPE_CHECKING:
    from torch import Tensor

ABANDONED = 86400.0  # seconds after which a writer's temporary file is nobody's


@dataclass(frozen=True)
class Cache:
    """A folder of entries, together no larger than `max_bytes`; with `folder=None` nothing is kept or found."""

    folder: Path | None
    max_bytes: int

    def _path(self, kind: str, identity: Any) -> Path | None:
        return self.folder / f"{kind}-{digest(identity)}.safetensors" if self.folder else None

    def load(self, kind: str, identity: Any) -> "dict[str, Tensor] | None":
        """The entry's tensors, or None if there is none that can be read."""
        path = self._path(kind, identity)
        if path is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(path.read_bytes())
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
        if path is None:
            return
        from safetensors.torch import save

        temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))
            temporary.replace(path)
            self._make_room()
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            warnings.warn(f"the cache in {self.folder} cannot be written ({error.strerror}); going on", stacklevel=2)

    def _make_room(self) -> None:
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
        for _, size, path in sorted(entries):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


@dataclass
class Memory:
    """The reference's values on a trial's batches, by kind and feed, each loaded when it is first asked for."""

    cache: Cache
    common: dict[str, Any]  # what all of them depend on
    feeds: dict[str, dict[str, Any]]  # feed -> what its batches depend on
    found: "dict[tuple[str, str, str], Remembered]" = field(default_factory=dict, init=False)

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
