"""`python -m rna.records`: trials found again: a table, two side by side, what they take on disk, or packed up.

`list` is what it does without a word. A KEY may be given by its first letters, four at least.
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rna import printing
from rna.ends import guarded
from rna.records import columns, deleting, disk, listing
from rna.records.listing import Filters, in_bytes


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. A mistake ends in one line and exit code 2."""
    printing.prepare()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help")):
        words.insert(0, "list")
    options = _parser().parse_args(words)
    guarded(lambda: _run(options))


def _parser() -> printing.Parser:
    parser = printing.Parser(prog=printing.program("records"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    common = printing.Parser(add_help=False)
    common.add_argument("--output-dir", default="outputs", help="where the records lie (outputs)")
    scripts = printing.Parser(add_help=False)
    scripts.add_argument("--json", action="store_true", help="for scripts, with every field")
    chosen = printing.Parser(add_help=False)
    helps: dict[str, tuple[type, str]] = {
        "method": (str, "rmu, adaptive_rmu, rsv, npo, simnpo, dpo, none, …"),
        "retain": (str, "retain loss: mse, kl, representation"),
        "nu": (float, "noise scale; 0: plain"),
        "seed": (int, "seeds"),
        "model": (str, "a model's name"),
        "arm": (str, ", ".join(listing.ARMS)),
        "sweep": (str, "a sweep's trials, their plain twins and references"),
    }
    for name, (kind, text) in helps.items():
        chosen.add_argument(f"--{name}", nargs="+", default=[], type=kind, help=text)
    listed = commands.add_parser("list", parents=[common, scripts, chosen], help="the table, the newest last")
    listed.add_argument("--sort", default="age", metavar="COLUMN", help="or any field that --json shows; ascending")
    compared = commands.add_parser("compare", parents=[common, scripts], help="two trials side by side")
    compared.add_argument("keys", nargs=2, metavar="KEY")
    deleted = commands.add_parser("delete", parents=[common, chosen], help="show what would be deleted; --yes does it")
    deleted.add_argument("keys", nargs="*", metavar="KEY")
    deleted.add_argument("--yes", action="store_true", help="delete it")
    commands.add_parser("disk", parents=[common, scripts], help="what takes how much room")
    packed = commands.add_parser(
        "pack", parents=[common], help="records as one small file, for python -m rna.report --from"
    )
    packed.add_argument("file", type=Path, metavar="FILE", help="NAME.jsonl.xz, which must not exist yet")
    packed.add_argument("names", nargs="*", metavar="SWEEP", help="of these sweeps; none: all")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.command == "list":
        return show(options)
    if options.command == "compare":
        from rna.records import comparing  # which needs numpy

        found = comparing.compare(options.output_dir, *options.keys)
        return print(json.dumps(found.plain())) if options.json else print("\n".join(comparing.lines(found)))
    if options.command == "delete":
        plan = deleting.plan(options.output_dir, options.keys, _filters(options), options.sweep)
        if options.yes:
            plan = deleting.delete(options.output_dir, plan)
        return print("\n".join(deleting.lines(plan, options.output_dir, done=options.yes)))
    if options.command == "pack":
        from rna.report import packed, records

        keys = set[str]().union(*(records.keys_of(options.output_dir, name) for name in options.names))
        count = packed.pack(options.output_dir, options.file, keys if options.names else None)
        return print(f"{options.file}: {count} records, {in_bytes(options.file.stat().st_size)}")
    found = disk.usage(options.output_dir)
    print(json.dumps(found) if options.json else "\n".join(disk.lines(found)))


def _filters(options: argparse.Namespace) -> Filters:
    return Filters(*(tuple(getattr(options, name)) for name in listing.COLUMN_OF))


def show(options: argparse.Namespace) -> None:
    """The table, and below it what it leaves out."""
    read = listing.read(options.output_dir)
    rows = listing.ordered(listing.select(read, options.output_dir, _filters(options), options.sweep), options.sort)
    if options.json:
        return print(json.dumps(rows))
    if not rows:
        return print(_none(read, options.output_dir), file=sys.stderr)
    first = ["model"] if len({row["model.name"] for row in rows}) == 1 else []  # which is said below the table
    lines = columns.laid(
        listing.TITLES,
        listing.cells(rows, datetime.now(UTC)),
        left=["key", "method", "model"],
        spare=[*first, "size", "age", *(["model"] if not first else []), "seed", "forget", "retain"],
        width=columns.width(),
    )
    print("\n".join([*lines, *columns.wrapped(_notes(rows, read), columns.width())]))


def _notes(rows: list[dict[str, Any]], read: listing.Read) -> list[str]:
    models = {str(row["model.name"]) for row in rows}
    said = f"{len(rows)} of {len(read.trials)} trials" if len(rows) < len(read.trials) else f"{len(rows)} trials"
    said += f", model {models.pop()}" if len(models) == 1 else ""
    notes = [f"{said}, {in_bytes(sum({row['key']: row['bytes'] for row in rows}.values()))}"]
    if any(row["judged_otherwise"] for row in rows):
        notes[0] += "; *: judged in several ways, the last is shown"
    if read.failures:
        notes.append(f"{len(read.failures)} attempts failed: results/{read.failures[-1]}.json is the last by name")
    if read.unreadable:
        notes.append(f"{len(read.unreadable)} files cannot be read as records, such as {read.unreadable[0]}")
    return notes


def _none(read: listing.Read, output_dir: str) -> str:
    if not read.trials:
        return f"no trials in {output_dir}/results yet; python -m rna.run makes one"
    rows = [row for trained in read.trials for row in listing.rows(trained)]
    there = [
        f"--{name}: {', '.join(map(str, sorted({row[column] for row in rows})[:12]))}"
        for name, column in listing.COLUMN_OF.items()
    ]
    return f"{len(read.trials)} trials in {output_dir}/results, none passes the filters; there are\n" + "\n".join(there)


if __name__ == "__main__":
    gc.disable()  # all that is read stays until the end, a second away, and to look through it again costs a third more
    main()
