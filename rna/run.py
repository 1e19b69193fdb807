"""`python -m rna.run`: compose and check the settings, compute what has no record yet, show the comparison.

data → model (+ noise) → methods (losses) → train → evaluate → results → the table
"""

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing
from rna.settings import CONF, Settings, config
from rna.store import results
from rna.sweep import ledger

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rna.trial import Arm


def main() -> None:
    """The command line. A mistake ends in one line and exit code 2, a failed trial in one line and exit code 1, a
    signal in one line and 128 + its number."""
    import hydra
    from hydra._internal.utils import get_args_parser

    printing.prepare()
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; progress is shown by `rna.progress`
    config.register_resolvers()
    arguments = get_args_parser().parse_args()
    asks_hydra = any((arguments.help, arguments.hydra_help, arguments.info, arguments.cfg))
    if not asks_hydra:
        overrides, folder = arguments.overrides, arguments.config_dir
        guarded(
            lambda: _check_sweep(overrides, folder) if arguments.multirun else config.check(compose(overrides, folder))
        )
    hydra.main(**config.version_base(), config_path=str(CONF), config_name="config")(job)()


def job(composed: "DictConfig") -> dict[str, Any] | None:
    """One trial of the command line, or of a sweep, which gets its key and metrics, and its failures as they are."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return guarded(lambda: run(config.check(composed)))
    from rna.store import lookup

    config.register_resolvers()  # this process may be a worker
    settings = config.check(composed)
    run(settings)
    where = lookup.address_of(settings)
    return {"key": where["key"], **(lookup.metrics(where) or {})}


def guarded(action: Callable[[], Any]) -> None:
    """Run, and turn a user's mistake or a failed trial into one line; HYDRA_FULL_ERROR=1 shows the traceback."""
    from rna.signals import Interrupted
    from rna.trial import TrialFailed

    try:
        action()
    except (Interrupted, KeyboardInterrupt) as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        name = signal.Signals(number).name
        print(f"stopped by {name}; the same command goes on where this one was", file=sys.stderr)
        sys.exit(128 + number)
    except (ValueError, TrialFailed) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, TrialFailed) else 2)


def _check_sweep(overrides: list[str], folder: str | None) -> None:
    """What can be said of a sweep before its first trial: W&B is asked once, not by each. Raises ValueError."""
    from rna import track

    options = config.wandb_of(compose_fixed(overrides, folder))
    swept = [item for item in overrides if item.lstrip("+").startswith(("wandb=", "wandb.mode=")) and "online" in item]
    if options is not None and swept:
        options.mode = "online"
    if options is not None:
        track.check(options)


def run(settings: Settings) -> None:
    """A trial beside its base, its plain twin and the retrained model, each computed once and then read."""
    from rna import trial
    from rna.corpora import data

    results.check_writable(settings.output_dir)
    check_models(settings)
    said = len(settings.notices)
    for notice in settings.notices:
        print(notice, file=sys.stderr, flush=True)
    rows = trial.arms(settings)
    wanted = trial.to_compute(settings, rows)
    if wanted and ledger.OWNER not in os.environ:  # a sweep has asked already
        from rna import track

        track.check(settings.wandb)
    reads = [row for row in wanted if row.trained is None and row.settings.method.trains]
    if reads or (wanted and settings.eval.kind == "perplexity"):
        data.validate(settings)
    if wanted:
        from rna import progress
        from rna.unlearning import strength

        settings.notices += strength.keyword_warnings(settings)  # of all rows, which share the list
        for notice in settings.notices[said:]:
            print(f"warning: {notice}", file=sys.stderr, flush=True)

        progress.work_on(wanted)
    for row in rows:
        row.refresh()
    report(settings, rows)


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
    if settings.method.path is not None:
        folder.check(settings.method.path, settings.method.revision, key="method.path", layer_path=model.layer_path)
        if chat:
            folder.check_chat(settings.method.path, settings.method.revision, key="method.path")
    if model.retrained and not settings.train_only:
        folder.check(model.retrained, key="model.retrained", layer_path=model.layer_path)
        if chat:
            folder.check_chat(model.retrained, key="model.retrained")


def report(settings: Settings, rows: "list[Arm]") -> None:
    """Print the table, what it says, and where its records lie."""
    from rna import show

    console = printing.console(width=200)
    if not settings.train_only:
        console.print(show.table(rows))
        if (by_ngram := show.ngram_table(rows)) is not None:
            console.print(by_ngram)
        if (of_above := show.of_above(rows)) is not None:
            console.print(of_above, soft_wrap=True)
        for line in show.verdicts(rows):
            console.print(line, soft_wrap=True)
    for row in rows:
        if row.trained is not None:
            path = results.path_of(settings.output_dir, row.key)
            note = f" · W&B {row.trained['wandb']}" if row.trained.get("wandb") else ""
            delta = f" · {results.delta_path(settings.output_dir, row.key)}" if settings.train_only else ""
            console.print(f"{row.label}: {path}{delta}{note}", soft_wrap=True)


def compose(overrides: list[str], config_dir: str | None) -> "DictConfig":
    """Compose the config as Hydra will.

    Raises:
        ValueError: for an unknown group option or key, with the nearest match and what is allowed; for broken YAML.
    """
    import hydra
    import yaml
    from hydra.errors import HydraException

    extra = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF), **config.version_base()):
        try:
            return hydra.compose("config", overrides=[*extra, *overrides])
        except (HydraException, yaml.YAMLError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            raise ValueError(_explained(error, overrides)) from None


def compose_fixed(overrides: list[str], config_dir: str | None) -> "DictConfig":
    """Compose what a sweep's trials share: all overrides but the swept ones. Raises ValueError like `compose`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(_explained(error, overrides)) from None
    return compose([item.input_line or "" for item in parsed if not item.is_sweep_override()], config_dir)


def planned(name: str, overrides: list[str]) -> "list[tuple[list[str], DictConfig]]":
    """The cells of `sweep=NAME` with these overrides, each composed. Raises ValueError like `compose`."""
    fixed, cells = cells_of(name, overrides)
    return [(cell, compose([*fixed, *cell], None)) for cell in cells]


def cells_of(name: str, overrides: list[str]) -> tuple[list[str], list[list[str]]]:
    """What the cells of `sweep=NAME` share, and what each has of its own. Raises ValueError like `compose`."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from hydra_plugins.rna_optuna_sweeper import space

    swept = f"sweep={name}"
    config.register_resolvers()
    with hydra.initialize_config_dir(str(CONF), **config.version_base()):
        try:
            parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
            given = parser.parse_overrides(overrides)
            fixed = [item.input_line or "" for item in given if not item.is_sweep_override()]
            master = hydra.compose("config", overrides=[swept, *fixed], return_hydra_config=True)
            params = [f"{key}={value}" for key, value in (master.hydra.sweeper.params or {}).items()]
            found = space.parse(parser.parse_overrides([*params, *overrides]))
        except HydraException as error:
            raise ValueError(_explained(error, overrides)) from None
    return [swept, *found.fixed], [list(cell) for cell in found.cells()]


def _explained(error: Exception, overrides: list[str]) -> str:
    """One line for what Hydra could not compose: an unknown option, an unknown key, or its own words."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError, ValidationError

    if isinstance(error, OverrideParseException):
        return _unread(error.override)
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        options = GlobalHydra.instance().config_loader().get_group_options(group)
        return f"{group}={option}: unknown option; {config.nearest(option, sorted(options))}"
    cause: Any = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError | ValidationError):
        key = str(cause.full_key)
        given = next((item for item in (item.lstrip("+~") for item in overrides) if item.startswith(key)), key)
        if isinstance(cause, ValidationError):
            return f"{given}: {str(cause).splitlines()[0]}"
        return config.unknown_key(given, key, cause.parent_node)
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _unread(override: str) -> str:
    """What to tell a user whose KEY=VALUE is not of Hydra's grammar, as many a path or a text is not."""
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: not of the form KEY=VALUE"
    quoted = shlex.quote(f"{key}={json.dumps(value, ensure_ascii=False)}")
    return (
        f"{override}: not a value as Hydra writes them; where it is a text, quote it for Hydra and once more for the "
        f"shell: {quoted}"
    )


if __name__ == "__main__":
    main()
