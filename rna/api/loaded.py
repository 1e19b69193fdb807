"""`rna.load`: a trial's unlearned model."""

import copy
from pathlib import Path
from typing import Any, Literal, overload

from rna import decoder, export
from rna.settings import LOADED
from rna.store import Record, results


@overload
def load(
    key: str,
    output_dir: str | Path = "outputs",
    *,
    model: Any = None,
    model_path: str | None = None,
    device: str = "auto",
    tokenizer: Literal[False] = False,
) -> Any: ...
@overload
def load(
    key: str,
    output_dir: str | Path = "outputs",
    *,
    model: Any = None,
    model_path: str | None = None,
    device: str = "auto",
    tokenizer: Any,
) -> tuple[Any, Any]: ...
def load(
    key: str,
    output_dir: str | Path = "outputs",
    *,
    model: Any = None,
    model_path: str | None = None,
    device: str = "auto",
    tokenizer: Any = False,
) -> Any:
    """A trial's unlearned model, a causal LM of transformers in evaluation mode that may be trained further.

    Args:
        key: the trial's KEY, or its first letters, four at least.
        output_dir: where the trial was written.
        model: the base, of a trial of `rna.unlearn`, whose model was in memory; it stays as it is.
        model_path: where the base model lies now, if not where the trial found it.
        device: `auto` (the first GPU if there is one), `cpu`, `cuda`, `cuda:1`, …; a `model` stays on its own.
        tokenizer: True, to have the base's tokenizer too; with `model`, its tokenizer, by which it is known.

    Returns:
        The model; with a `tokenizer`, the model and the tokenizer.

    Raises:
        ValueError: if there is no such trial or it trained nothing, or for another base model than it was trained on.
    """
    folder = str(output_dir)
    record = results.trained(folder, key)
    if model is not None or record["config"]["model"]["path"].startswith(LOADED):
        whole, words = _copied(record, model, tokenizer), tokenizer
    else:
        parts, words = export.base(record, folder, model_path, device)
        whole: Any = parts.model
    deltas = decoder.model.load_deltas(results.delta_path(folder, record["key"]))
    decoder.install(whole, deltas)
    whole.eval().requires_grad_(True)
    return (whole, words) if tokenizer is not False else whole


def _copied(record: Record, model: Any, tokenizer: Any) -> Any:
    """A copy of the model that was in memory when the trial was trained."""
    key = record["key"]
    if model is None or tokenizer in (False, True):
        raise ValueError(f"KEY={key}: trained on a model that was given in Python; give it: model=…, tokenizer=…")
    if f"{LOADED}{decoder.fingerprint(model, tokenizer)}" != record["identity"]["model"]["fingerprint"]:
        raise ValueError(f"model: not the one that trial {key} was trained on")
    return copy.deepcopy(model)
