"""What Hydra makes of overrides, before any check; what it cannot compose is one line."""

import json
import os
import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

from rna.settings import config, memo, outside
from rna.settings.fields import CONF, Settings

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

PLAIN = re.compile(r"(?!(?i:null|true|false|nan|inf)$)[A-Za-z/][\w./:-]*( [\w./:-]+)*", re.ASCII)


def hydra_text(value: Any) -> str:
    """A value as Hydra's grammar takes it: text that it would read as a list, a number or not at all in quotes."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {hydra_text(item)}" for key, item in value.items()) + "}"
    if not isinstance(value, str) or PLAIN.fullmatch(value):
        return str(value)
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), value)
    escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", escaped)  # OmegaConf's grammar, within Hydra's
    return f"'{escaped}'"


def compose(overrides: list[str], config_dir: str | None) -> "DictConfig":
    """Compose the config as Hydra will.

    Raises:
        ValueError: for an unknown group option or key, with the nearest match and what is allowed; for broken YAML.
    """
    import hydra
    import yaml
    from hydra.errors import HydraException

    with hydra.initialize_config_dir(str(CONF), **config.version_base()):
        try:
            return _memo(outside.stamp(CONF, config_dir)).compose([*outside.searchpath(config_dir), *overrides])
        except (HydraException, yaml.YAMLError) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            raise ValueError(_explained(error, overrides)) from None


@cache
def _memo(_files: tuple[tuple[str, int, int], ...]) -> memo.Memo:
    """For as long as the options' files are these."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    return memo.Memo(GlobalHydra.instance().config_loader(), lambda overrides: hydra.compose("config", overrides))


def compose_fixed(overrides: list[str], config_dir: str | None) -> "DictConfig":
    """Compose what a sweep's trials share: all overrides but the swept ones. Raises ValueError like `compose`."""
    return compose([item.input_line or "" for item in _parsed(overrides) if not item.is_sweep_override()], config_dir)


COMPARED = ("protection", "noise", "defence", "optimizer", "forget_weights", "compare", "rerun")  # `compare` sets anew


def beside(settings: Settings, overrides: list[str], config_dir: str | None) -> dict[str, Settings]:
    """What `compare` shows beside a trial with these overrides, by label; nothing beside what has no plain twin.

    An entry is an option of `protection`, and what else is to be overridden, as on the command line.

    Raises:
        ValueError: for an option that `protection` has not, or what this trial's settings refuse.
    """
    known = sorted({*(file.stem for file in (CONF / "protection").glob("*.yaml")), *outside.options("protection")})
    entries: list[list[str]] = []
    for entry in settings.compare:
        try:
            words = shlex.split(entry)
        except ValueError as error:
            raise ValueError(f"compare=[{entry}]: {error}; allowed: PROTECTION KEY=VALUE …") from None
        name = words[0] if words else ""
        if name not in known:
            raise ValueError(f"compare=[{entry}]: no such protection; {config.nearest(name, known)}")
        if name == "plain" or any(name == other[0] for other in entries):
            raise ValueError(f"compare=[{entry}]: there is a row {name} already; allowed: another, each once")
        entries.append(words)
    if not settings.protected or settings.baseline == "skip" or settings.train_only:
        return {}
    given = _parsed(overrides)
    asked = any(item.key_or_group == "compare" for item in given)
    if settings.variant == "official" and not asked:
        return {}
    lines = [item.input_line or "" for item in given if item.key_or_group.split(".")[0] not in COMPARED]
    found: dict[str, Settings] = {}
    for name, *more in entries:
        words = [*lines, *more] if asked else [*more, *lines]  # what is said wins over what comes with the demo
        label = name.replace("_", " ")
        found[label] = config.check(compose([*words, f"protection={name}"], config_dir))
    return found


def check_sweep(overrides: list[str], *, multirun: bool) -> None:
    """Raises ValueError for a `sweep=NAME` that Hydra would pass over in silence: unknown, or without -m."""
    for item in _parsed(overrides):
        if item.key_or_group == "compare" and multirun:
            raise ValueError(f"{item.input_line}: of one trial's table; in a sweep it is an axis: protection=plain,…")
        if item.key_or_group != "sweep" or item.is_delete():
            continue
        said = item.input_line or "sweep"
        if item.is_sweep_override():
            raise ValueError(f"{said}: allowed: one of {', '.join(sweep_names())}; each is a sweep of its own")
        if item.value() is None:
            continue
        if item.value() not in sweep_names():
            raise ValueError(f"{said}: no such sweep; {config.nearest(str(item.value()), sweep_names())}")
        if not multirun:
            raise ValueError(f"{said}: a sweep of many trials; give -m: python -m rna.run -m {said}")


def check_race(overrides: list[str], *, races: bool) -> None:
    """Raises ValueError for a race in one of our sweeps, whose rows stand in figures and tables and are all wanted."""
    named = [str(item.value()) for item in _parsed(overrides) if item.key_or_group == "sweep" and not item.is_delete()]
    ours = {file.stem for file in (CONF / "sweep").glob("*.yaml")}
    if races and (figures := ours.intersection(named)):
        raise ValueError(
            f"eval.race=True: sweep={min(figures)} feeds a figure or a table, which wants every trial whole; allowed: "
            "false, or a sweep of your own"
        )


def sweep_names() -> list[str]:
    """The sweeps of conf/sweep and of the user."""
    return sorted({*(file.stem for file in (CONF / "sweep").glob("*.yaml")), *outside.options("sweep")})


def _parsed(overrides: list[str]) -> "list[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise ValueError(_explained(error, overrides)) from None


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
            composed = [*outside.searchpath(), swept, *fixed]
            master = hydra.compose("config", overrides=composed, return_hydra_config=True)
            found = space.asked(parser, master.hydra.sweeper, overrides)
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
        options = {*GlobalHydra.instance().config_loader().get_group_options(group), *outside.options(group)}
        return f"{group}={option}: unknown option; {config.nearest(option, sorted(options))}"
    cause: Any = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError | ValidationError):
        key = str(cause.full_key)
        given = next((item for item in (item.lstrip("+~") for item in overrides) if item.startswith(key)), key)
        if isinstance(cause, ValidationError):
            return f"{given}: {str(cause).splitlines()[0]}"
        if re.fullmatch(r"eval\.tasks\.\w+", key) and given.partition("=")[2].startswith("{"):
            return f"{given}: a task that is not there yet is added with a plus: '+{given}'"
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
