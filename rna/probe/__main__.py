"""`python -m rna.probe KEY … probe=NAME [probe.KEY=VALUE …]`: recorded trials are asked whether what they forgot comes
back, beside the model before and the retrained one.

A KEY may be given by its first letters; `--sweep NAME` takes a sweep's trials. Nothing is trained, but for tensors that
were not kept; what was probed is shown from its record.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

from rna import printing, progress, show, trial
from rna.ends import guarded
from rna.settings import Probe, Settings, compose, config, outside
from rna.store import lookup, results
from rna.trial import Arm


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. A mistake ends in one line and exit code 2."""
    printing.prepare()
    parser = printing.Parser(prog=printing.program("probe"), description=__doc__)
    parser.add_argument("words", nargs="+", metavar="KEY|probe=NAME", help="trials, the probe and its numbers")
    parser.add_argument("--sweep", nargs="+", default=[], metavar="NAME", help="all trials of sweeps")
    parser.add_argument("--output-dir", default="outputs", help="where the records lie (outputs)")
    parser.add_argument("--config-dir", help="a folder with a probe of your own, as for rna run")
    options = parser.parse_intermixed_args(arguments)
    guarded(lambda: run(options.words, options.sweep, options.output_dir, options.config_dir))


def run(words: Sequence[str], sweeps: Sequence[str], output_dir: str, config_dir: str | None = None) -> None:
    """Probe trials, and print a table of each.

    Raises:
        ValueError: for no probe or no trial, or what a probe cannot work with.
    """
    asked = [word for word in words if "=" in word]
    for word in asked:
        if word.partition("=")[0].partition(".")[0] != "probe":
            raise ValueError(f"{word}: a trial's settings are its record's; allowed: probe=NAME, probe.KEY=VALUE")
    outside.bring(config_dir)
    if not any(word.startswith("probe=") and word != "probe=none" for word in asked):
        raise ValueError(f"probe=none: nothing is asked; allowed: {', '.join(names())}")
    config.register_resolvers()
    probe = config.typed(compose(asked, config_dir)).probe
    keys = [results.resolve(output_dir, word) for word in words if "=" not in word]
    keys += [key for name in sweeps for key in of_sweep(output_dir, name)]
    if not keys:
        raise ValueError("KEY: a trial is needed; python -m rna.records lists them")
    console = printing.console()
    for key in dict.fromkeys(keys):
        rows = rows_of(output_dir, key, probe)
        if missing := [row for row in rows if not row.complete]:
            progress.work_on(missing)
        for row in missing:
            row.refresh()  # of what another process did
        made = show.probe_table(rows)
        assert made is not None
        console.print(made, width=max(console.width, printing.NARROWEST), crop=False)
        for line in show.verdicts(rows):
            console.print(printing.wrapped(line, console.width), soft_wrap=True)
        console.print()


def names() -> list[str]:
    """The probes that there are."""
    from rna.settings import own_targets

    return [name for name in (*own_targets("probe"), *outside.options("probe")) if name != "none"]


def of_sweep(output_dir: str, name: str) -> list[str]:
    """The keys of a sweep's finished trainings. Raises ValueError if there is no such sweep."""
    from rna.report import records

    return sorted(key for key in records.keys_of(output_dir, name) if results.read(output_dir, key) is not None)


def rows_of(output_dir: str, key: str, probe: Probe) -> list[Arm]:
    """The trial between the model before it and the retrained one, each with the probe alone to be evaluated.

    Raises:
        ValueError: for a key without a record of a finished training, or settings that the probe cannot work with.
    """
    record = results.read(output_dir, key)
    if record is None or record.get("kind") != "train":
        raise ValueError(f"KEY={key}: has no record of a finished training; give the run's command again")
    settings = probed(config.recorded(record), output_dir, probe)
    own = Arm(record["label"], settings, key, record["identity"], results.probe_identities(settings))
    own.refresh()
    if own.lost:
        trial.restore(output_dir, key)
    beside = [row for row in trial.arms(settings) if row.label in ("base", "retrained") and row.key != key]
    for row in beside:
        row.tasks = {name: task for name, task in row.tasks.items() if lookup.is_probe(name)}
        row.refresh()
    return sorted([own, *beside], key=lambda row: ("base", own.label, "retrained").index(row.label))


def probed(settings: Settings, output_dir: str, probe: Probe) -> Settings:
    """A record's settings with a probe, in this folder of records."""
    race = replace(settings.eval, race=False)
    made = replace(settings, output_dir=output_dir, probe=probe, train_only=False, rerun=False, eval=race)
    config.check_probe(made)
    return made


if __name__ == "__main__":
    main(sys.argv[1:])
