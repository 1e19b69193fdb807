"""Where inputs lie and what identifies them: text files, model folders, hub revisions, and their fingerprints."""

import hashlib
import json
import re
from pathlib import Path

TEXT_FILES = (".txt", ".jsonl", ".parquet")
TOKENIZER_FILES = ("*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json")
MODEL_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", "tokenizer*", *TOKENIZER_FILES)
WEIGHTS = (".safetensors", ".bin", ".gguf")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SMALL = 64 * 2**20  # bytes up to which a file's fingerprint is its content's hash


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
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    wanted = [pattern] if pattern else [f"*{suffix}" for suffix in TEXT_FILES]
    try:
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns=wanted))
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


def fingerprint(file: Path) -> str:
    """What identifies a file: its content's hash, or for a large one its size, time and first 64 KiB."""
    status = file.stat()
    hashed = hashlib.sha256()
    with file.open("rb") as stream:
        if status.st_size <= SMALL:
            hashed.update(stream.read())
        else:
            hashed.update(f"{status.st_size} {status.st_mtime_ns}".encode())
            hashed.update(stream.read(65536))
    return hashed.hexdigest()[:16]


def text_fingerprint(path: str, key: str, pattern: str | None = None) -> list[str]:
    """The fingerprints of the text files a path stands for, with their suffixes, which say how they are read.

    Raises:
        ValueError: naming `key`, if there is nothing to read.
    """
    try:
        return [fingerprint(file) + file.suffix for file in text_files(path, key, pattern)]
    except OSError as error:
        raise ValueError(f"{key}={path}: cannot be read ({error.strerror})") from None


def model_fingerprint(path: str, revision: str | None) -> str:
    """The fingerprint of a model folder or GGUF file, or the revision of a hub model.

    Raises:
        ValueError: for a folder without weights, or a hub id that is neither cached here nor reachable.
    """
    where = Path(path)
    try:
        if where.is_file():
            return fingerprint(where)
        if where.is_dir():
            found = {file for pattern in MODEL_FILES for file in where.glob(pattern) if not file.is_dir()}
            if not any(file.suffix in WEIGHTS for file in found):
                raise ValueError(f"model.path={path}: a folder without weights; needs {', '.join(WEIGHTS)} files")
            return digest([(file.name, fingerprint(file)) for file in sorted(found)])
    except OSError as error:
        name = Path(str(error.filename)).name
        raise ValueError(f"model.path={path}: {name} cannot be read ({error.strerror})") from None
    if path.startswith((".", "/", "~")) or path.endswith(WEIGHTS):
        raise ValueError(f"model.path={path}: no such file or folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=["config.json"])).name
    except Exception as error:  # the client raises errors of its own, and those of its HTTP library
        raise ValueError(
            f"model.path={path}: no file or folder of that name, and not to be had from the hub "
            f"({type(error).__name__}); download the model and give model.path=FOLDER"
        ) from None
