"""Where inputs lie and what identifies them: text files, model folders, hub revisions, and their fingerprints."""

import fcntl
import fnmatch
import functools
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from rna.corpora.names import (
    PACKED,
    SAME,
    TEXT_FILES,
    is_about,
    is_own,
    is_text,
    kind_of,
    missing_shards,
    shards,
    worth_saying,
)
from rna.settings import architecture

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
}
DEPTH = 4  # folders below the one that is given, at most, in which files are looked for
TOKENIZER_FILES = (
    *("*.model", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json"),
    *("tekken.json", "*.tiktoken"),
)
MODEL_FILES = ("*.safetensors", "*.bin", "*.gguf", "config.json", "tokenizer*", *TOKENIZER_FILES)
WEIGHTS = (".safetensors", ".bin", ".gguf")
SHARD = re.compile(r"(model|pytorch_model)-\d+-of-\d+\.(safetensors|bin)")  # as save_pretrained names them
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HASH = re.compile(r"[0-9a-f]{64}")
SMALL = 64 * 2**20  # bytes above which a file's hash is kept between processes
SETTLED = 2.0  # seconds after which a file that is written again has another time, on the coarsest of file systems


def digest(value: object) -> str:
    """A short hash of a value that JSON can write, the same for the same value on every machine."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def text_files(path: str, key: str, pattern: str | None = None, usual: str | None = None) -> list[Path]:
    """The text files a path stands for: itself, those of a folder, or those of a hub data set, sorted.

    Of a folder these are the files at its top, or, where there are none, all that lie up to three folders below it
    (`data/train-….parquet`). Hidden files never count, and those that speak of the others (README.txt, LICENSE-MIT.txt)
    only where a pattern stands for nothing else. `left_out` tells what is not read.

    Args:
        pattern: which files of the folder, such as `train*` or `data/*.jsonl`.
        usual: the same for a hub data set whose layout is known; a folder without such files is read as any other.

    Raises:
        ValueError: naming `key`, if there is nothing to read, if a shard of what is read is missing, or if not all of
            it can be meant: files of several kinds, splits or folders, with the pattern to give.
    """
    try:
        return _text_files(path, key, pattern, usual)
    except OSError as error:
        raise ValueError(f"{key}={path}: cannot be read ({error.strerror})") from None


def named_file(path: str, key: str, stem: str) -> Path:
    """The one file of a folder or hub data set that is called `stem`, in any format that texts are read from.

    Raises:
        ValueError: naming `key`, if there is none, or several.
    """
    folder = Path(path) if Path(path).exists() else hub_dataset(path, key, f"{stem}.*")
    found = sorted(file for file in folder.glob(f"{stem}.*") if kind_of(file.name))
    if len(found) == 1:
        return found[0]
    there = folded([file.name for file in found]) if found else _listed(folder) if folder.is_dir() else "a file"
    raise ValueError(f"{key}={path}: needs one file {stem}.json, .jsonl, .csv or .parquet; there: {there}")


def left_out(path: str, key: str, pattern: str | None = None, usual: str | None = None) -> list[str]:
    """Names of files in the folder that `text_files` does not read, though they may hold texts; of those that a pattern
    stands for, where there is one. Raises ValueError as it does."""
    where, read = Path(path), text_files(path, key, pattern, usual)
    if where.is_file():
        return []
    folder = where if where.is_dir() else hub_dataset(path, key, pattern or usual)
    chosen = pattern or (usual if usual and _matching(folder, usual) else None)
    if chosen is not None:
        every = [] if (folder / chosen).exists() else list(folder.glob(chosen))
    else:
        every = [file for depth in range(DEPTH) for file in folder.glob("*/" * depth + "*")]
    beside = {file for file in every if _visible(folder, file) and worth_saying(file.name)}
    return sorted(str(file.relative_to(folder)) for file in beside.difference(read) if file.is_file())


def _text_files(path: str, key: str, pattern: str | None, usual: str | None) -> list[Path]:
    where = Path(path)
    allowed = f"allowed: a {', '.join(TEXT_FILES)} file, also as {', '.join(PACKED)}, or a folder of them"
    if path and where.is_dir():
        return _in_folder(where, path, key, pattern, usual)
    if path and where.is_file():
        if kind_of(where.name) is None:
            raise ValueError(f"{key}={path}: cannot read a '{where.suffix}' file; {allowed}")
        if pattern is not None and not fnmatch.fnmatch(where.name, pattern):
            raise ValueError(f"{_files_key(key)}={pattern}: is not the file that {key}={path} names; leave it out")
        return [where]
    if HUB_ID.fullmatch(path) and kind_of(path) is None and not where.is_symlink():
        return _in_folder(hub_dataset(path, key, pattern or usual), path, key, pattern, usual)
    if path and (where.is_symlink() or where.exists()):
        raise ValueError(f"{key}={path}: {_fault(where)}; {allowed}")
    raise ValueError(f"{key}={path}: no such file or folder; {allowed}")


def _fault(file: Path) -> str | None:
    """Why what has a file's name is none, or None."""
    if file.is_symlink() and not file.exists():
        return f"{file.name} is a broken link (to {file.readlink()})"
    return None if file.is_file() or file.is_dir() else f"{file.name} is neither a file nor a folder"


def _files_key(key: str) -> str | None:
    """Where a user says which files of a folder are meant: beside a corpus's path."""
    return f"{key.removesuffix('.path')}.files" if key.endswith(".path") else None


def _in_folder(folder: Path, path: str, key: str, pattern: str | None, usual: str | None) -> list[Path]:
    files_key = _files_key(key)
    chosen = _matching(folder, usual) if usual is not None and pattern is None else list[Path]()
    if pattern is not None:
        if not pattern or pattern.startswith(("/", "~")) or ".." in Path(pattern).parts:
            raise ValueError(f"{files_key}={pattern}: must lie in {path}; allowed: such as train* or data/*.jsonl")
        try:
            chosen = _matching(folder, pattern)
        except (ValueError, NotImplementedError, IndexError) as error:
            raise ValueError(f"{files_key}={pattern}: is no pattern ({error}); allowed: such as train*") from None
        if not chosen:
            raise ValueError(f"{files_key}={pattern}: no such file to read in {path}; there: {_listed(folder)}")
    asked = bool(chosen)
    chosen = chosen or _at_top(folder)
    chosen = chosen or [
        file for depth in range(1, DEPTH) for file in folder.glob("*/" * depth + "*") if _counts(folder, file)
    ]
    chosen = sorted(chosen)
    if not chosen:
        about = next((file.name for file in sorted(folder.iterdir()) if kind_of(file.name) and is_about(file.name)), "")
        meant = f"{files_key}='{about}' if it is no file about others, or " if about and files_key else ""
        raise ValueError(
            f"{key}={path}: a folder without text files (there: {_listed(folder)}); "
            f"allowed: {meant}{', '.join(TEXT_FILES)} files, also as {', '.join(PACKED)}"
        )
    for fault in filter(None, map(_fault, chosen)):
        raise ValueError(f"{key}={path}: {fault}")
    if all(kind_of(file.name) is None for file in chosen):
        how = "under this name" if chosen[0].suffix[1:].isdigit() else "before it is unpacked"
        raise ValueError(f"{key}={path}: {chosen[0].name} cannot be read {how}")
    if (parts := _parted(folder, chosen, asked=asked)) is not None:
        what, groups = parts
        names = folded([f"{name or 'others'} ({len(files)})" for name, files in groups.items()])
        wanted = next(iter(groups.values()))
        one = _pattern_of(folder, wanted)
        give = f"{files_key}='{one}'" if files_key else f"{key}={path}/{wanted[0].relative_to(folder)}"
        every = (
            f", or {files_key}='{_pattern_of(folder, chosen)}' for all"
            if files_key and what in ("splits", "folders")
            else ""
        )
        raise ValueError(f"{key}={path}: holds files of several {what}: {names}; give {give}{every}")
    missing = [*missing_shards(chosen), *_missing_of_saved(chosen)]
    names = sorted({str(file.relative_to(folder)) for file in missing})
    if absent := [name for name in names if _stands_for(pattern or (usual if asked else None), name)]:
        other = f", or name with {files_key} those that are to be read" if files_key else ""
        raise ValueError(f"{key}={path}: without {folded(absent)}, which its other files count; fetch it{other}")
    return chosen


def _missing_of_saved(files: list[Path]) -> list[Path]:
    """Files that `datasets.save_to_disk` wrote beside these, as its state.json has them, and that are gone."""
    missing: list[Path] = []
    for folder in sorted({file.parent for file in files if file.suffix == ".arrow"}):
        try:
            listed = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
            missing += [folder / one["filename"] for one in listed if not (folder / one["filename"]).exists()]
        except (OSError, ValueError, KeyError, TypeError):  # none, or another program's
            continue
    return missing


def _stands_for(pattern: str | None, name: str) -> bool:
    """Whether a pattern stands for a file of this name that does not exist; a user who names others leaves it out."""
    if pattern is None:
        return True
    within = f"{pattern.rstrip('/')}/*"
    return any(fnmatch.fnmatch(name, one) for one in (pattern, pattern.replace("**/", ""), within))


def _parted(folder: Path, files: list[Path], *, asked: bool) -> tuple[str, dict[str, list[Path]]] | None:
    """What parts files that are hardly all meant, and the files of each part; None for those that belong together.

    Files that were asked for by a pattern may be of several splits or folders, but never of several kinds.
    """
    by_kind: dict[str, list[Path]] = {}
    for file in files:
        kind = kind_of(file.name)
        by_kind.setdefault(f".{kind.split('.')[1]}" if kind else file.suffix.lower(), []).append(file)
    if len(by_kind) > 1:
        readable = sorted(by_kind, key=lambda kind: (kind not in TEXT_FILES, kind == ".txt", -len(by_kind[kind]), kind))
        return "kinds", {kind: by_kind[kind] for kind in readable}
    bare: dict[str, list[Path]] = {}
    for file in files:
        kind = kind_of(file.name) or ""
        bare.setdefault(str(file.with_suffix("")) if kind.endswith(PACKED) else str(file), []).append(file)
    if twice := [pair for pair in bare.values() if len(pair) > 1]:
        both = {file.name: [file] for file in twice[0]}
        return "packings of the same", both
    for by_total in shards(files).values():
        if len(by_total) > 1:  # what an earlier writing left behind
            return "countings", {f"of {total}": list(found.values()) for total, found in by_total.items()}
    if asked:
        return None
    by_split: dict[str, list[Path]] = {}
    for file in files:
        words = re.findall("[a-z]+", str(file.relative_to(folder)).lower())
        by_split.setdefault(next((SPLITS[word] for word in words if word in SPLITS), ""), []).append(file)
    if len(set(by_split) - {""}) > 1:
        order = [*dict.fromkeys(SPLITS.values()), ""]
        return "splits", {split: by_split[split] for split in order if split in by_split}
    by_folder: dict[str, list[Path]] = {}
    for file in files:
        by_folder.setdefault(str(file.parent.relative_to(folder)), []).append(file)
    return ("folders", by_folder) if len(by_folder) > 1 else None


def _pattern_of(folder: Path, files: list[Path]) -> str:
    """A pattern that stands for these files of a folder and no others: the shortest that comes to mind."""
    names = [str(file.relative_to(folder)) for file in files]
    shared = os.path.commonprefix(names)  # noqa: RUF071 - characters are meant
    suffix = kind_of(names[0]) or ""
    letters = re.match(r"(.*/)?[A-Za-z]*", shared)
    tried = [f"*{suffix}", f"*{suffix}*", f"{letters[0] if letters else shared}*", f"{shared}*", f"**/*{suffix}"]
    end = os.path.commonprefix([name[::-1] for name in names])[::-1]  # noqa: RUF071
    tried += [f"*{end}", f"{shared}*{end}", f"**/*{end}"]
    return next((one for one in tried if sorted(_matching(folder, one)) == sorted(files)), names[0])


def _matching(folder: Path, pattern: str) -> list[Path]:
    """A folder's files by a pattern, or the one file, or the files of the one folder, that has this very name."""
    exact = folder / pattern
    if exact.is_file() and kind_of(exact.name):
        return [exact]
    if exact.is_dir():
        return _at_top(exact)
    found = [file for file in folder.glob(pattern) if _readable(folder, file)]
    return [file for file in found if not is_about(file.name)] or found


def _at_top(folder: Path) -> list[Path]:
    return [file for file in folder.iterdir() if _counts(folder, file)]


def _counts(folder: Path, file: Path) -> bool:
    """Whether a file is one of texts, or would be if it could be read."""
    return _readable(folder, file) and not is_about(file.name)


def _readable(folder: Path, file: Path) -> bool:
    return _visible(folder, file) and is_text(file.name) and not is_own(file.name) and not file.is_dir()


def _visible(folder: Path, file: Path) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts)


def _listed(folder: Path) -> str:
    """What a folder holds, folded."""
    return folded(sorted(file.name + "/" * file.is_dir() for file in folder.iterdir())) or "nothing"


def folded(names: list[str]) -> str:
    """Names in one line, of many the first ones and the last."""
    return ", ".join(names if len(names) <= 5 else [*names[:3], "…", names[-1]])


def hub_dataset(name: str, key: str, pattern: str | None) -> Path:
    """The local copy of a hub data set's files, fetched if need be; HF_HUB_OFFLINE=1 takes what is there.

    Raises:
        ValueError: saying what to fetch, from where, and which override points at it.
    """
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError

    wanted = (
        (pattern,)
        if pattern
        else tuple(f"*{suffix}{packed}" for suffix in (*TEXT_FILES, *SAME) for packed in ("", *PACKED))
    )
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
        hashes: where the hashes of large files are kept, by the file's device, inode, size and times; None: nowhere.
    """
    blob = Path(os.path.realpath(file))
    if blob.parent.name == "blobs" and HASH.fullmatch(blob.name):
        return blob.name[:16]
    status = file.stat()
    state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    if 0 <= time.time() - status.st_mtime < SETTLED:  # what is written next may leave size and time as they are
        return _sha256(file)[:16]
    if state not in _known:
        _known[state] = _kept(file, state, hashes) if hashes and status.st_size > SMALL else _sha256(file)
    return _known[state][:16]


State = tuple[int, int, int, int, int]  # of a file: device, inode, size, when written, when changed in any way
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


def text_fingerprint(
    path: str, key: str, pattern: str | None, hashes: Path | None, usual: str | None = None
) -> list[str]:
    """The fingerprints of the text files a path stands for, with their kinds, which say how they are read.

    Args:
        pattern, usual: which files, as for `text_files`.
        hashes: where those of large files are kept, as for `fingerprint`.

    Raises:
        ValueError: naming `key`, if there is nothing to read.
    """
    found: list[str] = []
    for file in text_files(path, key, pattern, usual):
        try:
            found.append(f"{fingerprint(file, hashes)}{kind_of(file.name)}")
        except OSError as error:
            raise ValueError(f"{key}={path}: {file.name} cannot be read ({error.strerror})") from None
    return found


def chat_fingerprint(path: str) -> list[tuple[str, str]]:
    """The names and fingerprints of a model folder's chat templates, where they are files of their own.

    Those within tokenizer_config.json or a GGUF file, and the hub's, are in the model's fingerprint.
    """
    folder = Path(path)
    found = [file for pattern in architecture.CHAT_FILES for file in folder.glob(pattern) if file.is_file()]
    return [(str(file.relative_to(folder)), fingerprint(file, None)) for file in sorted(found)]


def _shards(folder: Path, said: str) -> set[str]:
    """The files among which an index parts a folder's weights; none where the weights are one file."""
    chosen = architecture.chosen_weights(folder)
    return set(architecture.shards_of(folder / chosen, said).values()) if chosen and chosen.endswith(".json") else set()


def model_fingerprint(path: str, revision: str | None, hashes: Path | None, *, key: str = "model.path") -> str:
    """The fingerprint of a model folder or GGUF file, the revision of a hub model, or what names one in memory.

    Which files an index names counts where it is not all shards of the usual names: nothing else of it is read.

    Args:
        hashes: where those of large files are kept, as for `fingerprint`.

    Raises:
        ValueError: for a folder without weights, or a hub id that is neither cached here nor reachable.
    """
    if path.startswith(architecture.LOADED):
        return path
    where = Path(path)
    try:
        if where.is_file():
            return fingerprint(where, hashes)
        if where.is_dir():
            found = {file for pattern in MODEL_FILES for file in where.glob(pattern) if not file.is_dir()}
            shards = _shards(where, f"{key}={path}")
            found |= {file for name in shards if (file := where / name).is_file()}
            if not any(file.suffix in WEIGHTS for file in found):
                raise ValueError(f"{key}={path}: a folder without weights; needs {', '.join(WEIGHTS)} files")
            parts = [(file.relative_to(where).as_posix(), fingerprint(file, hashes)) for file in sorted(found)]
            usual = {file.name for file in found if file.parent == where and SHARD.fullmatch(file.name)}
            return digest(parts if not shards or shards == usual else [*parts, ("shards", *sorted(shards))])
    except OSError as error:
        name = Path(str(error.filename)).name
        raise ValueError(f"{key}={path}: {name} cannot be read ({error.strerror})") from None
    if path.startswith((".", "/", "~")) or path.endswith(WEIGHTS):
        raise ValueError(f"{key}={path}: no such file or folder")
    try:
        return _snapshot(path, "model", revision, ("config.json",)).name
    except Exception as error:  # the client raises errors of its own, and those of its HTTP library
        raise ValueError(
            f"{key}={path}: no file or folder of that name, and not to be had from the hub "
            f"({type(error).__name__}); download the model and give {key}=FOLDER"
        ) from None
