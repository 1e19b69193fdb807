"""The exact commands that reproduce a trial, and those that would compute what a report misses."""

import shlex
from collections.abc import Sequence
from typing import Any

from rna.report.records import Study, Trial
from rna.settings import (
    DEFENCES,
    UNDEFENDED,
    CorpusSettings,
    EvalSettings,
    LayerSettings,
    ModelSettings,
    NoiseSettings,
    OptimizerSettings,
    TrainSettings,
    hydra_text,
)

RUN = "python -m rna.run"
MORE_SEEDS = 5


def quoted(words: Sequence[str]) -> str:
    """The words as a shell takes them; what needs no quotes gets none."""
    return " ".join([RUN, *(shlex.quote(word) for word in words)])


def reproduce(trials: Sequence[Trial]) -> str:
    """The command of trials that differ in nothing but the seed."""
    trial = trials[0]
    seeds = ",".join(str(one.seed) for one in trials)
    several = ["-m"] if len(trials) > 1 else []
    return quoted([*several, *overrides(trial), *([f"seed={seeds}"] if trial.method else [])])


def more_seeds(trials: Sequence[Trial]) -> str:
    """The command that brings other seeds to one that has been run."""
    (first, *_) = sorted({trial.seed for trial in trials})
    seeds = ",".join(str(seed) for seed in range(first, first + MORE_SEEDS))
    return quoted(["-m", *overrides(trials[0]), f"seed={seeds}"])


def overrides(trial: Trial) -> list[str]:
    """Every setting a trial depends on, as overrides; without its seed."""
    config = trial.config
    method = config["method"]
    words = [f"model={config['model']['name']}", f"data={config['data']['name']}", f"eval={config['eval']['name']}"]
    words.append(f"method={method['name']}")
    if trial.family == "PO":
        words.append(f"retain={config['retain_loss']}")
    words += [f"method.{name}={value}" for name, value in method.items() if name != "name" and value is not None]
    if trial.method:
        alpha = config["alpha"]
        if len(set(alpha.values())) == 1:
            words.append(f"retain.alpha.default={next(iter(alpha.values()))}")
        else:
            words += [f"retain.alpha.{topic}={value}" for topic, value in alpha.items()]
        for group in DEFENCES:
            options = config.get(group) or {}
            if options.get("name") in (None, UNDEFENDED, OptimizerSettings.name):
                continue
            words.append(f"{group}={options['name']}")
            numbers = {name: value for name, value in options.items() if name != "name" and value is not None}
            words += [f"{group}.{name}={hydra_text(value)}" for name, value in numbers.items()]
        noise = config["noise"]
        words.append(f"noise={noise['name']}")
        if noise["name"] != "none":
            words += [f"noise.nu={noise['nu']}", f"noise.layers={_listed(noise['layers'])}"]
            words += [f"noise.scale={noise['scale']}"] if noise["scale"] != NoiseSettings().scale else []
        layer, train = config["layer"], config["train"]
        words += [f"layer.unlearn={layer['unlearn']}", f"layer.trained={_listed(layer['trained'])}"]
        words += _differing("layer", layer, LayerSettings(), skip=("unlearn", "trained"))
        words += [f"train.steps={train['steps']}", f"train.lr={train['lr']}"]
        variant = config.get("variant", "paper")
        own = ("eps",) if variant != "paper" else ()  # whose default depends on the variant
        words += [f"train.{name}={train[name]}" for name in own]
        words += _differing("train", train, TrainSettings(), skip=("steps", "lr", *own))
        words += [f"variant={variant}"] if variant != "paper" else []
    words += _differing("model", config["model"], ModelSettings(), only=("dtype", "attn_implementation"))
    if config["model"]["name"] == "local":
        words.append(f"model.path={hydra_text(config['model']['path'])}")
        words.append(f"model.unlearn_layer={config['model']['unlearn_layer']}")
    if config["data"]["name"] != "demo":
        corpora = {f"topics.{topic}": item for topic, item in config["data"]["topics"].items()}
        for name, item in {**corpora, "retain": config["data"]["retain"]}.items():
            words += [f"data.{name}.path={hydra_text(item['path'])}", *_reads(f"data.{name}", item)]
    names = "keyword neutral_keyword seed limit add_bos_token chat_template of_above ngrams_path".split()
    names += ["interim_every", "interim_limit", "interim_roles"] if config["train"].get("until") is not None else []
    return words + _differing("eval", config["eval"], EvalSettings(), only=tuple(names))


def _reads(group: str, corpus: dict[str, Any]) -> list[str]:
    """Overrides for what is read of a corpus, beside its path."""
    words = _differing(group, corpus, CorpusSettings(), only=("files", "field", "question", "answer", "answer_only"))
    template = corpus.get("template", CorpusSettings.template)
    escaped = template.replace('"', '\\"').replace("\n", "\\n")
    return words + ([f'{group}.template="{escaped}"'] if template != CorpusSettings.template else [])


def _differing(
    group: str,
    values: dict[str, Any],
    neutral: object,
    *,
    skip: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None,
) -> list[str]:
    """Overrides for the group's values that differ from their defaults; what this version does not know is left out."""
    names = [name for name in values if name not in skip and (only is None or name in only)]
    known = [name for name in names if hasattr(neutral, name) and values[name] is not None]
    return [f"{group}.{name}={hydra_text(values[name])}" for name in known if values[name] != getattr(neutral, name)]


def _listed(value: Any) -> str:
    return str(value).replace(" ", "")


def sweep(study: Study, *words: str) -> str:
    """A command that would compute what is missing, on the study's model, data and evaluation."""
    config = study.config
    groups = [
        f"{group}={config[group]['name']}" for group in ("model", "data", "eval") if config[group]["name"] != "demo"
    ]
    return quoted(["-m", *groups, *words])


MINE = "python -m rna.perturb ngrams"


def ngrams(study: Study, n: int | str, *settings: str) -> str:
    """The commands that mine n-grams of this size and evaluate the study's trials on them."""
    config = study.config
    topics: list[str] = [str(item["path"]) for item in config["data"]["topics"].values()]
    own = [] if config["data"]["name"] == "demo" else topics
    mine = " ".join([MINE, *(shlex.quote(path) for path in own), f"--n {n}"])
    groups = [f"{group}={config[group]['name']}" for group in ("model", "data") if config[group]["name"] != "demo"]
    words = [
        *groups,
        "eval=ngram_similarity",
        *([] if own else ["eval.ngrams_path=outputs/ngrams.parquet"]),  # else the built-in 2-grams
        "method=npo",
        "retain=mse",
        *(settings or ("noise=none,rna",)),
        "seed=0,1,2",
    ]
    return f"{mine}\n{quoted(['-m', *words])}"


def more_alphas(study: Study, trial: Trial) -> str:
    """The command for a trade-off curve of a trial's method over α, with its own noise and its plain twins."""
    values = {float(value) for value in trial.config["alpha"].values()}
    centre = sorted(values)[len(values) // 2] if values else 1.0
    grid = ",".join(f"{centre * factor:g}" for factor in (0.25, 0.5, 1, 2, 4))
    words = [word for word in overrides(trial) if not word.startswith(("retain.alpha", "model=", "data=", "eval="))]
    return sweep(study, *words, f"retain.alpha.default={grid}", "seed=0,1,2")


def to_a_target(study: Study) -> str:
    """The command for trainings that stop where they have forgotten alike, with their plain twins."""
    words = ["train.until={eval/forget/acc: 0.35}", "eval.interim_every=10", "train.steps=400"]
    return sweep(study, "method=npo", "retain=mse", *words, "seed=0,1,2")


def middle(study: Study) -> int:
    """The number of decoder layers, or what is known of it."""
    config = study.config
    return int(config["model"].get("num_layers") or config["layer"]["unlearn"] + 1)
