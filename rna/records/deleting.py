"""Deleting trials: shown first, done on demand, and never what another trial or sweep needs or a process holds.

A trial goes with all that is its own: tensors, checkpoint, answers, W&B's local runs, evaluations, and its record last,
so that whatever a kill leaves of it is still listed, and can be deleted by the same command.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from rna.records import columns, files, listing
from rna.records.files import File
from rna.records.listing import Filters, in_bytes
from rna.records.reading import Trained
from rna.store import results
from rna.sweep import ledger

ORDER = ("tensors", "checkpoint", "answers", "other", "wandb", "broken", "failure", "evaluation", "record")
BATCH = 100  # trials whose locks are held at a time: each is an open file


@dataclass
class Doomed:
    """A trial to be deleted."""

    key: str
    title: str
    files: list[File]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


@dataclass
class Plan:
    """What is deleted, and what was asked for and stays, each with the reason."""

    doomed: list[Doomed]
    kept: dict[str, str]
    sweeps: list[str]


def plan(output_dir: str, words: Sequence[str], filters: Filters, sweeps: Sequence[str]) -> Plan:
    """What these KEYs, filters and sweeps together name, and what of it may go.

    Raises:
        ValueError: if nothing was named; for a KEY or a sweep that is not there.
    """
    if not words and not sweeps and not filters.any:
        raise ValueError("delete: give a KEY, --sweep NAME or a filter such as --method npo")
    found = listing.read(output_dir)
    lying = files.of_trials(output_dir)
    chosen = {row["key"] for row in listing.select(found, output_dir, filters, sweeps)}
    if sweeps and not filters.any:  # also what did not come to a record
        chosen |= {key for name in sweeps for key in listing.keys_of(output_dir, name) if key in lying}
    if words:
        named = {results.resolve(output_dir, word) for word in words}
        chosen = named & chosen if sweeps or filters.any else named
    kept = _kept(output_dir, chosen, found.trials, set(sweeps))
    titles = {one.key: _title(one) for one in found.trials}
    order = [*titles, *sorted(chosen - set(titles))]
    doomed = [
        Doomed(key, titles.get(key, "unfinished"), lying.get(key, [])) for key in order if key in chosen - set(kept)
    ]
    return Plan(doomed, kept, list(sweeps))


def _title(one: Trained) -> str:
    row = listing.rows(one)[0]
    noise = f" ν {row['nu']:g}" if row["nu"] else " plain" if row["arm"] == "plain" else ""
    return f"{row['method']}{noise}" + (f" seed {row['seed']}" if row["arm"] in ("plain", "rna") else "")


def _kept(output_dir: str, chosen: set[str], trials: Sequence[Trained], named: set[str]) -> dict[str, str]:
    """The reason for each key of `chosen` that has to stay."""
    kept: dict[str, str] = {}
    running = results.in_flight(output_dir)
    arms = {one.key: one.arm for one in trials}
    for key in chosen & running:
        kept[key] = "a running process holds it"
    if running - set(arms):  # what a trial without a record will be compared with is known to itself alone
        for key in chosen - set(kept):
            if arms.get(key) in ("plain", "base", "retrained"):
                kept[key] = "a running trial may need it"
    for folder in sorted((Path(output_dir) / "sweeps").glob("*/trials")):
        name = folder.parent.name
        if name not in named:
            mine = {trial.address["key"] for trial in ledger.trials(folder.parent) if trial.address}
            kept = dict.fromkeys(chosen & mine, f"sweep {name} has it; with --sweep {name} it goes") | kept
    needs = listing.needs(trials)
    while True:
        going = chosen - set(kept)
        needed = {key: [own for own, others in needs.items() if key in others and own not in going] for key in going}
        more = {key: _whose(arms[key], owners) for key, owners in needed.items() if owners}
        if not more:
            return kept
        kept |= more


def _whose(arm: str, owners: list[str]) -> str:
    what = "plain twin" if arm == "plain" else f"{arm} model"
    others = f" and {len(owners) - 1} more" if len(owners) > 1 else ""
    return f"the {what} of {owners[0]}{others}, which stay{'' if others else 's'}"


def delete(output_dir: str, planned: Plan) -> Plan:
    """Delete what is planned; what somebody took in work since then stays. Returns what was done.

    Raises:
        ValueError: if a sweep that was named is in work, or a file cannot be deleted.
    """
    done: list[Doomed] = []
    kept = dict(planned.kept)
    with ExitStack() as held:
        for name in planned.sweeps:
            held.enter_context(ledger.held(Path(output_dir) / "sweeps" / name))
        for start in range(0, len(planned.doomed), BATCH):
            done += _locked(output_dir, planned.doomed[start : start + BATCH], kept)
    return Plan(done, kept, planned.sweeps)


def _locked(output_dir: str, items: Sequence[Doomed], kept: dict[str, str]) -> list[Doomed]:
    """Delete those whose locks are free, with what was written since they were looked at; returns them."""
    done: list[Doomed] = []
    with ExitStack() as locks:
        for item in items:
            try:
                locks.enter_context(results.single_flight(output_dir, item.key, wait=False))
                done.append(item)
            except results.InFlight:
                kept[item.key] = "a running process holds it"
        lying = files.of_trials(output_dir)
        for item in done:
            item.files = lying.get(item.key, [])
            _delete(output_dir, item)
    return done


def _delete(output_dir: str, item: Doomed) -> None:
    for file in sorted(item.files, key=lambda file: ORDER.index(file.kind)):
        try:
            with suppress(FileNotFoundError):
                shutil.rmtree(file.path) if file.kind == "wandb" else file.path.unlink()
        except OSError as error:
            raise ValueError(
                f"{file.path}: cannot be deleted ({error.strerror}); the rest of it is still there"
            ) from None
        if file.path.parent == Path(output_dir) / "trials" / item.key:
            with suppress(OSError):  # not empty yet
                file.path.parent.rmdir()


# In words


def lines(found: Plan, output_dir: str, *, done: bool) -> list[str]:
    """What goes and what stays, with sizes."""
    made: list[str] = []
    if found.doomed:
        titles = ["key", "trial", "tensors", "evaluations", "W&B runs", "size"]
        cells = [
            [item.key, item.title, _bytes(item, "tensors"), _count(item, "evaluation"), _count(item, "wandb"),
             in_bytes(item.bytes)]
            for item in found.doomed
        ]  # fmt: skip
        made += columns.laid(
            titles, cells, left=titles[:2], spare=["W&B runs", "evaluations", "tensors"], width=columns.width()
        )
    made += [f"kept: {key}: {why}" for key, why in sorted(found.kept.items())]
    total = in_bytes(sum(item.bytes for item in found.doomed))
    count = f"{len(found.doomed)} trial" + ("" if len(found.doomed) == 1 else "s")
    runs = [file.path for item in found.doomed for file in item.files if file.kind == "wandb"]
    if not done and (waiting := [path for path in runs if path.name.startswith("offline-") and not _uploaded(path)]):
        made.append(f"{len(waiting)} of {len(runs)} W&B runs were never uploaded: python -m rna.track sync does it")
    made += [f"stays: {Path(output_dir) / 'sweeps' / name}, the ledger and logs" for name in found.sweeps]
    if done:
        return [*made, f"deleted: {count}, {total}"]
    return [*made, f"would delete {count}, {total}; nothing was deleted, --yes does it"]


def _bytes(item: Doomed, kind: str) -> str:
    total = sum(file.bytes for file in item.files if file.kind == kind)
    return in_bytes(total) if total else "–"


def _count(item: Doomed, kind: str) -> str:
    return str(sum(file.kind == kind for file in item.files) or "–")


def _uploaded(folder: Path) -> bool:
    return any(folder.glob("*.wandb.synced"))
