"""What a file's name says: how it is read, whether it speaks of the others, and which it is of how many."""

import re
from collections.abc import Iterable
from pathlib import Path

TEXT_FILES = (".txt", ".jsonl", ".parquet", ".json", ".csv", ".tsv", ".arrow")
BINARY = (".parquet", ".arrow")  # which pack their columns themselves
PACKED = (".gz", ".bz2", ".xz", ".zst")
SAME = {".ndjson": ".jsonl"}
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".lz4", ".lzma")  # none is read
UNREAD = re.compile(  # texts all the same: a packing by another name, a part of a packed file, an older log
    rf".*({'|'.join(map(re.escape, (*TEXT_FILES, *SAME)))})(\.\w+)?\.(\d+|zstd|gzip|bzip2|br|z|lz|lzo|sz|snappy)",
    re.IGNORECASE,
)
OTHER = re.compile(  # texts, perhaps, in a format that is not read, or beside a text of that name: a.jsonl.bak
    r".*\.(md|markdown|text|rst|tex|log|html?|xml|pdf|docx?|rtf|odt|epub|xlsx?|feather|orc|avro|jsonlines)(\.\w+)?"
    rf"|.*({'|'.join(map(re.escape, (*TEXT_FILES, *SAME)))})\.\w+",
    re.IGNORECASE,
)
ABOUT = re.compile(  # whole names of files that speak of the others, before their .txt; of data they are other words
    r"readme|licen[cs]e(-(mit|apache|bsd|[al]?gpl|mpl|cc)[\w.-]*)?|copying|notice|changelog|citation|authors"
    r"|contributing|requirements|(md5|sha\d+)sums?",
    re.IGNORECASE,
)
OWN = re.compile(  # what `datasets` and the hub keep beside the rows
    r"(dataset_infos?|dataset_dict|state)\.json|cache-.*\.arrow", re.IGNORECASE
)
SHARD = re.compile(r"(?P<head>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<tail>.*)", re.IGNORECASE)
MOST = 100_000  # shards that there may be

Shards = dict[tuple[Path, str, str], dict[str, dict[str, Path]]]  # by place and name: by their total, by their number


def kind_of(name: str) -> str | None:
    """How a file of this name is read: `.jsonl`, `.jsonl.gz`; None for one that cannot be."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in PACKED else ""
    bare = SAME.get(suffixes[-1], suffixes[-1]) if suffixes else ""
    return bare + packed if bare in TEXT_FILES and not (packed and bare in BINARY) else None


def is_text(name: str) -> bool:
    """Whether a file of this name is one of texts, or would be if it could be read."""
    return kind_of(name) is not None or name.lower().endswith(ARCHIVES) or UNREAD.fullmatch(name) is not None


def is_about(name: str) -> bool:
    """Whether a file speaks of the others: README.txt, LICENSE-MIT.txt, metadata.json."""
    kind, stem = kind_of(name) or "", Path(name).stem
    stem = (Path(stem).stem if kind.endswith(PACKED) else stem).lower()
    if kind.startswith(".json"):
        return stem == "readme" or (kind == ".json" and stem in ("metadata", "croissant"))
    return (not kind or kind.startswith(".txt")) and ABOUT.fullmatch(stem) is not None


def is_own(name: str) -> bool:
    """Whether `datasets` or the hub wrote a file for themselves."""
    return OWN.fullmatch(name) is not None


def worth_saying(name: str) -> bool:
    """Whether a user should know that a file of this name was not read."""
    if is_own(name):
        return False
    return is_text(name) or (OTHER.fullmatch(name) is not None and not is_about(name))


def shards(files: Iterable[Path]) -> Shards:
    """The files that are each one of many by their names, `train-00002-of-00004.parquet`, with or without a hash."""
    found: Shards = {}
    for file in files:
        named = SHARD.fullmatch(file.name)
        if named is None or not 0 < int(named["total"]) <= MOST:
            continue
        tail = re.sub(r"-[0-9a-f]{8,}(?=\.|$)", "", named["tail"])
        tail = next((tail.removesuffix(packed) for packed in PACKED if tail.endswith(packed)), tail)
        place = (file.parent, named["head"], tail)
        found.setdefault(place, {}).setdefault(named["total"], {})[named["number"]] = file
    return found


def missing_shards(files: Iterable[Path]) -> list[Path]:
    """The shards that these files' names count, from 0 or from 1, and that are not among them."""
    missing: list[Path] = []
    for (folder, head, tail), by_total in shards(files).items():
        for total, found in by_total.items():
            present, width = set(map(int, found)), len(next(iter(found)))
            first = int(int(total) in present and 0 not in present)
            numbers = (number for number in range(first, int(total) + first) if number not in present)
            missing += [folder / f"{head}{number:0{width}}-of-{total}{tail}" for number in numbers]
    return missing
