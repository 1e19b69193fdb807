"""`rna.unlearn`: a trial on a model and texts in memory.

The texts become files and the arguments overrides, so that what runs is `rna.trial.work`, as for the command line: the
same checks, the same steps, the same tensors to the bit.
"""

import copy
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rna import decoder, progress, trial
from rna.decoder import Decoder
from rna.ends import TrialFailed
from rna.settings import LOADED, Settings, compose, config, hydra_text, outside
from rna.store import Record, results

Texts = Iterable[str]
GIVEN = ("path", "revision", "dtype", "device", "device_map", "num_layers", "retrained")  # what the model says itself
DEPTH, LAYER = 32, 7  # of the paper's models, and their unlearn layer


@dataclass(frozen=True, repr=False)
class Unlearned:
    """What came of `unlearn`.

    Attributes:
        deltas: the trained tensors by the model's own names, on the CPU, in the model's dtype.
        curve: of each step the losses, norms and speed, as in a record: `train/forget_loss`, `train/retain_loss`, …
        warnings: what cannot work in the strengths chosen, and what a check changed.
        key: the trial's KEY.
        record: what is recorded of the training.
        settings: all that the trial was made with.
    """

    deltas: dict[str, Tensor]
    curve: list[dict[str, float]]
    warnings: list[str]
    key: str
    record: Record
    settings: Settings
    base: Any
    in_place: bool = False

    def __repr__(self) -> str:
        """What it is, and how much of it; not the tensors and each step's numbers."""
        told = f"{len(self.deltas)} tensors, {len(self.curve)} steps, {len(self.warnings)} warnings"
        return f"Unlearned({self.key}: {told})"

    @cached_property
    def model(self) -> Any:
        """The unlearned model: that which was given, with `in_place`; else a copy of it as it is when this is first
        asked for, with the trained tensors in place."""
        if self.in_place:
            return self.base
        made = copy.deepcopy(self.base)
        decoder.install(made, self.deltas)
        return made


def unlearn(
    model: Any,
    tokenizer: Any,
    forget: Texts | Mapping[str, Texts],
    retain: Texts,
    method: str = "npo",
    *,
    retain_loss: str | None = None,
    unlearn_layer: int | None = None,
    seed: int = 0,
    in_place: bool = False,
    output_dir: str | Path | None = None,
    on_step: Callable[[int, dict[str, float]], None] | None = None,
    show: bool = True,
    config_dir: str | Path | None = None,
    overrides: Sequence[str] = (),
    **options: Any,
) -> Unlearned:
    """Make a loaded model forget texts and keep others, as `python -m rna.run` does.

        done = rna.unlearn(model, tokenizer, forget=texts, retain=others, method="rmu", train={"steps": 100})
        done.model.generate(…)

    The reference is the model as it is given. It is neither changed (but `in_place`) nor moved: any device and any of
    float32, bfloat16 and float16 (this on GPUs alone) will do. Only the tensors of a few layers train, none of which is
    tied; modes, `requires_grad` and the global random generators are as before.

    Args:
        model: a causal LM of transformers, whole and not quantised, of an architecture that `model.path` takes.
        tokenizer: the model's.
        forget: the texts to forget, or such by topic: each then has its own steps, in turn, and its own retain weight.
        retain: the texts to keep.
        method: as on the command line.
        retain_loss: `mse`, `kl`, …; None: the method's own, or kl.
        unlearn_layer: 0-indexed; None: the paper's 7 of 32 at the model's depth, unless `model` is among the options.
        seed: of control vectors, noise, refusals and the order of the texts.
        in_place: whether the given model becomes the unlearned one, once training is over.
        output_dir: where the trial is recorded, with its tensors, and recognised another time; None: nowhere.
        on_step: called after each step with its number, from 1, and its part of the curve.
        show: whether how far it is stands on stderr.
        config_dir: a folder of options of one's own.
        overrides: as on the command line, `["noise=relative", "train.lr=1e-4"]`.
        options: the same as arguments: a group's option or a key's value, `noise="none"`, `variant="official"`,
            `**{"noise.nu": 0.03}`; or several keys of a group, `train={"steps": 100, "lr": 1e-4}`.

    Returns:
        The unlearned model, the trained tensors, the curve and warnings.

    Raises:
        ValueError: naming the argument, its value and what is allowed.
        rna.ends.TrialFailed: where the loss is not finite, or memory is short.
    """
    dtype = decoder.check(model, tokenizer)
    topics = _topics(forget)
    kept = _texts("retain", retain)
    said = [*overrides, *_overrides(options)]
    _refuse_given(said)
    config.register_resolvers()
    if config_dir is not None:
        outside.bring(str(config_dir))
    with ExitStack() as stack:
        place = str(output_dir) if output_dir is not None else stack.enter_context(tempfile.TemporaryDirectory("rna"))
        results.check_writable(place)
        files = {topic: _written(place, texts) for topic, texts in topics.items()}
        names = {f"data.topics.{topic}.path={file}": _named(forget, topic) for topic, file in files.items()}
        file = _written(place, kept)
        names[f"data.retain.path={file}"] = "retain"
        own = {"method": method, "retain_loss": retain_loss, "seed": seed, "output_dir": place}
        words = [f"{key}={hydra_text(value)}" for key, value in own.items() if value is not None]
        words += _defaults(model, said, unlearn_layer, recorded=output_dir is not None)
        words += [*said, *_facts(model, tokenizer, dtype, hashed=output_dir is not None)]
        words += [*_of_topics([*words], files), f"data.retain.path={hydra_text(file)}"]
        try:
            settings = config.check(compose(words, None))
            if not settings.method.trains:
                raise ValueError(f"method={settings.method.name}: trains nothing")
            layer_path = settings.model.layer_path
            parts, words_of = stack.enter_context(decoder.borrowed(model, tokenizer, layer_path))
            record = _worked(settings, parts, words_of, on_step, show)
        except ValueError as error:
            raise ValueError(_in_arguments(str(error), names)) from None
        except TrialFailed as failure:
            if output_dir is None:  # whose record is gone by now
                failure.args = (str(failure).partition("; recorded in ")[0],)
            raise
        deltas = decoder.model.load_deltas(results.delta_path(place, record["key"]))
        if output_dir is not None:
            results.claim(place, record["key"])
    if in_place:
        decoder.install(model, deltas)
    warnings = [*settings.notices, *record["warnings"]]
    return Unlearned(deltas, record["curve"], warnings, record["key"], record, settings, model, in_place)


def _topics(forget: Any) -> dict[str, list[str]]:
    """The texts by topic; of texts alone the topic is `text`, as with data=text."""
    if not isinstance(forget, Mapping):
        return {"text": _texts("forget", forget)}
    for topic in forget:
        if not isinstance(topic, str) or not re.fullmatch(r"[A-Za-z_]\w*", topic, re.ASCII) or topic == "default":
            raise ValueError(f"forget: topic {topic!r}: must be a word of letters, digits and _, and not 'default'")
    if not forget:
        raise ValueError("forget={}: at least one topic with its texts is needed")
    return {topic: _texts(_named(forget, topic), texts) for topic, texts in forget.items()}


def _named(forget: Any, topic: str) -> str:
    return f"forget['{topic}']" if isinstance(forget, Mapping) else "forget"


def _texts(name: str, given: Any) -> list[str]:
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"{name}={given!r:.40}: must be texts, a list of strings")
    found = list(given)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise ValueError(f"{name}[{place}]={text!r:.40}: must be a string")
    if not any(map(str.strip, found)):
        raise ValueError(f"{name}: has no text that is not blank; give some")
    return found


def _overrides(options: Mapping[str, Any]) -> list[str]:
    """Arguments as they are written on a command line."""
    found: list[str] = []
    for key, value in options.items():
        pairs = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
        found += [f"{name}={_text(one)}" for name, one in pairs.items()]
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return hydra_text(value if isinstance(value, int | float) else str(value))


def _keys(words: Iterable[str]) -> set[str]:
    return {word.lstrip("+~").partition("=")[0] for word in words}


def _refuse_given(said: Sequence[str]) -> None:
    """Refuse to be told what the arguments are."""
    for key in _keys(said):
        group, _, name = key.partition(".")
        if group == "model" and name in GIVEN:
            raise ValueError(f"{key}: is the given model's own; leave it out")
        if group == "data" and name.endswith("path"):
            raise ValueError(f"{key}: the texts are those of forget and retain; leave it out")


def _defaults(model: Any, said: Sequence[str], unlearn_layer: int | None, *, recorded: bool) -> list[str]:
    """What holds in Python where nothing is said: no questions, no twin, no W&B, all texts train."""
    keys = _keys(said)
    usual = {"model": "local", "data": "text", "wandb": "disabled", "baseline": "skip"}
    found: dict[str, Any] = {key: value for key, value in usual.items() if key not in keys}
    if "model" in found or unlearn_layer is not None:
        depth = model.config.get_text_config().num_hidden_layers
        found["model.unlearn_layer"] = LAYER * depth // DEPTH if unlearn_layer is None else unlearn_layer
    if "data.holdout" not in keys:
        found["data.holdout"] = 0.0
    if "eval" not in keys and not any(key.startswith("eval.tasks") for key in keys):
        found["eval.tasks"] = None
    if not recorded:
        found |= {"cache.enabled": False, "train.checkpoint_minutes": None}
    return [f"{key}={_text(value)}" for key, value in found.items()]


def _facts(model: Any, tokenizer: Any, dtype: str, *, hashed: bool) -> list[str]:
    """What the given model says of itself, which no override changes."""
    name = Path(str(getattr(model.config, "name_or_path", "") or "")).name or "loaded"
    known = decoder.fingerprint(model, tokenizer) if hashed else "unnamed"
    facts = {
        "name": name,
        "path": f"{LOADED}{known}",
        "revision": None,
        "retrained": None,
        "dtype": dtype,
        "num_layers": model.config.get_text_config().num_hidden_layers,
    }
    return [f"model.{key}={_text(value)}" for key, value in facts.items()]


def _of_topics(words: list[str], files: Mapping[str, str]) -> list[str]:
    """The topics of the chosen data, made those that are given."""
    there: list[str] = list(compose(words, None).data.topics)
    gone = [f"~data.topics.{topic}" for topic in there if topic not in files]
    return gone + [f"++data.topics.{topic}.path={hydra_text(file)}" for topic, file in files.items()]


def _written(place: str, texts: Sequence[str]) -> str:
    """Texts as a file below the output folder, named by what it holds."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    file = Path(place).expanduser() / "texts" / f"{hashlib.sha256(lines.encode()).hexdigest()[:16]}.jsonl"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(lines, encoding="utf-8")
    return str(file)


def _worked(
    settings: Settings,
    parts: Decoder,
    tokenizer: Any,
    on_step: Callable[[int, dict[str, float]], None] | None,
    show: bool,
) -> Record:
    """The trial, trained if it has no record; its record."""
    row = trial.arm(trial.own_label(settings), settings, rerun=settings.rerun)
    if row.lost:
        raise ValueError(f"output_dir={settings.output_dir}: the tensors of {row.key} were not kept; give rerun=True")
    told = replace(trial.NOBODY, step=lambda _, step, report: on_step(step, report)) if on_step else trial.NOBODY
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        stack.callback(torch.set_num_threads, threads)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        tell = partial(stack.enter_context(progress.display()), row.label) if show else _silent
        trial.work(row, tell, listener=told, loaded=(parts, tokenizer))
    assert row.trained is not None
    return row.trained


def _silent(*_: Any) -> None:
    return


def _in_arguments(said: str, names: Mapping[str, str]) -> str:
    """A message that names the argument in the place of the file that was made of it."""
    for file, name in names.items():
        said = said.replace(file, name)
    return said
