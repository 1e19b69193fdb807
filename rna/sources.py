"""Where inputs lie and what identifies them: text files, model folders, hub revisions, and their fingerprints."""

import fcntl
import functools
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

TEXT_FILES = (".txt", ".jsonl", ".parquet")
TOKENIZER_FILES = ("*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
MODEL_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", "tokenizer*", *TOKENIZER_FILES)
WEIGHTS = (".safetensors", ".bin", ".gguf")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HASH = re.compile(r"[0-9a-f]{64}")
SMALL = 64 * 2**20  # bytes above which a file's hash is kept between processes
SETTLED = 2.0  # seconds after which a file that is written again has another time, on the coarsest of file systems


def digest(value: object) -> str:
    """A short hash of a value that JSON can write, the same for the same value on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def text_files(path: str, key: str, pattern: str | None = None) -> list[Path]:
    """The text files a path stands for: itself, the readable files of a folder, or those of a hub data set, sorted.

    Args:
        pattern: which files of a folder or hub data set, such as `all/test-*.parquet`; None: all at its top. A folder
            that has none of them is read at its top, so that files may be laid there by themselves.

    Raises:
        ValueError: naming `key`, if there is nothing to read.
    """
    where = Path(path)
    allowed = f"allowed: a {', '.join(TEXT_FILES)} file, or a folder of them"
    try:
        if where.is_dir():
            files = _in_folder(where, pattern)
        elif where.is_file():
            files = [where]
        elif HUB_ID.fullmatch(path) and where.suffix not in TEXT_FILES:
            files = _in_folder(hub_dataset(path, key, pattern), pattern)
        else:
            files = []
    except OSError as error:
        raise ValueError(f"{key}={path}: cannot be read ({error.strerror})") from None
    if not files:
        raise ValueError(f"{key}={path}: no such file, or a folder without text files; {allowed}")
    if files[0].suffix not in TEXT_FILES:
        raise ValueError(f"{key}={path}: cannot read a '{files[0].suffix}' file; {allowed}")
    return files


def _in_folder(folder: Path, pattern: str | None) -> list[Path]:
    chosen = sorted(folder.glob(pattern)) if pattern else []
    return chosen or sorted(file for file in folder.iterdir() if file.suffix in TEXT_FILES and file.is_file())


def hub_dataset(name: str, key: str, pattern: str | None) -> Path:
    """The local copy of a hub data set's files, fetched if need be; HF_HUB_OFFLINE=1 takes what is there.

    Raises:
        ValueError: saying what to fetch, from where, and which override points at it.
    """
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    wanted = (pattern,) if pattern else tuple(f"*{suffix}" for suffix in TEXT_FILES)
    try:
        return _snapshot(name, "dataset", None, wanted)
    except GatedRepoError:
        why = f"gated: ask for access at https://huggingface.co/datasets/{name}, and log in with `hf auth login`"
    except LocalEntryNotFoundError:
        why = "not in the local cache, and the hub cannot be reached"
    except Exception as error:  # the client raises errors of its own, and those of its HTTP library
        why = type(error).__name__
    files = pattern or "its files"
    raise ValueError(
        f"{key}={name}: no such file or folder here, and not to be had from the hub ({why}); fetch {files} of "
        f"https://huggingface.co/datasets/{name} where there is a network, and give {key}=FOLDER"
    )


@functools.cache
def _snapshot(name: str, kind: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The hub is asked once: of every trial of a process the same revision is read. A failure is not remembered."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=list(patterns)))


def fingerprint(file: Path, hashes: Path | None) -> str:
    """What identifies a file, wherever it lies: the first 16 digits of its content's SHA-256.

    The hub's cache names large files by it, so that these are not read. Another large one is read once.

    Args:
        hashes: where the hashes of large files are kept, by the file's device, inode, size and time; None: nowhere.
    """
    blob = Path(os.path.realpath(file))
    if blob.parent.name == "blobs" and HASH.fullmatch(blob.name):
        return blob.name[:16]
    status = file.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if 0 <= time.time() - status.st_mtime < SETTLED:  # what is written next may leave size and time as they are
        return _sha256(file)[:16]
    if state not in _known:
        _known[state] = _kept(file, state, hashes) if hashes and status.st_size > SMALL else _sha256(file)
    return _known[state][:16]


State = tuple[int, int, int, int]  # of a file: device, inode, size, time
_known: dict[State, str] = {}  # this process's hashes; a content has but one, so that no trial can see another's


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _kept(file: Path, state: State, hashes: Path) -> str:
    """The hash of a large file as it is kept, or else read by one process while the others wait for it."""
    try:
        hashes.mkdir(parents=True, exist_ok=True)
        stream = (hashes / "-".join(map(str, state))).open("a+b", buffering=0)
    except OSError:  # it cannot be kept there: that costs time alone
        return _sha256(file)
    with stream:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        kept = stream.read().decode(errors="replace")
        if HASH.fullmatch(kept):
            return kept
        found = _sha256(file)
        with suppress(OSError):  # a full disk
            stream.truncate(0)
            stream.write(found.encode())
        return found


def text_fingerprint(path: str, key: str, pattern: str | None, hashes: Path | None) -> list[str]:
    """The fingerprints of the text files a path stands for, with their suffixes, which say how they are read.

    Args:
        hashes: where those of large files are kept, as for `fingerprint`.

    Raises:
        ValueError: naming `key`, if there is nothing to read.
    """
    try:
        return [fingerprint(file, hashes) + file.suffix for file in text_files(path, key, pattern)]
    except OSError as error:
        raise ValueError(f"{key}={path}: cannot be read ({error.strerror})") from None


def model_fingerprint(path: str, revision: str | None, hashes: Path | None) -> str:
    """The fingerprint of a model folder or GGUF file, or the revision of a hub model.

    Args:
        hashes: where those of large files are kept, as for `fingerprint`.

    Raises:
        ValueError: for a folder without weights, or a hub id that is neither cached here nor reachable.
    """
    where = Path(path)
    try:
        if where.is_file():
            return fingerprint(where, hashes)
        if where.is_dir():
            found = {file for pattern in MODEL_FILES for file in where.glob(pattern) if not file.is_dir()}
            if not any(file.suffix in WEIGHTS for file in found):
                raise ValueError(f"model.path={path}: a folder without weights; needs {', '.join(WEIGHTS)} files")
            return digest([(file.name, fingerprint(file, hashes)) for file in sorted(found)])
    except OSError as error:
        name = Path(str(error.filename)).name
        raise ValueError(f"model.path={path}: {name} cannot be read ({error.strerror})") from None
    if path.startswith((".", "/", "~")) or path.endswith(WEIGHTS):
        raise ValueError(f"model.path={path}: no such file or folder")
    try:
        return _snapshot(path, "model", revision, ("config.json",)).name
    except Exception as error:  # the client raises errors of its own, and those of its HTTP library
        raise ValueError(
            f"model.path={path}: no file or folder of that name, and not to be had from the hub "
            f"({type(error).__name__}); download the model and give model.path=FOLDER"
        ) from None
