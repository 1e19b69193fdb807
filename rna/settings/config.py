"""From what Hydra composed to a `Settings`, with every check that can be made before a model is loaded.

Each refusal is a ValueError that names the key, the value and what is allowed.
"""

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna.perturb import mined, read_keywords
from rna.settings import architecture, method, outside, roles
from rna.settings.fields import (
    BUILTIN,
    CHOICES,
    JUDGED,
    PAIR,
    TOFU,
    CorpusSettings,
    DataSettings,
    EvalSettings,
    NoiseSettings,
    Settings,
    TaskSettings,
    WandbSettings,
)
from rna.settings.until import read_until

if TYPE_CHECKING:
    from omegaconf import DictConfig

GROUPS = (
    *("method", "retain", "retain_loss", "defence", "noise", "optimizer", "forget_weights", "layer"),
    *("model", "data", "train", "eval", "probe", "wandb", "cache"),
)
ATTENTION = ("sdpa", "eager", "flash_attention_2")
PLUGINS: tuple[tuple[str, str, Any], ...] = (  # group, field of `Settings`, class
    ("method", "method", method.Method),
    ("retain_loss", "retain", method.RetainLoss),
    ("defence", "defence", method.Defence),
    ("probe", "probe", method.Probe),
)
NEWER = {"defence": {"name": method.UNDEFENDED}, "probe": {"name": method.UNPROBED}}  # what older records have not
REGIONS = {"early": (5, 3), "middle": (14, 3), "late": (28, 3)}  # first layer and count (arXiv:2501.19202, Appendix E)
REGION_DEPTH = 32  # of the model these were chosen for
UNTUNED_ALPHA = 1.0  # the retain weight where neither a user nor `conf/tuned` says one
WANDB_MODES = ("offline", "online", "disabled")
WANDB_WORDS = {"dryrun": "offline", "run": "online"}  # W&B's own older words, as its environment variable may have them
NUMBERS = {"Float": "a number", "Integer": "a whole number"}


def register_resolvers() -> None:
    """What YAML may refer to: `${builtin:NAME}`, the demo's files; `${packaged:PACKAGE,FILE}`, another package's;
    `${environment:NAME,DEFAULT}`, a variable that is set and not empty.

    `${released:150,500}`, the first with variant=official, else the second; `${times:4,${KEY}}`, a product;
    `${pair:}`, the template of the model's question-answer pairs; `${without_forget:NAME_}`, a model's name with the
    retain set of `data.split` behind it. As a sweep's values, layers of the chosen model: `${layers_in_reach:}`,
    `${at_depth:3,7}`.
    """
    import omegaconf

    new = omegaconf.__version__.startswith("2.3.")  # where `register_resolver` is an older one; 2.4 has but that name
    register: Any = getattr(omegaconf.OmegaConf, "register_new_resolver" if new else "register_resolver")
    register("builtin", lambda name: str(BUILTIN / name), replace=True)
    register("packaged", lambda package, file: _packaged(package, file), replace=True)
    register("released", _released, replace=True)
    register("environment", lambda name, default: os.environ.get(name) or default, replace=True)
    register("layers_in_reach", _layers_in_reach, replace=True)
    register("at_depth", _at_depth, replace=True)
    register("times", lambda factor, number: float(factor) * float(number), replace=True)
    register("pair", lambda *, _root_: _root_.model.get("pair") or PAIR, replace=True)
    register("without_forget", _without_forget, replace=True)


def version_base() -> dict[str, str]:
    """How Hydra is told to behave: 1.3 must be told to be 1.3, 1.4 must not be told anything."""
    import hydra

    return {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def _depth(root: Any) -> int:
    return int(root.model.num_layers or read_num_layers(root.model.path, root.model.revision))


def _layers_in_reach(*, _root_: Any) -> str:
    """The layers on which noise has an effect: for RM methods those up to the unlearn layer, else all."""
    kind: type[method.Method] = method.load(_root_.method.target, method.Method, "method")
    reach = int(_root_.layer.unlearn) + 1 if kind.reads == method.LAYER else _depth(_root_)
    return ",".join(map(str, range(reach)))


def _at_depth(*layers: int, _root_: Any) -> str:
    """Layers of a model of 32 as the same share of the chosen model's depth, each once."""
    depth = _depth(_root_)
    return ",".join(map(str, dict.fromkeys(layer * depth // REGION_DEPTH for layer in layers)))


def _released(theirs: Any, ours: Any, *, _root_: Any) -> Any:
    """A number of the authors' released scripts, or the paper's (our own where it gives none)."""
    return theirs if _root_.get("variant") == "official" else ours


def retain_split(split: str) -> str | None:
    """The retain set beside a forget set of TOFU, `retain90` beside `forget10`; None where there is none."""
    found = re.fullmatch(r"forget(\d\d)", split)
    return f"retain{100 - int(found[1]):02}" if found and int(found[1]) else None


def _without_forget(name: str, *, _root_: Any) -> str | None:
    rest = retain_split(str(_root_.data.get("split")))
    return f"{name}{rest}" if rest else None


def _packaged(package: str, file: str) -> str:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ValueError(f"{package} is not installed: pip install --no-deps {package.replace('_', '-')}")
    return str(Path(found.origin).parent / file)


def nearest(word: str, allowed: list[str]) -> str:
    """What is allowed, the nearest match first where there is one."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}allowed: {', '.join(allowed) or 'none'}"


def unknown_key(said: str, key: str, siblings: Iterable[Any]) -> str:
    """What to tell a user who said `said`, of a key that stands beside `siblings` and is none of them."""
    parent, _, name = key.rpartition(".")
    where = f" in {parent}" if parent else ""
    allowed = sorted({str(item) for item in siblings} - {name, "tuned", "hydra", "target"})
    return f"{said}: unknown key{where}; {nearest(name, allowed)}"


def check(composed: "DictConfig") -> Settings:
    """The trial's settings, typed, resolved and checked.

    Raises:
        ValueError: one line with the key, the value and what is allowed.
    """
    settings = typed(composed)
    _expand_home(settings)
    if settings.data.name != "demo" and settings.model.retrained == str(BUILTIN / "retrained"):
        settings.model.retrained = None  # it was trained without the demo's two subjects
    _check_choices(settings)
    _check_splits(settings)
    _check_pairs(settings)
    settings.eval.tasks = _with_ngrams(settings.eval)
    settings.alpha = _alpha_by_topic(settings, _tuned_alpha(composed))
    if settings.variant == "official":
        before = replace(settings.data)
        _read_as_official(settings)
        settings.notices += _changed(before, settings.data)
    _check_ranges(settings)
    _check_corpora(settings)
    _check_keywords(settings.eval)
    settings.train.until = read_until(settings)
    if settings.model.num_layers is None:
        settings.model.num_layers = read_num_layers(settings.model.path, settings.model.revision)
    _resolve_layers(settings, settings.model.num_layers)
    if settings.probed:
        check_probe(settings)
    return settings


def typed(composed: "DictConfig") -> Settings:
    """Convert the composed config to dataclasses, without looking at values beyond their types."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key in _missing(OmegaConf.to_container(composed)):
        raise ValueError(f"{key}: a value is needed; give {key}=…")
    try:
        plain: Any = _literal(OmegaConf.to_container(composed, resolve=True))
        for group in GROUPS:
            if not isinstance(plain.get(group), dict):
                raise ValueError(f"{group}={plain.get(group)}: must be an option of this group; see --help")
        if plain["noise"].get("name") in ("rna", "relative", "inference") and "nu" not in plain["noise"]:
            raise ValueError("noise.nu: a value is needed; give noise.nu=…, or noise=none")
        plain.pop("tuned", None)
        retain: dict[str, Any] = plain.pop("retain")
        found = {field: _plugin(plain, group, kind) for group, field, kind in PLUGINS}
        plain["retain_loss"] = found["retain"].name
        del plain["method"], plain["defence"], plain["probe"]
        alpha = retain.pop("alpha", None)
        for key in retain:
            raise ValueError(unknown_key(f"retain.{key}={retain[key]}", f"retain.{key}", ["alpha"]))
        if "alpha" in plain:
            raise ValueError(unknown_key(f"alpha={plain['alpha']}", "alpha", ["retain.alpha"]))
        if not isinstance(alpha, dict):
            raise ValueError(f"retain.alpha={alpha}: must be weights by topic; give retain.alpha.default=NUMBER")
        tasks = plain["eval"].get("tasks") or {}
        plain["eval"]["tasks"] = {name: task for name, task in tasks.items() if task is not None}
        for name, task in plain["eval"]["tasks"].items():
            if not isinstance(task, dict):
                raise ValueError(f"eval.tasks.{name}={task}: must be {{task: NAME, role: ROLE}}")
            for key in ("task", "role"):
                if task.get(key) is None:
                    raise ValueError(f"eval.tasks.{name}.{key}: a value is needed; give {{task: NAME, role: ROLE}}")
        plain["alpha"] = {topic: weight for topic, weight in alpha.items() if weight is not None}
        merged = _typed(plain, Settings)
        _check_texts(plain, OmegaConf.to_container(merged))
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(_type_error(error, composed)) from None
    assert isinstance(settings, Settings)
    return replace(settings, **found)


def _typed(plain: Any, kind: type[Any]) -> "DictConfig":
    """A dataclass's fields, filled in with checks of their types."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.merge(_blank(kind), plain)
    return found


@cache
def _blank(kind: type[Any]) -> Any:
    """A dataclass's fields before they are filled in, in copies."""
    from omegaconf import OmegaConf

    return OmegaConf.structured(kind)


def recorded(record: dict[str, Any]) -> Settings:
    """The settings that a record was made with.

    Raises:
        ValueError: if this version of the program, or a user's class, has no such settings any more.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain: dict[str, Any] = _literal(record["config"])
    told, found = record["losses"], {}
    try:
        for group, field, kind in PLUGINS:
            numbers = plain.pop(field, NEWER.get(field)) or plain.pop(field)
            target = told.get(group) or method.own_targets(group)[numbers["name"]]
            found[field] = method.load(target, kind, group)(**numbers)
        settings = OmegaConf.to_object(_typed(plain, Settings))
    except (OmegaConfBaseException, TypeError, KeyError) as error:
        raise ValueError(f"KEY={record['key']}: made by another version of rna, {record['rna']} ({error})") from None
    assert isinstance(settings, Settings)
    return replace(settings, **found)


def _plugin(plain: dict[str, Any], group: str, kind: type[method.Plugin]) -> Any:
    """A method, a retain loss, a defence or a probe, made of its option's class and numbers."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given: dict[str, Any] = dict(plain[group])
    name, target = given.get("name"), given.pop("target", None)
    if name is None:
        raise ValueError(f"{group}.name: a value is needed; it is the option's own name")
    if target is None:
        raise ValueError(f"{group}.target: a value is needed with {group}={name}; give the class, package.module.Class")
    made = method.load(target, kind, group)
    if issubclass(made, method.Loss) and made.reads not in (method.LAYER, method.LOGITS):
        raise ValueError(f"{group}.target={target}: reads={made.reads!r}; allowed: {method.LAYER}, {method.LOGITS}")
    if method.is_own(made) and method.own_targets(group).get(name) != target:
        raise ValueError(f"{group}.name={name}: {nearest(str(name), list(method.own_targets(group)))}")
    for key in method.required(made):
        if given.get(key) is None:
            raise ValueError(f"{group}.{key}: a value is needed with {group}={name}; give {group}.{key}=…")
    known = [item.name for item in fields(made)]
    for key in given:
        if key not in known:
            raise ValueError(unknown_key(f"{group}.{key}={given[key]}", f"{group}.{key}", known))
    try:
        merged = _typed(given, made)
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = error.full_key or str(error.key)
        raise ValueError(_unfit(f"{group}.{key}", given.get(key), error)) from None
    except ValueError as error:  # of the class's own checks
        raise ValueError(f"{group}={name}: {error}") from None
    _check_texts(given, OmegaConf.to_container(merged), f"{group}.")
    return found


def _check_texts(given: Any, made: Any, prefix: str = "") -> None:
    """Refuse a number or a truth value that became a text: nobody knows any more how it was written."""
    for key, value in given.items():
        found = made.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            _check_texts(value, found, f"{prefix}{key}.")
        elif isinstance(value, float | bool) and isinstance(found, str):
            said = f"{prefix}{key}={value}"
            raise ValueError(
                f"""{said}: must be a text; one that reads as another value is quoted twice: '{prefix}{key}="…"'"""
            )


def _literal(node: Any) -> Any:
    """What was resolved once, so that a `${` which is left in a text is text."""
    if isinstance(node, dict):
        return {key: _literal(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_literal(value) for value in node]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", node) if isinstance(node, str) else node


def _missing(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys that are still `???`; an interpolation of one is not missing itself."""
    for key, value in node.items():
        if value == "???":
            yield f"{prefix}{key}"
        elif isinstance(value, dict):
            yield from _missing(value, f"{prefix}{key}.")


def _type_error(error: Any, composed: "DictConfig") -> str:
    """One line for a key that no settings have, or a value that is not of its type."""
    from omegaconf import OmegaConf
    from omegaconf.errors import ConfigKeyError, ValidationError

    key = re.sub(r"^alpha\b", "retain.alpha", error.full_key or str(error.key))
    reason = str(error).splitlines()[0]
    if not isinstance(error, ConfigKeyError | ValidationError):
        return f"{key}: {re.sub(r'^ValueError raised while resolving interpolation: ', '', reason)}"
    value = OmegaConf.select(composed, key)
    said = f"{key}={value}"
    if isinstance(error, ConfigKeyError):
        siblings: Any = OmegaConf.select(composed, key.rpartition(".")[0]) if "." in key else composed
        return unknown_key(said, key, siblings)
    return _unfit(key, value, error)


def _unfit(key: str, value: Any, error: Any) -> str:
    """One line for a value that is not of its key's type."""
    reason, said = str(error).splitlines()[0], f"{key}={value}"
    expected = re.search(r"converted to (Float|Integer)", reason)
    if reason.endswith("to string") or "to string: " in reason:
        return f"""{said}: must be a text; one with brackets is quoted twice: '{key}="[…]"'"""
    return f"{said}: must be {NUMBERS[expected[1]]}" if expected else f"{said}: {reason}"


def _expand_home(settings: Settings) -> None:
    """Turn a leading `~` of every path into the home folder."""

    def expanded(path: str) -> str:
        return str(Path(path).expanduser()) if path.startswith("~/") else path

    settings.output_dir = expanded(settings.output_dir)
    settings.model.path = expanded(settings.model.path)
    if settings.model.retrained is not None:
        settings.model.retrained = expanded(settings.model.retrained)
    if settings.method.name == "given":
        given: Any = settings.method
        given.path = expanded(given.path)
    if settings.data.refusals is not None:
        settings.data.refusals = expanded(settings.data.refusals)
    if settings.data.path is not None:
        settings.data.path = expanded(settings.data.path)
    for key in ("ngrams_path", "include_path", "tofu_path"):
        if (path := getattr(settings.eval, key)) is not None:
            setattr(settings.eval, key, expanded(path))
    if settings.wandb.dir is not None:
        settings.wandb.dir = expanded(settings.wandb.dir)
    for corpus in settings.data.corpora().values():
        corpus.path = expanded(corpus.path)


def _with_ngrams(options: EvalSettings) -> dict[str, TaskSettings]:
    """The tasks, each of role ngram as one for every size and group that was mined."""
    tasks: dict[str, TaskSettings] = {}
    for name, task in options.tasks.items():
        if task.role != "ngram" or task.n is not None:
            tasks[name] = task
            continue
        if options.ngrams_path is None:
            raise ValueError(f"eval.ngrams_path: a value is needed for eval.tasks.{name}; python -m rna.perturb ngrams")
        for n, group in mined.read_groups(options.ngrams_path):
            tasks[f"{name}_{n}_{group}"] = replace(task, n=n, group=group)
    return tasks


def _tuned_alpha(composed: "DictConfig") -> dict[str, float]:
    """The retain weights, by topic or `default`, of the chosen file of `conf/tuned`; none without one."""
    from omegaconf import OmegaConf

    tuned: Any = OmegaConf.select(composed, "tuned.alpha")
    weights: Any = OmegaConf.to_container(tuned, resolve=True) if OmegaConf.is_config(tuned) else tuned or {}
    if not isinstance(weights, dict):
        raise ValueError(f"tuned.alpha={weights}: must be weights by topic")
    for topic, weight in weights.items():
        if not isinstance(weight, int | float):
            raise ValueError(f"tuned.alpha.{topic}={weight}: must be a number")
    return {topic: float(weight) for topic, weight in weights.items()}


def _alpha_by_topic(settings: Settings, tuned: dict[str, float]) -> dict[str, float]:
    """The retain weight of each topic: its own, the default, the tuned, the tuned default; 1 if nothing was tuned."""
    topics, said = list(settings.data.topics), settings.alpha
    for key in said:
        if key not in (*topics, "default"):
            raise ValueError(f"retain.alpha.{key}={said[key]}: no such topic; {nearest(key, [*topics, 'default'])}")
    if not settings.method.trains:
        return {}
    tuned = tuned or {"default": UNTUNED_ALPHA}
    found: dict[str, float] = {}
    for topic in topics:
        weights = [each[key] for each in (said, tuned) for key in (topic, "default") if key in each]
        if not weights:
            raise ValueError(
                f"retain.alpha.{topic}: a value is needed, as tuned weights are for {', '.join(tuned)} alone; "
                f"give retain.alpha.{topic}=NUMBER, or retain.alpha.default=NUMBER"
            )
        found[topic] = weights[0]
    return found


def _changed(before: DataSettings, after: DataSettings) -> list[str]:
    """What variant=official has put in the place of what was composed, in one line; none if nothing."""

    def written(value: Any) -> Any:
        return "null" if value is None else value

    values = ((key, getattr(before, key), getattr(after, key)) for key in ("order", "max_refusals"))
    said = [f"data.{key}={new} in place of {written(old)}" for key, old, new in values if new != old]
    return [f"variant=official: {', '.join(said)}"] if said else []


def _read_as_official(settings: Settings) -> None:
    """How the authors' released code reads its data; how it computes its losses is in `rna.unlearning.methods`.

    The cyber corpus is raw lines, not parsed, except for RSV, which cuts all texts at 2,000 characters, the forget
    texts after stripping them. RM leaves out texts of four characters or less, PO empty ones. Data in file order, the
    first four refusals. Retain samples are cut at the topic's length, for RMU and Adaptive RMU at 512. lm-eval was
    one before 0.4.12, which gave no BOS.
    """
    data, released = settings.data, settings.method.released
    if released is None:
        if settings.method.trains:
            raise ValueError(f"variant=official: there is none of method={settings.method.name}; allowed: paper")
        released = method.Released(longer_than=0)
    if not method.is_own(type(settings.retain)):
        raise ValueError(f"variant=official: there is none of retain_loss={settings.retain_loss}; allowed: paper")
    if "cyber" in data.topics and released.raw_cyber:
        data.topics["cyber"].raw = True
    for corpus in data.corpora().values():
        corpus.longer_than, corpus.characters = released.longer_than, released.characters
    for corpus in data.topics.values():
        corpus.strip = released.characters is not None
    if settings.eval.add_bos_token is None:
        settings.eval.add_bos_token = False
    data.order, data.max_refusals = "file", 4
    if released.retain_length is not None:
        data.retain.max_length = released.retain_length
    else:
        data.retain_cut = {topic: corpus.max_length for topic, corpus in data.topics.items()}
        data.retain.max_length = max([*data.retain_cut.values(), 2])


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key}={value}: {nearest(value, list(allowed))}")


def _check_choices(settings: Settings) -> None:
    if not settings.output_dir.strip():
        raise ValueError(f"output_dir={settings.output_dir}: a folder is needed, such as outputs")
    chosen, reads = settings.method.name, settings.method.reads
    for group, field, _ in PLUGINS:
        method.check_numbers(group, getattr(settings, field))
    if settings.defended and (not settings.method.trains or settings.variant == "official"):
        said = f"method={settings.method.name}" if not settings.method.trains else "variant=official"
        raise ValueError(f"defence={settings.defence.name}: has no meaning with {said}; allowed: none")
    _one_of("optimizer.name", settings.optimizer.name, ("adamw", "sam"))
    _one_of("forget_weights.name", settings.forget_weights.name, ("none", "rare"))
    if settings.optimizer.name == "sam" and not 0 < settings.optimizer.rho < math.inf:
        raise ValueError(f"optimizer.rho={settings.optimizer.rho}: must be a finite number > 0")
    if settings.optimizer.name != "sam" and settings.optimizer.rho:
        raise ValueError(f"optimizer.rho={settings.optimizer.rho}: is of optimizer=sam")
    for key, value, neutral in (
        ("optimizer", settings.optimizer.name, "adamw"),
        ("forget_weights", settings.forget_weights.name, "none"),
    ):
        if value != neutral and settings.variant == "official":
            raise ValueError(f"{key}={value}: has no meaning with variant=official; allowed: {neutral}")
    for key, allowed in CHOICES.items():
        _one_of(key, attrgetter(key)(settings), allowed)
    if settings.model.attn_implementation is not None:
        _one_of("model.attn_implementation", settings.model.attn_implementation, ATTENTION)
    _check_devices(settings)
    check_wandb(settings.wandb)
    if settings.eval.backend == "vllm" and importlib.util.find_spec("vllm") is None:
        raise ValueError(
            "eval.backend=vllm: vLLM is not installed (pip install 'rna-unlearning[vllm]'); allowed: torch"
        )
    if settings.eval.race and (settings.train_only or settings.eval.kind != "choice"):
        why = "train_only=true" if settings.train_only else f"eval.kind={settings.eval.kind}"
        raise ValueError(f"eval.race=True: races by answers to questions, and {why} asks none; allowed: false")
    if settings.eval.chat_template and settings.eval.kind != "choice":
        raise ValueError(
            f"eval.chat_template=True: has no meaning with eval.kind={settings.eval.kind}; allowed with "
            "eval.kind=choice"
        )
    if not 1 <= settings.eval.replaced <= 3:
        raise ValueError(f"eval.replaced={settings.eval.replaced}: must be 1 to 3")
    if settings.eval.interim_roles is not None:
        present = list(dict.fromkeys(task.role for task in settings.eval.tasks.values()))
        alone = any(str(metric).endswith("/forget/nll") for metric in settings.train.until or ())
        for role in settings.eval.interim_roles or ([] if alone else [""]):
            _one_of("eval.interim_roles", role, tuple(present))
    _check_tasks(settings.eval)
    trains = settings.retain_loss != "none"
    if trains != settings.method.trains or (trains and settings.retain.reads != reads):
        raise ValueError(
            f"retain_loss={settings.retain_loss}: has no meaning with method={chosen}; allowed: "
            f"{', '.join(_retain_losses(settings.method))}"
        )
    if settings.noise.name == "relative" and settings.layer.site == "mlp":
        raise ValueError("noise=relative: measures the residual stream; allowed with layer.site=residual")
    if settings.noise.name == "inference":
        _check_inference(settings)
    if settings.layer.site == "mlp" and reads != method.LAYER:
        every = {one: method.known(one) for one in method.own_targets("method")}
        of_layer = [one for one, kind in every.items() if kind is not None and kind.reads == method.LAYER]
        raise ValueError(f"layer.site=mlp: has no meaning with method={chosen}; allowed with {', '.join(of_layer)}")


def _check_tasks(options: EvalSettings) -> None:
    """What can be said of tasks before any is looked for."""
    for name, task in options.tasks.items():
        key = f"eval.tasks.{name}"
        _one_of(f"{key}.role", task.role, roles.NAMES)
        for field, value in (("num_fewshot", task.num_fewshot), ("fewshot_seed", task.fewshot_seed)):
            if value is not None and value < 0:
                raise ValueError(f"{key}.{field}={value}: must be a whole number ≥ 0")
    folder = options.include_path
    if folder is not None and not any(Path(folder).glob("**/*.yaml")):
        why = "holds no .yaml file" if Path(folder).is_dir() else "no such folder"
        raise ValueError(f"eval.include_path={folder}: {why}; allowed: a folder of lm-eval task files")


def _retain_losses(chosen: method.Method) -> list[str]:
    """Our own retain losses that go with a method."""
    if not chosen.trains:
        return ["none"]
    names = [name for name in method.own_targets("retain_loss") if name != "none"]
    fitting = [name for name in names if (kind := method.known_retain(name)) and kind.reads == chosen.reads]
    return [*fitting, *outside.options("retain_loss")]


def wandb_of(composed: "DictConfig") -> WandbSettings | None:
    """W&B's settings of what a sweep's trials share; None where a trial's own check has something to say."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found = OmegaConf.to_object(_typed(composed.wandb, WandbSettings))
    except (OmegaConfBaseException, TypeError, ValueError):
        return None
    assert isinstance(found, WandbSettings)
    check_wandb(found)
    return found


def check_wandb(options: WandbSettings) -> None:
    """W&B's settings; what the environment said is called by its variable.

    Raises:
        ValueError: for a mode that does not exist, a project, group or tag that W&B refuses.
    """

    def said(key: str, value: str) -> str:
        variable = f"WANDB_{key.upper()}"
        return f"{variable if os.environ.get(variable) == value else f'wandb.{key}'}={value}"

    options.mode = WANDB_WORDS.get(options.mode, options.mode)
    if options.mode not in WANDB_MODES:
        raise ValueError(f"{said('mode', options.mode)}: {nearest(options.mode, list(WANDB_MODES))}")
    if bad := sorted(set(options.project) & set("/\\#?%:")) or len(options.project) > 128:
        why = f"has {' '.join(bad)}" if isinstance(bad, list) else "is too long"
        raise ValueError(
            f"{said('project', options.project)}: {why}; allowed: at most 128 letters, none of / \\ # ? % :"
        )
    if not options.project:
        raise ValueError("wandb.project=: a name is needed, such as rna")


def _check_inference(settings: Settings) -> None:
    """Noise at inference goes through our own scorer of choices, on the residual stream."""
    if settings.noise.samples < 1:
        raise ValueError(f"noise.samples={settings.noise.samples}: must be a whole number ≥ 1")
    for key, value, allowed in (
        ("eval.kind", settings.eval.kind, "choice"),
        ("eval.backend", settings.eval.backend, "torch"),
        ("layer.site", settings.layer.site, "residual"),
        ("train_only", settings.train_only, False),
    ):
        if value != allowed:
            raise ValueError(f"noise=inference: has no meaning with {key}={value}; allowed with {key}={allowed}")


def check_probe(settings: Settings) -> None:
    """A probe goes through our own scorer, with a trial's own questions.

    Raises:
        ValueError: for settings that it has no meaning with, or cannot work with.
    """
    said = f"probe={settings.probe.name}"
    for key, value, allowed in (
        ("eval.backend", settings.eval.backend, "torch"),
        ("train_only", settings.train_only, False),
        ("eval.race", settings.eval.race, False),
    ):
        if value != allowed:
            raise ValueError(f"{said}: has no meaning with {key}={value}; allowed with {key}={allowed}")
    if settings.noise.name == "inference":
        raise ValueError(f"{said}: has no meaning with noise=inference; allowed with noise=none")
    present = list(dict.fromkeys(task.role for task in settings.eval.tasks.values() if task.task != TOFU))
    if settings.eval.kind == "choice" and not present:
        raise ValueError(
            f"{said}: asks questions with choices, and eval.tasks has none; allowed with eval=demo, wmdp, …"
        )
    for role in settings.probe.roles if settings.eval.kind == "choice" else ():
        if role not in present:
            raise ValueError(f"probe.roles={settings.probe.roles}: {nearest(role, present)}")
    if method.RETRAINED in settings.probe.needs() and settings.model.retrained is None:
        raise ValueError(
            f"{said}: needs a model that was trained without what is to be forgotten; give model.retrained=FOLDER"
        )
    with method.users_code(settings.probe):
        settings.probe.check(settings)


def _check_devices(settings: Settings) -> None:
    """What can be said of devices and kernels without looking at the machine's own."""
    model = settings.model
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", model.device):
        raise ValueError(
            f"model.device={model.device}: supported are CPUs and NVIDIA GPUs; allowed: auto, cpu, cuda, cuda:1, …"
        )
    if model.device_map is not None:
        if isinstance(model.device_map, str):
            _one_of("model.device_map", model.device_map, ("auto", "balanced", "sequential"))
        elif not isinstance(model.device_map, dict):
            raise ValueError(
                f"model.device_map={model.device_map}: allowed: auto, balanced, sequential, or a mapping from modules "
                "to devices"
            )
        if model.device != "auto":
            raise ValueError(f"model.device={model.device}: has no meaning beside model.device_map={model.device_map}")
        if settings.train.compile:
            raise ValueError("train.compile=True: does not work with model.device_map, whose hooks move the streams")
    if model.attn_implementation == "flash_attention_2":
        if settings.variant == "official":
            raise ValueError(
                "model.attn_implementation=flash_attention_2: skips padding, which counts in variant=official; "
                "allowed there: sdpa, eager"
            )
        if importlib.util.find_spec("flash_attn") is None:
            raise ValueError(
                "model.attn_implementation=flash_attention_2: needs the package flash-attn; allowed: sdpa, eager"
            )
        if model.dtype == "float32":
            raise ValueError(
                "model.attn_implementation=flash_attention_2: has no kernels for model.dtype=float32; "
                "allowed with bfloat16, float16"
            )
    if settings.train_only and not settings.method.trains:
        raise ValueError(f"train_only=True: has no meaning with method={settings.method.name}, which trains nothing")
    if settings.train_only and settings.eval.interim_every is not None:
        raise ValueError(
            f"eval.interim_every={settings.eval.interim_every}: has no meaning with train_only=True, which evaluates "
            "nothing; allowed: null"
        )
    if settings.eval.interim_every is not None and settings.eval.backend != "torch":
        raise ValueError(
            f"eval.interim_every={settings.eval.interim_every}: only eval.backend=torch judges a model that trains"
        )
    if settings.train.compile and settings.train.gradient_checkpointing:
        raise ValueError("train.compile=True: does not work with train.gradient_checkpointing=True")


def _check_ranges(settings: Settings) -> None:
    train = settings.train
    at_least_zero = {
        "noise.nu": settings.noise.nu,
        **{f"retain.alpha.{topic}": alpha for topic, alpha in settings.alpha.items()},
    }
    above_zero = {
        "train.steps": train.steps,
        "train.lr": train.lr,
        "train.batch_size": train.batch_size,
        "train.eps": train.eps,
        "train.max_grad_norm": train.max_grad_norm,
        "train.grad_accumulation": train.grad_accumulation,
        "train.checkpoint_every": train.checkpoint_every,
        "train.checkpoint_minutes": train.checkpoint_minutes,
        "cache.max_gib": settings.cache.max_gib,
        "model.threads": settings.model.threads,
        "model.num_layers": settings.model.num_layers,
        "eval.batch_size": settings.eval.batch_size,
        "eval.interim_every": settings.eval.interim_every,
        "eval.max_new_tokens": settings.eval.max_new_tokens,
    }
    at_least_two = {  # a token that another one follows; a standard error
        **{f"{key}.max_length": corpus.max_length for key, corpus in settings.data.corpora().items()},
        "eval.limit": settings.eval.limit,
        "eval.interim_limit": settings.eval.interim_limit,
        "eval.max_documents": settings.eval.max_documents,
    }
    for key, value in at_least_zero.items():
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{key}={value}: must be a finite number ≥ 0")
    for key, value in above_zero.items():
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{key}={value}: must be a finite number > 0")
    for key, value in at_least_two.items():
        if value is not None and value < 2:
            raise ValueError(f"{key}={value}: must be a whole number ≥ 2")
    if not 0 <= settings.data.holdout < 1:
        raise ValueError(f"data.holdout={settings.data.holdout}: must be in [0, 1)")
    if not 0 <= settings.seed < 2**63:
        raise ValueError(f"seed={settings.seed}: must be a whole number in [0, 2^63)")


def _check_splits(settings: Settings) -> None:
    """Let what lies at `data.path` and names no files of its own be read by `data.split`, the forget set and its retain
    set."""
    data, options = settings.data, settings.eval
    tofu = any(task.task == TOFU for task in options.tasks.values())
    for key, split in (("data.split", data.split), ("eval.tofu_split", options.tofu_split if tofu else None)):
        if split is not None and retain_split(split) is None:
            raise ValueError(f"{key}={split}: {nearest(split, ['forget01', 'forget05', 'forget10'])}")
    if data.split is not None:
        for key, corpus in data.corpora().items():
            if corpus.path == data.path and corpus.files is None:
                corpus.files = f"{retain_split(data.split) if key == 'data.retain' else data.split}.*"
    if not tofu:
        return
    if options.template is None:
        options.template = next((one.template for one in data.topics.values() if one.pairs()), PAIR)
    options.template = options.template.replace("\\n", "\n")
    _check_template("eval.template", options.template)


def _check_template(key: str, template: str) -> None:
    if re.findall(r"\{question\}|\{answer\}", template) != ["{question}", "{answer}"]:
        raise ValueError(f"{key}={template!r}: must hold {{question}} and behind it {{answer}}, each once")


def _check_pairs(settings: Settings) -> None:
    """Question-answer pairs: both columns, a template that holds them in this order, and nothing without effect."""
    for key, corpus in settings.data.corpora().items():
        corpus.template = corpus.template.replace("\\n", "\n")  # a line's end as a command line has it
        if corpus.pairs():
            said = f"{key}.question={corpus.question}"
            if settings.variant == "official":
                raise ValueError(f"{said}: variant=official knows no question-answer pairs; allowed with variant=paper")
            if corpus.raw or corpus.field != CorpusSettings.field:
                other = "raw=True" if corpus.raw else f"field={corpus.field}"
                raise ValueError(f"{said}: has no meaning beside {key}.{other}; give one of them")
            _check_template(f"{key}.template", corpus.template)
            if key == "data.retain" and not corpus.answer_only:
                raise ValueError(f"{key}.answer_only=False: retain losses read all tokens anyway; leave it out")
            continue
        for name, other in (("question", "answer"), ("answer", "question")):
            if (value := getattr(corpus, name)) is not None:
                raise ValueError(f"{key}.{name}={value}: a pair has both; give {key}.{other}=COLUMN")
        for name in ("template", "answer_only"):
            if (value := getattr(corpus, name)) != getattr(CorpusSettings, name):
                raise ValueError(
                    f"{key}.{name}={value!r}: is of question-answer pairs; give {key}.question=… and {key}.answer=…"
                )


def _check_corpora(settings: Settings) -> None:
    if settings.method.trains and not settings.data.topics:
        raise ValueError("data.topics: at least one forget topic is needed; add +data.topics.NAME.path=FILE")
    if settings.eval.kind == "perplexity" and settings.data.holdout == 0:
        raise ValueError("data.holdout=0.0: eval=perplexity judges held-out documents; must be in (0, 1)")
    for key, corpus in settings.data.corpora().items() if settings.eval.kind == "perplexity" else ():
        if corpus.max_length < JUDGED:
            raise ValueError(
                f"{key}.max_length={corpus.max_length}: eval=perplexity judges documents of {JUDGED} tokens or more; "
                f"must be a whole number ≥ {JUDGED}"
            )


def _check_keywords(options: EvalSettings) -> None:
    """What is put into a text or a choice is a word."""
    for key, value in (("keyword", options.keyword), ("neutral_keyword", options.neutral_keyword)):
        if not value.strip():
            raise ValueError(f"eval.{key}={value}: a word is needed; give eval.{key}=WORD")
    read_keywords(options.keywords, options.keyword)


def read_num_layers(path: str, revision: str | None = None) -> int:
    """The number of decoder layers that the config.json of a folder, or of a hub model in the local cache, tells.

    Raises:
        ValueError: if there is no such folder or it says nothing of its layers.
    """
    architecture.refuse_nothing(path, "model.path")
    where = Path(path)
    folder = where if where.exists() else architecture.cached(path, revision) or where
    config = architecture.read_config(folder, f"model.path={path}")
    found = architecture.layers_of(config)
    if found is None:
        if "model_type" in config:
            architecture.check_config(config, f"model.path={path}")  # what model.num_layers would not help
        raise ValueError(f"model.path={path}: its config.json has no num_hidden_layers; give model.num_layers")
    return found


def _layer_list(key: str, value: Any, num_layers: int) -> list[int]:
    layers = [value] if isinstance(value, int) else value
    if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
        raise ValueError(f"{key}={value}: must be a layer or a list of layers")
    for layer in layers:
        if not 0 <= layer < num_layers:
            raise ValueError(f"{key}={value}: layer {layer} is outside the model; allowed: 0 to {num_layers - 1}")
    return sorted(set(layers))


def region(name: str, num_layers: int) -> list[int]:
    """A region's layers in a model of this depth: at the paper's depth those of Appendix E, elsewhere their share."""
    first, count = REGIONS[name]
    start = first * num_layers // REGION_DEPTH
    return list(range(start, start + max(1, round(count * num_layers / REGION_DEPTH))))


def _resolve_layers(settings: Settings, num_layers: int) -> None:
    """Turn `trained` and noise `layers` into lists; noise of no strength becomes no noise at all."""
    layer, noise = settings.layer, settings.noise
    _layer_list("layer.unlearn", layer.unlearn, num_layers)
    default = list(range(max(0, layer.unlearn - 2), layer.unlearn + 1))
    layer.trained = default if layer.trained is None else _layer_list("layer.trained", layer.trained, num_layers)
    above = [index for index in layer.trained if index > layer.unlearn]
    if above:
        raise ValueError(f"layer.trained={layer.trained}: layer {above[0]} is above layer.unlearn={layer.unlearn}")
    if noise.name == "none" or noise.nu == 0:
        settings.noise = NoiseSettings(name="none", layers=[])
        return
    reads_all = settings.method.reads != method.LAYER or noise.name == "inference"
    reach = num_layers if reads_all else layer.unlearn + 1
    if noise.layers == "unlearn":
        noise.layers = [layer.unlearn]
    elif noise.layers == "all":
        noise.layers = list(range(reach))
    elif isinstance(noise.layers, str) and noise.layers in REGIONS:
        noise.layers = region(noise.layers, num_layers)
    elif isinstance(noise.layers, str):
        allowed = ["unlearn", "all", *REGIONS, "a layer", "a list of layers"]
        raise ValueError(f"noise.layers={noise.layers}: {nearest(noise.layers, allowed)}")
    else:
        noise.layers = _layer_list("noise.layers", noise.layers, num_layers)
    if noise.layers[-1] >= reach:
        raise ValueError(
            f"noise.layers={noise.layers}: {settings.method.name} reads the stream at layer.unlearn={layer.unlearn}, "
            f"so noise above it has no effect; allowed: 0 to {reach - 1}"
        )
