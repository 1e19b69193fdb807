"""`python -m rna.run`: compose and check the settings, compute what has no record yet, show the comparison.

    data → model (+ noise) → methods (losses) → train → evaluate → results → the table
"""

import os
import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rna import config, results
from rna.config import CONF, Settings

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rna.trial import Arm


def main() -> None:
    """The command line. Mistakes end in one line and exit code 2, failed trials in one line and exit code 1."""
    import hydra
    from hydra._internal.utils import get_args_parser

    config.register_resolvers()
    arguments = get_args_parser().parse_args()
    asks_hydra = any((arguments.help, arguments.hydra_help, arguments.info, arguments.cfg))
    if not arguments.multirun and not asks_hydra:
        guarded(lambda: config.check(compose(arguments.overrides, arguments.config_dir)))
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def job(composed: "DictConfig") -> None:
    """One trial of the command line or of a sweep."""
    guarded(lambda: run(config.check(composed)))


def guarded(action: Callable[[], Any]) -> None:
    """Run, and turn a user's mistake or a failed trial into one line; HYDRA_FULL_ERROR=1 shows the traceback."""
    from rna.trial import TrialFailed

    try:
        action()
    except (ValueError, TrialFailed) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, TrialFailed) else 2)


def run(settings: Settings) -> None:
    """A trial beside its base, its plain twin and the retrained model, each computed once and then read."""
    from rna import data, trial

    results.check_writable(settings.output_dir)
    rows = trial.arms(settings)
    wanted = trial.to_compute(settings, rows)
    if any(row.trained is None and row.settings.method.name != "none" for row in wanted):
        data.validate(settings)
    if wanted:
        from rna import progress

        progress.work_on(wanted)
    for row in rows:
        row.refresh()
    report(settings, rows)


def report(settings: Settings, rows: "list[Arm]") -> None:
    """Print the table, what it says, and where its records lie."""
    from rich.console import Console

    from rna import show

    width = None if sys.stdout.isatty() else 200
    console = Console(width=width, highlight=False)
    console.print(show.table(rows))
    for line in show.verdicts(rows):
        console.print(line, soft_wrap=True)
    for row in rows:
        if row.trained is not None:
            path = results.path_of(settings.output_dir, row.key)
            note = f" · W&B {row.trained['wandb']}" if row.trained.get("wandb") else ""
            console.print(f"{row.label}: {path}{note}", soft_wrap=True)


def compose(overrides: list[str], config_dir: str | None) -> "DictConfig":
    """Compose the config as Hydra will.

    Raises:
        ValueError: for an unknown group option or key, with the nearest match and what is allowed.
    """
    import hydra
    from hydra.errors import ConfigCompositionException, HydraException

    extra = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return hydra.compose("config", overrides=[*extra, *overrides])
        except HydraException as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            wrong_key = re.match(r"(?:Could not override|Key) '([^']+)'", str(error))
            if isinstance(error, ConfigCompositionException) and wrong_key:
                raise ValueError(_unknown_key(wrong_key[1], overrides)) from None
            raise ValueError(_unknown_option(error)) from None


def _unknown_option(error: Any) -> str:
    options, missing = getattr(error, "options", None), getattr(error, "missing_cfg_file", None)
    if options and missing:
        group, _, option = str(missing).rpartition("/")
        return f"{group}={option}: unknown option; {config.nearest(option, sorted(options))}"
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())


def _unknown_key(key: str, overrides: list[str]) -> str:
    """The message for a key that the config does not have, with the keys beside it that it does."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    loader = GlobalHydra.instance().config_loader()
    groups = [group for group in loader.list_groups("") if group not in ("hydra", "tuned")]
    chosen = [item for item in overrides if item.partition("=")[0].lstrip("+~") in groups]
    whole: Any = hydra.compose("config", overrides=chosen)
    value = next((item.partition("=")[2] for item in overrides if item.partition("=")[0].lstrip("+~") == key), "")
    parent, _, name = key.rpartition(".")
    node: Any = OmegaConf.select(whole, parent) if parent else whole
    if not OmegaConf.is_dict(node):
        parent, name, node = "", key.partition(".")[0], whole
    allowed = sorted(str(item) for item in node if item not in ("tuned", "train") or parent == "" and item == "train")
    allowed = sorted({*allowed, *groups}) if not parent else allowed
    where = f" in {parent}" if parent else ""
    return f"{key}={value}: unknown key{where}; {config.nearest(name, allowed)}"


if __name__ == "__main__":
    main()
