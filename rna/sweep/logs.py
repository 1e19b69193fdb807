"""`python -m rna.sweep logs`: what a trial printed, and with --follow what it prints until it is over."""

import codecs
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rna.sweep import ledger
from rna.sweep.ledger import Trial
from rna.sweep.records import current

UTF8 = codecs.getincrementaldecoder("utf-8")
LOOKED = 0.5  # seconds between two looks at a log that is followed


def files(folder: Path, trial: Trial) -> list[Path]:
    """The trial's log, behind it what the cluster and the job's own script said, or Hydra's logs of a single job."""
    own = [Path(trial.log)] if trial.log else sorted((folder / "logs" / str(trial.number)).glob("*.log"))
    if trial.log and trial.job:
        jobs = Path(trial.log).parents[1] / "slurm"
        own += [jobs / f"{trial.job}_0_log.{kind}" for kind in ("out", "err")]
    return [file for file in own if file.is_file()]


def logs(folder: Path, number: int) -> dict[str, Any]:
    """A trial's logs as they stand.

    Raises:
        ValueError: for a number that is no trial's, and for a trial without a log.
    """
    trial = _trial(folder, number)
    found = [
        {"path": str(file), "text": file.read_text(encoding="utf-8", errors="replace")} for file in files(folder, trial)
    ]
    if not found:
        raise ValueError(_without(folder, trial))
    return {"number": number, "name": trial.name, "status": trial.status, "files": found}


def log_lines(found: dict[str, Any]) -> list[str]:
    several = len(found["files"]) > 1
    lines: list[str] = []
    for file in found["files"]:
        lines += [f"==> {file['path']} <=="] if several else []
        lines += file["text"].rstrip("\n").split("\n")
    return lines


def follow(folder: Path, number: int) -> Iterator[str]:
    """A trial's logs piece by piece, until it is over or nobody works on it.

    Raises:
        ValueError: for a number that is no trial's, and for a trial whose end left no log.
    """
    read: dict[Path, tuple[int, codecs.IncrementalDecoder]] = {}
    last: Path | None = None
    while True:
        trial = _trial(folder, number)
        # Looked up before its last words are read: it has records before them, and its sweeper knows when it has ended.
        ends = _settled(folder, number) if ledger.at_work(folder) else trial.over or not trial.job
        there = files(folder, trial)
        for file in there:
            start, decoder = read.get(file) or (0, UTF8(errors="replace"))
            content = _behind(file, start)
            read[file] = start + len(content), decoder
            if text := decoder.decode(content):
                if len(there) > 1 and file != last:
                    yield f"==> {file} <==\n"
                last = file
                yield text
        if ends and not read:
            raise ValueError(_without(folder, trial))
        if ends:
            return
        time.sleep(LOOKED)


def print_followed(folder: Path, number: int) -> None:
    for text in follow(folder, number):
        sys.stdout.write(text)
        sys.stdout.flush()


def _trial(folder: Path, number: int) -> Trial:
    trials = current(folder)
    found = next((trial for trial in trials if trial.number == number), None)
    if found is None:
        numbers = [trial.number for trial in trials]
        allowed = f"{min(numbers)} to {max(numbers)}" if numbers else "none, no trial was begun"
        raise ValueError(f"{number}: is no trial's number in {folder.name}; allowed: {allowed}")
    return found


def _settled(folder: Path, number: int) -> bool:
    """Whether the sweeper has seen a trial's end."""
    return any(trial.over for trial in ledger.trials(folder) if trial.number == number)


def _behind(file: Path, start: int) -> bytes:
    """What a file has gained since `start`."""
    with file.open("rb") as stream:
        stream.seek(start)
        return stream.read()


def _without(folder: Path, trial: Trial) -> str:
    if trial.status == ledger.QUEUED:
        return f"#{trial.number} {trial.name}: has not begun, and has no log yet"
    if trial.log:
        return f"#{trial.number} {trial.name}: its log is not there ({trial.log})"
    return (
        f"#{trial.number} {trial.name}: has no log of its own in {folder / 'logs'}: Hydra's own launcher lets trials "
        "print where the sweep does; hydra/launcher=gpu_pool keeps a log of each, hydra/job_logging=default Hydra's"
    )
