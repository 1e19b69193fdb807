"""`python -m rna.run`: compose and check the settings, compute what has no record yet, show the comparison.

corpora → decoder → unlearning (methods, noise) → evaluation → store → the table
"""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.ends import guarded
from rna.settings import CONF, Settings, beside, check_race, check_sweep, compose, compose_fixed, config, outside
from rna.store import results
from rna.sweep import keeping, ledger

LOG_WIDTH = 200  # of what is printed to a pipe or a file

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rna.trial import Arm


def main() -> None:
    """The command line. A mistake ends in one line and exit code 2, a failed trial in one line and exit code 1, a
    signal in one line and 128 + its number."""
    printing.prepare()
    if not {"-h", "--help"}.isdisjoint(sys.argv[1:]):
        return guarded(lambda: print(_help(sys.argv[1:])))
    import hydra
    from hydra._internal.utils import get_args_parser

    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; progress is shown by `rna.progress`
    config.register_resolvers()
    parser = get_args_parser()
    parser.error = functools.partial(printing.refuse, parser)
    arguments = parser.parse_intermixed_args()
    sys.argv = _options_first(sys.argv, arguments.overrides)
    asks_hydra = any((arguments.hydra_help, arguments.info, arguments.cfg))
    overrides, folder = arguments.overrides, arguments.config_dir
    outside.bring(folder)
    others: dict[str, Settings] = {}
    if arguments.cfg and not arguments.multirun:
        guarded(lambda: compose(overrides, folder))
    if not asks_hydra:
        guarded(lambda: others.update(_check(overrides, folder, multirun=arguments.multirun)))

    @functools.wraps(job)
    def shown(composed: "DictConfig") -> None:
        guarded(lambda: run(config.check(composed), others))

    task = job if arguments.multirun else shown
    guarded(hydra.main(**config.version_base(), config_path=str(CONF), config_name="config")(task))


def _options_first(words: list[str], overrides: list[str]) -> list[str]:
    """A command line as Hydra's parser takes it: options, wherever they stand, before all groups and keys."""
    options = list(words)
    for override in reversed(overrides):
        del options[len(options) - 1 - options[::-1].index(override)]
    return [*options, *overrides]


def _help(words: list[str]) -> str:
    """What is said of the groups and keys among the words, the user's own among them; of none the page.

    Raises:
        ValueError: for a word that is neither.
    """
    from rna import cli

    words = [word for word in words if word not in ("-h", "--help", "-m", "--multirun")]
    for flag in ("--config-dir", "-cd"):
        if flag in words[:-1]:
            place = words.index(flag)
            outside.bring(words[place + 1])
            del words[place : place + 2]
    return cli.asked([word for word in words if not word.startswith("-")])


def job(composed: "DictConfig") -> dict[str, Any] | None:
    """One trial of the command line, or of a sweep, which gets its key and metrics, and its failures as they are."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return guarded(lambda: run(config.check(composed)))
    from rna.store import lookup

    config.register_resolvers()  # this process may be a worker
    settings = config.check(composed)
    if (raced := ledger.race()) is not None:
        return answer(settings, raced["tasks"], raced["blocks"])
    run(settings)
    where = lookup.address_of(settings)
    if settings.keep != "all" and (folder := ledger.own_folder()) is not None:
        keeping.release(folder)
    return {"key": where["key"], **(lookup.metrics(where) or {})}


def _check(overrides: list[str], folder: str | None, *, multirun: bool) -> dict[str, Settings]:
    """What can be said before the first trial; of a sweep, W&B is asked once, not by each. Raises ValueError.

    Returns:
        What a single trial is to be compared with.
    """
    check_sweep(overrides, multirun=multirun)
    if not multirun:
        settings = config.check(compose(overrides, folder))
        if settings.eval.race:
            raise ValueError("eval.race=True: settings race in a sweep; give -m, or eval.race=false")
        return beside(settings, overrides, folder)
    from rna import track

    fixed = compose_fixed(overrides, folder)
    check_race(overrides, races=bool(fixed.eval.get("race")))
    options = config.wandb_of(fixed)
    swept = [item for item in overrides if item.lstrip("+").startswith(("wandb=", "wandb.mode=")) and "online" in item]
    if options is not None and swept:
        options.mode = "online"
    if options is not None:
        track.check(options)
    return {}


def run(settings: Settings, others: Mapping[str, Settings] | None = None) -> None:
    """A trial beside its base, its plain twin, what `compare` names and the retrained model, each computed once and
    then read."""
    from rna import trial

    prepare(settings)
    rows = trial.arms(settings, others)
    compute(settings, rows, trial.to_compute(settings, rows))
    report(settings, rows)


def answer(settings: Settings, tasks: list[str], blocks: int) -> dict[str, Any]:
    """What a race asks of a trial: train it if it is not, and answer these blocks; nothing is shown."""
    from rna import trial

    prepare(settings)
    row = trial.in_a_race(settings, trial.Part(tuple(tasks), blocks))
    compute(settings, [row], [] if row.complete else [row])
    return {"key": row.key}


def prepare(settings: Settings) -> None:
    """Refuse what can be refused before anything is read, and say what a user should know."""
    results.check_writable(settings.output_dir)
    check_models(settings)
    for notice in settings.notices:
        print(notice, file=sys.stderr, flush=True)


def compute(settings: Settings, rows: "list[Arm]", wanted: "list[Arm]") -> None:
    """Bring what is wanted into being, and read what there is then."""
    from rna import trial
    from rna.corpora import data

    said = len(settings.notices)
    if wanted and ledger.OWNER not in os.environ:  # a sweep has asked already
        from rna import track

        track.check(settings.wandb)
    reads = [row for row in wanted if row.trains]
    if reads or (wanted and settings.eval.kind == "perplexity"):
        data.validate(settings, trial.cache_of(settings))
    if wanted:
        from rna import progress
        from rna.unlearning import strength

        settings.notices += strength.keyword_warnings(settings)  # of all rows, which share the list
        for notice in settings.notices[said:]:
            print(f"warning: {notice}", file=sys.stderr, flush=True)

        progress.work_on(wanted)
    for row in rows:
        row.refresh()
        if ledger.OWNER not in os.environ:  # asked for by itself, and no sweep's to throw away
            results.claim(settings.output_dir, row.key)


def check_models(settings: Settings) -> None:
    """Refuse a model that would not load whole or cannot train as asked; none is loaded."""
    from rna.decoder import folder

    model = settings.model
    chat = settings.eval.chat_template and not settings.train_only
    trains = settings.method.trains and settings.layer.trainable == "down_proj"
    folder.check(
        model.path,
        model.revision,
        layer_path=model.layer_path,
        num_layers=model.num_layers,
        trained=settings.layer.trained if trains else (),
    )
    if chat:
        folder.check_chat(model.path, model.revision)
    if settings.method.name == "given":
        given = settings.judged()
        folder.check(given.path, given.revision, key="method.path", layer_path=model.layer_path)
        if chat:
            folder.check_chat(given.path, given.revision, key="method.path")
    if model.retrained and not settings.train_only:
        folder.check(model.retrained, key="model.retrained", layer_path=model.layer_path)
        if chat:
            folder.check_chat(model.retrained, key="model.retrained")


def report(settings: Settings, rows: "list[Arm]") -> None:
    """Print the table, what it says, which command tells more, and where the records lie."""
    from rna import show
    from rna.intervals import answers

    console = printing.console(width=LOG_WIDTH)

    def say(text: str) -> None:
        console.print(printing.wrapped(text, console.width), soft_wrap=True)

    if not settings.train_only:
        console.print(show.table(rows), width=max(console.width, printing.NARROWEST), crop=False)
        say(show.key(rows))
        for more in (show.ngram_table(rows), show.own_table(rows), show.tofu_table(rows), show.probe_table(rows)):
            if more is not None:
                console.print()
                console.print(more, width=max(console.width, printing.NARROWEST), crop=False)
        console.print()
        for line in (*show.stops(rows), *show.verdicts(rows), show.prices(rows), show.of_above(rows)):
            if line is not None:
                say(line)
        if settings.method.trains and (words := _more_seeds()):
            say(answers.ONE_SEED)
            console.print(printing.command(words, console.width), soft_wrap=True)
        console.print()
    known = [row for row in rows if row.trained is not None]
    kinds = ["results/KEY.json"]
    kinds += ["trials/KEY/unlearned.safetensors"] if any(row.settings.method.trains for row in known) else []
    kinds += ["wandb/"] if Path(settings.output_dir, "wandb").is_dir() else []
    say(f"Written to {settings.output_dir}: {', '.join(kinds)}, with the KEY of")
    say(", ".join(f"{row.label} {row.key}" for row in known) + ".")
    if settings.train_only and (lost := [row.label for row in known if row.lost]):
        say(f"The tensors of {', '.join(lost)} were not kept.")


def _more_seeds() -> list[str]:
    """This command line as a sweep over seeds; empty where Hydra composed none, and in a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode == RunMode.MULTIRUN:
        return []
    found = HydraConfig.get()
    folders = [word for one in found.runtime.config_sources if one.provider == "command-line"
               for word in ("--config-dir", str(one.path))]  # fmt: skip
    kept = [word for word in found.overrides.task if not word.lstrip("+").startswith(("seed=", "compare="))]
    return ["python", "-m", "rna.run", "-m", *folders, *kept, "seed=0,1,2,3,4"]


if __name__ == "__main__":
    main()
