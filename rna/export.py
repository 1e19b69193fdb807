"""`python -m rna.export KEY DIR`: a trial's unlearned model as a whole Hugging Face folder, with a model card.

`AutoModelForCausalLM.from_pretrained(DIR)` then gives the logits of the trial. `--push REPO` uploads the folder.
"""

import functools
import json
import math
import sys
from pathlib import Path
from typing import Any

from rna import intervals, printing
from rna.ends import guarded
from rna.printing import in_markdown
from rna.settings import DEFENCES, UNDEFENDED, ModelSettings, OptimizerSettings, hashes
from rna.store import Record, compared, results


def main() -> None:
    printing.prepare()
    parser = printing.Parser(prog=printing.program("export"), description=__doc__)
    parser.add_argument("key", help="a trial's KEY, or its beginning; python -m rna.records lists them")
    parser.add_argument("folder", help="where to write; must not exist yet, or be empty")
    parser.add_argument("--output-dir", default="outputs", help="where the trial was written (outputs)")
    parser.add_argument("--model-path", help="where the base model lies now, if not where the trial found it")
    parser.add_argument("--push", metavar="REPO", help="upload the folder to this hub repository, such as me/my-model")
    options = parser.parse_args()
    guarded(lambda: export(options.key, Path(options.folder), options.output_dir, options.model_path))
    if options.push:
        guarded(lambda: push(Path(options.folder), options.push))


def export(key: str, folder: Path, output_dir: str, model_path: str | None = None) -> None:
    """Write the base model with the trial's tensors in place, its tokenizer, and a model card.

    Raises:
        ValueError: if there is no such trial or it trained nothing, if its base model has changed since, or `folder`
            is not empty. Tensors that were not kept are trained again.
    """
    record = results.trained(output_dir, key)
    key, delta = record["key"], results.delta_path(output_dir, record["key"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"DIR={folder}: exists already; give a folder that does not, nothing is overwritten")

    decoder, tokenizer = base(record, output_dir, model_path, "cpu")

    from rna.decoder import model

    whole: Any = decoder.model
    temporary = folder.with_name(f".{folder.name}.partial")
    with model.installed(decoder, model.load_deltas(delta)):
        whole.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    (temporary / "README.md").write_text(card(record, *judged(record, output_dir)), encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    temporary.replace(folder)
    print(f"{folder}: {type(whole).__name__}, {record['config']['model']['dtype']}, with a model card", file=sys.stderr)


def base(record: Record, output_dir: str, model_path: str | None, device: str) -> tuple[Any, Any]:
    """The decoder and tokenizer that a trial was trained on, its tensors trained again if they were not kept.

    Raises:
        ValueError: if its base model has changed since.
    """
    chosen = ModelSettings(**record["config"]["model"])
    path = model_path or chosen.path
    own = results.model_fingerprint(path, chosen.revision, hashes(output_dir))
    if own != record["identity"]["model"]["fingerprint"]:
        raise ValueError(f"model.path={path}: not the model this trial was trained on; give --model-path FOLDER")

    from rna import progress, trial
    from rna.decoder import model

    with progress.display() as tell:
        trial.restore(output_dir, record["key"], functools.partial(tell, record["label"]))
    attention = chosen.attn_implementation
    attention = None if attention == "flash_attention_2" and device == "cpu" else attention  # which has GPUs alone
    return model.load(**chosen.loading(path=path, device=device, device_map=None, attn_implementation=attention))


def judged(record: Record, output_dir: str) -> tuple[list[Record], list[Record]]:
    """The evaluations of a trial, and those of its base on the same questions."""
    every = results.evaluations(output_dir, record["key"])
    own = [one for one in every if not one["task_identity"].get("smoothing")]  # noise is no part of what is exported
    return own, compared.base_evaluations(output_dir, own)


def push(folder: Path, repository: str) -> None:
    """Upload the folder as a private model repository.

    Raises:
        ValueError: if the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(repository, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repository, folder_path=folder)
    except Exception as error:  # the client raises errors of its own, and those of its HTTP library
        raise ValueError(
            f"--push {repository}: not uploaded ({type(error).__name__}: {str(error).splitlines()[0]}); "
            f"{folder} is complete; log in with `hf auth login`, or upload the folder yourself"
        ) from None
    print(f"https://huggingface.co/{repository}", file=sys.stderr)


def card(record: Record, evaluations: list[Record], base: list[Record]) -> str:
    """The model card: what was done to the model, with what, what came of it, and where the method is from.

    Args:
        base: the evaluations of the base model, with which these are compared.
    """
    config: dict[str, Any] = record["config"]
    method, noise = config["method"], config["noise"]
    numbers = {f"method.{key}": value for key, value in method.items() if value is not None}
    numbers["retain_loss"] = config["retain_loss"]
    for group in DEFENCES:
        options = config.get(group) or {}
        if options.get("name") in (None, UNDEFENDED, OptimizerSettings.name):
            continue
        numbers |= {group if key == "name" else f"{group}.{key}": value for key, value in options.items()}
    numbers |= {f"retain.alpha.{topic}": weight for topic, weight in config["alpha"].items()}
    if noise["name"] != "none":
        numbers |= {f"noise.{key}": noise[key] for key in ("nu", "scale", "layers")}
    numbers |= {f"layer.{key}": value for key, value in config["layer"].items()}
    numbers |= {f"train.{key}": config["train"][key] for key in ("steps", "lr", "batch_size", "grad_accumulation")}
    numbers |= {"seed": config["seed"], "variant": config["variant"]}
    topics = in_markdown(", ".join(config["data"]["topics"]))
    settings = "\n".join(f"| `{_in_code(key)}` | {in_markdown(str(value))} |" for key, value in numbers.items())
    metrics = "\n".join(_metric_rows(evaluations)) or "| – | not evaluated | |"
    changes = "\n".join(_change_rows(evaluations, base))
    changes = f"Changes, with 95 % intervals:\n\n{changes}\n\n" if changes else ""
    name = config["model"]["name"]
    with_noise = f"with Random Noise Augmentation (ν = {noise['nu']})" if noise["name"] != "none" else "without noise"
    return f"""---
library_name: transformers
base_model: {json.dumps(name, ensure_ascii=False)}
tags: [unlearning, {method["name"]}, random-noise-augmentation]
---
# {in_markdown(name)}, unlearned with {method["name"]} {with_noise}

This model was made to forget {topics} and to keep the rest. It is a research artefact:
unlearned knowledge can often be brought back, and a forget-token in a harmless prompt may make the model fail.

| setting | value |
|---|---|
{settings}

| evaluation | value | 95 % interval |
|---|---|---|
{metrics}

{changes}Intervals are over the questions or documents of each task, for this one training run.

Trial `{record["key"]}`, made by rna {record["rna"]} at commit `{record["commit"]}` on {record["created"]}.

Method: Dang Huu-Tien et al., *Improving LLM Unlearning Robustness via Random Perturbations*, TMLR 2026,
[arXiv:2501.19202](https://arxiv.org/abs/2501.19202).
"""


def _in_code(text: str) -> str:
    """Text between backticks in a table's cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def _metric_rows(evaluations: list[Record]) -> list[str]:
    """Each task by itself."""
    rows: list[str] = []
    for tasks in compared.scores(evaluations).values():
        for name, score in tasks.items():
            made, choice = intervals.estimate([[(1.0, score)]]), score.over == "questions"
            if made.low is None or made.high is None:
                continue
            values = [one if choice else math.exp(min(one, 700.0)) for one in (made.value, made.low, made.high)]
            value, low, high = (f"{one:.1f}" if choice else f"{one:.4g}" for one in values)
            what = "accuracy in %" if choice else "perplexity"
            rows.append(f"| {in_markdown(name)}, {what} | {value} | {low} to {high} |")
    return rows


def _change_rows(evaluations: list[Record], base: list[Record]) -> list[str]:
    """Against the base, question by question, and the harm of the forget keyword."""
    rows: list[str] = []
    for name, terms in compared.terms(compared.scores(evaluations), compared.scores(base)).items():
        if len(terms) > 1 and any(weight < 0 for weight, _ in terms):
            choice = terms[0][1].over == "questions"
            told = intervals.said(
                intervals.estimate([terms]), 1 if choice else 3, "points" if choice else "nats a token"
            )
            rows.append(f"- {name}: {told}")
    return rows


if __name__ == "__main__":
    main()
