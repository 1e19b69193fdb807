"""`python -m rna.report [NAME …]`: every table, every figure and one HTML page from the records; torch is not needed.

Without a NAME all records are shown; a NAME is a sweep's. Filters keep what they name: `--method npo --seed 0 1`.
`python -m rna.report replication [NAME …]`: the paper's claims, each with a number and a verdict;
`python -m rna.report defences [NAME …]`: all that claims to protect, side by side where it has forgotten alike; both
with `--shipped` by records that come with the package. `python -m rna.report probes [NAME …]`: what probes bring back
of what was forgotten. A sweep of that name is shown by `python -m rna.report -- defences`.
"""

import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from rna import printing
from rna.report import (
    commands,
    compare,
    defences,
    drawing,
    figures,
    page,
    probes,
    reading,
    records,
    replication,
    sheet,
    tables,
    verdicts,
)
from rna.report import packed as packing
from rna.report.page import Chapter
from rna.report.reading import Loaded
from rna.report.records import Filters, Study, Trial

MAX_DRAWN = 3  # studies whose figures are drawn; the others have tables
MANY = 2000  # records whose reading is worth a word on the way


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. A mistake ends in one line and exit code 2."""
    printing.prepare()
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = printing.Parser(prog=printing.program("report"), description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="sweeps; none: all records")
    kinds = {"layer": int, "seed": int}
    helps = {
        "method": "rmu, adaptive_rmu, rsv, npo, simnpo, dpo",
        "retain": "retain loss: mse, kl, representation",
        "noise": "rna or none",
        "layer": "unlearn layer",
        "model": "a model's name",
        "seed": "seeds",
    }
    for item in fields(Filters):
        parser.add_argument(
            f"--{item.name}", nargs="+", default=[], type=kinds.get(item.name, str), help=helps[item.name]
        )
    parser.add_argument("--output-dir", default="outputs", help="where the records lie (outputs)")
    parser.add_argument("--from", dest="packed", nargs="+", default=[], metavar="FILE", help="packed records instead")
    alone = {defences.NAME: defended, probes.NAME: probed, replication.NAME: replicated}.get(words[0] if words else "")
    if alone in (replicated, defended):
        parser.add_argument("--shipped", action="store_true", help="the packed records that come with the package")
    options = parser.parse_args(words[1:] if alone else words)
    filters = Filters(**{item.name: tuple(getattr(options, item.name)) for item in fields(Filters)})
    command = " ".join(["python -m rna.report", *(shlex.quote(word) for word in words)])
    try:
        started = time.perf_counter()
        sources = [*options.packed, *(replication.shipped() if getattr(options, "shipped", False) else [])]
        if sources and options.names:
            raise ValueError(f"NAME={options.names[0]}: packed records have no sweeps; allowed with --from: filters")
        make = alone or report
        folder = make(options.names, filters, options.output_dir, command, sources)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{folder / 'index.html'}  ({time.perf_counter() - started:.1f} s)")


def report(
    names: Sequence[str], filters: Filters, output_dir: str, command: str, packed: Sequence[str | Path] = ()
) -> Path:
    """Write `OUTPUT_DIR/reports/NAME/` and return it. Raises ValueError as `written` does."""
    return written(names, filters, output_dir, command, packed)[0]


def written(
    names: Sequence[str], filters: Filters, output_dir: str, command: str, packed: Sequence[str | Path] = ()
) -> tuple[Path, list[Chapter]]:
    """Write `OUTPUT_DIR/reports/NAME/`; return it, and what stands in it by groups of records.

    Args:
        packed: files of packed records, in the place of those of `OUTPUT_DIR`.

    Raises:
        ValueError: if there is no such sweep, or no record that passes the filters.
    """
    loaded, selected = _selected(names, filters, output_dir, packed)
    name = _name(names, filters, packed)
    folder = Path(output_dir) / "reports" / name
    for old in [folder / "figures", folder / "tables", *folder.glob("study*")]:
        shutil.rmtree(old, ignore_errors=True)  # of an earlier report, which may have had other figures
    found = records.studies(selected)
    records.attach(found, loaded.smoothed)
    chapters: list[Chapter] = []
    for number, study in enumerate(found, 1):
        chapters.append(_chapter(study, loaded, folder, number))
        _tell(loaded, f"{number} of {len(found)} studies written")
    text = page.render(name, loaded, selected, chapters, folder, command)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(text, encoding="utf-8")
    return folder, chapters


def defended(
    names: Sequence[str], filters: Filters, output_dir: str, command: str, packed: Sequence[str | Path] = ()
) -> Path:
    """Write `OUTPUT_DIR/reports/NAME/defences/`, print its answers and return it.

    Raises:
        ValueError: as `written`, or if nothing protects at a target of forgetting; with the command that makes it.
    """
    _, selected = _selected(names, filters, output_dir, packed, defences.SWEEP)
    folder = Path(output_dir) / "reports" / _name(names, filters, packed) / defences.NAME
    for line in defences.written(records.studies(selected), folder, command):
        print(line)
    return folder


def probed(
    names: Sequence[str], filters: Filters, output_dir: str, command: str, packed: Sequence[str | Path] = ()
) -> Path:
    """Write `OUTPUT_DIR/reports/NAME/probes/`, print its answers and return it.

    Raises:
        ValueError: as `written`, or if no trial was probed; with the command that probes some.
    """
    loaded, selected = _selected(names, filters, output_dir, packed, probes.SWEEP)
    folder = Path(output_dir) / "reports" / _name(names, filters, packed) / probes.NAME
    for line in probes.written(records.studies(selected), loaded.probed, folder, command):
        print(line)
    return folder


def replicated(
    names: Sequence[str], filters: Filters, output_dir: str, command: str, packed: Sequence[str | Path] = ()
) -> Path:
    """Write `OUTPUT_DIR/reports/NAME/replication/`, print its answer and return it.

    Raises:
        ValueError: as `written`, or if no claim can be judged; with the command that makes what can.
    """
    _, selected = _selected(names, filters, output_dir, packed, replication.SWEEP)
    folder = Path(output_dir) / "reports" / _name(names, filters, packed) / replication.NAME
    analysed = [one for source in packed or [output_dir] for one in packing.analysed(source)]
    for line in replication.written(records.studies(selected), analysed, folder, command):
        print(line)
    return folder


def _selected(
    names: Sequence[str],
    filters: Filters,
    output_dir: str,
    packed: Sequence[str | Path],
    makes: str = commands.RUN,
) -> tuple[Loaded, list[Trial]]:
    """The records of a folder, or of packed files, and the trials of these sweeps that pass the filters; `makes`: what
    would make some."""
    keys = set[str]().union(*(records.keys_of(output_dir, name) for name in names)) if names else None
    loaded = reading.load(*(packed or [output_dir]))
    _tell(loaded, f"{loaded.files} records read")
    selected = records.select(loaded.trials, filters, keys)
    if keys is not None:
        loaded.failures = [item for item in loaded.failures if item.key in keys]
    if not selected or (loaded.trials and filters.narrow and not any(trial.method for trial in selected)):
        raise ValueError(_nothing(loaded, names, filters, keys, output_dir, makes))
    return loaded, selected


def _nothing(
    loaded: Loaded, names: Sequence[str], filters: Filters, keys: set[str] | None, output_dir: str, makes: str
) -> str:
    """Why there is nothing to report: no records at all, or none that the filters keep, with what there is."""
    where = Path(output_dir) / "results"
    of = f" of {' '.join(names)}" if names else ""
    there = [trial for trial in records.select(loaded.trials, Filters(), keys) if trial.method]
    if not there:
        return f"no records to report{of} in {where}; {makes} makes one"
    asked = {item.name: getattr(filters, item.name) for item in fields(filters) if getattr(filters, item.name)}
    words = " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in asked.items())
    known = "; ".join(f"--{name} {' '.join(map(str, records.values(there, name)))}" for name in asked)
    return f"no trial{of} in {where} has {words}; of its {len(there)} trials there are {known}"


def _tell(loaded: Loaded, what: str) -> None:
    """How far the report is, where there is enough to make a person wait."""
    if loaded.files >= MANY:
        print(what, file=sys.stderr, flush=True)


def _name(names: Sequence[str], filters: Filters, packed: Sequence[str | Path]) -> str:
    """The report's folder: the names of sweeps or packed files, or `all`, and the filters."""
    own = names or [Path(file).name.removesuffix(packing.SUFFIX) for file in packed]
    parts = ["+".join(own) or "all"]
    for item in fields(filters):
        values = getattr(filters, item.name)
        parts += [f"{item.name}={','.join(map(str, values))}"] if values else []
    return re.sub(r"[^\w.+=,-]", "_", "_".join(parts))[:150]


def _chapter(study: Study, loaded: Loaded, folder: Path, number: int) -> Chapter:
    """Write a study's tables and figures; the first study's lie in the report's own folder."""
    below = "" if number == 1 else f"study{number}/"
    made = tables.every(study, loaded.failures if number == 1 else [])
    for table in made:
        sheet.write(table, folder / below / "tables")
    drawn = drawing.written(figures.plans(study), folder / below / "figures") if number <= MAX_DRAWN else []
    return Chapter(study, below, verdicts.every(compare.shown(study)), made, drawn)


if __name__ == "__main__":
    main()
