"""One noise scale on two activation scales: ν as a fraction of the stream's root mean square, and as it is.

The second model is the first with its residual stream multiplied by a power of two and the same outputs. AdamW's step
is in units of the weights, so the second model's learning rate is multiplied with it, and AdamW's ε divided.
"""

import copy
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rna import progress, show, trial
from rna.analyze import draw
from rna.analyze.findings import Outcome, Rows, distinct, listed, of
from rna.corpora import data, pad
from rna.decoder import Decoder, model
from rna.intervals import t_95
from rna.settings import LOGITS, NoiseSettings, Settings, known, own_targets
from rna.store import results
from rna.trial import Arm
from rna.unlearning import train

FACTOR = 4.0  # a power of two, so that rescaling is exact
RATIOS = (0.1, 0.3, 1.0, 3.0)  # σ over the root mean square
ROLES = ("perturbed", "neutral", "retain", "forget")


def relative_noise(
    settings: Settings, decoder: Decoder, tokenizer: Any, layer: int, folder: Path, seeds: Sequence[int]
) -> Outcome:
    """Train both models with noise of the same fractions and of the same absolute scales, and compare accuracies.

    The first model's trials with a fraction r are at once those with σ = r·rms.

    Args:
        layer: where the noise falls.
        folder: where the second model and the trials' records go; what is there already is not computed again.

    Raises:
        ValueError: for an RM method, whose losses are in units of the stream, or a model that cannot be rescaled.
    """
    if settings.method.reads != LOGITS:
        every = {name: known(name) for name in own_targets("method")}
        allowed = [name for name, kind in every.items() if kind and kind.trains and kind.reads == LOGITS]
        raise ValueError(
            f"method={settings.method.name}: relative_noise compares losses that know no activation scale; "
            f"allowed: {', '.join(allowed)}"
        )
    own = replace(settings, output_dir=str(folder), wandb=replace(settings.wandb, mode="disabled"))
    corpora = data.load(own, tokenizer, trial.cache_of(own))
    rms = model.root_mean_squares(
        decoder, corpora.retain.documents[: train.MEASURED], [layer], tokenizer.pad_token_id or 0
    )[layer]
    other = _second(own, decoder, tokenizer, corpora.retain.documents[:4], folder)
    cells: list[tuple[str, float, int, Arm]] = []  # model, σ/rms of that model, seed, arm
    for seed in seeds:
        for name, one in (("base", own), ("rescaled", other)):
            noises = {0.0: NoiseSettings(name="none", layers=[])}
            noises |= {ratio: NoiseSettings("relative", ratio, "std", [layer]) for ratio in RATIOS}
            if name == "rescaled":
                absolute = {ratio / FACTOR: NoiseSettings("rna", ratio * rms, "std", [layer]) for ratio in RATIOS}
                noises |= {ratio: noise for ratio, noise in absolute.items() if ratio not in noises}
            for ratio, noise in noises.items():
                label = f"{name} {ratio:g} seed {seed}"
                cells.append((name, ratio, seed, trial.arm(label, replace(one, noise=noise, seed=seed))))
    wanted = [arm for *_, arm in cells if not arm.complete]
    if wanted:
        progress.work_on(wanted)
    rows: Rows = []
    for name, ratio, seed, arm in cells:
        arm.refresh()
        found = show.scores(arm)
        std = ratio * rms * (FACTOR if name == "rescaled" else 1.0)
        measured = {role: found[role].value for role in ROLES if role in found}
        rows.append({"model": name, "seed": seed, "std_over_rms": ratio, "std": std, "key": arm.key, **measured})
    return _told(rows, rms)


def _second(settings: Settings, decoder: Decoder, tokenizer: Any, documents: Sequence[Any], folder: Path) -> Settings:
    """The settings of the rescaled model, which is written if it is not there."""
    own = results.model_fingerprint(settings.model.path, settings.model.revision, settings.hashes())
    where = folder / f"rescaled-{own}-x{FACTOR:g}"
    if not where.is_dir():
        partial_folder = where.with_name(f".{where.name}.{os.getpid()}")
        made = rescaled(decoder, documents)
        made.save_pretrained(partial_folder)
        tokenizer.save_pretrained(partial_folder)
        try:
            partial_folder.replace(where)
        except OSError:  # somebody else was faster
            shutil.rmtree(partial_folder, ignore_errors=True)
    options = settings.train
    return replace(
        settings,
        model=replace(settings.model, path=str(where), revision=None, retrained=None),
        train=replace(options, lr=options.lr * FACTOR, eps=options.eps / FACTOR),
    )


def rescaled(decoder: Decoder, documents: Sequence[Any]) -> Any:
    """The whole model with a residual stream FACTOR times as large.

    Whatever writes to the stream (embeddings, `o_proj`, `down_proj`) is multiplied by s and the norms' ε by s², so
    that each RMSNorm gives what it gave before.

    Raises:
        ValueError: naming the architecture, if outputs on the documents are not what they were.
    """
    made: Any = copy.deepcopy(decoder.model)
    kind = type(made).__name__
    try:
        with torch.no_grad():
            made.model.embed_tokens.weight.mul_(FACTOR)
            for layer in made.model.layers:
                layer.self_attn.o_proj.weight.mul_(FACTOR)
                layer.mlp.down_proj.weight.mul_(FACTOR)
        made.config.rms_norm_eps *= FACTOR**2
    except AttributeError as error:
        raise ValueError(f"model: the stream of {kind} cannot be rescaled: {error}") from None
    for module in made.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = made.config.rms_norm_eps
    batch = pad([list(ids) for ids in documents], 0).to(decoder.device)
    with torch.no_grad():
        before, after = (
            one(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long()).logits[batch.mask_BT]
            for one in (decoder.model, made)
        )
    difference = (after - before).abs().max().item()
    if not difference <= 1e-3 * before.abs().max().item():
        raise ValueError(
            f"model: the stream of {kind} cannot be rescaled: its outputs change by {difference:.3g} (tied or "
            "normalised embeddings, or norms behind the blocks)"
        )
    return made


def _told(rows: Rows, rms: float) -> Outcome:
    table: Rows = []
    for cell in distinct(rows, "model", "std_over_rms", "std"):
        here: dict[str, Any] = {}
        for role in ROLES:
            values = of(rows, role, **cell) if role in rows[0] else []
            if values:
                here[role], here[f"{role}_margin"] = _over_seeds(values)
        table.append(cell | here | {"seeds": len(of(rows, "seed", **cell))})
    table.sort(key=lambda row: (row["model"], row["std_over_rms"]))
    pairs: Rows = []
    for ratio in RATIOS:
        for way, theirs in (("the same fraction", ratio), ("the same σ", ratio / FACTOR)):
            one = of(rows, "perturbed", model="base", std_over_rms=ratio)
            two = of(rows, "perturbed", model="rescaled", std_over_rms=theirs)
            gap, margin = _over_seeds([b - a for a, b in zip(one, two, strict=True)])
            largest = max(abs(b - a) for a, b in zip(one, two, strict=True))
            same: dict[str, Any] = {"way": way, "std_over_rms": ratio, "std": ratio * rms}
            pairs.append(same | {"rescaled_minus_base": gap, "margin": margin, "largest_of_a_seed": largest})

    def said(way: str) -> str:
        return listed(
            f"{row['rescaled_minus_base']:+.1f} ± {row['margin']:.1f} at {row['std_over_rms']:g}"
            for row in pairs
            if row["way"] == way
        )

    largest = {way: max(row["largest_of_a_seed"] for row in pairs if row["way"] == way) for way in _ways(pairs)}
    seeds = len({row["seed"] for row in rows})
    verdict = (
        f"Perturbed retain accuracy of a model with a stream {FACTOR:g} times as large, minus the base's, in points "
        f"(paired over {seeds} seeds, 95 % t-intervals), by the base's σ/rms: with ν the same fraction "
        f"{said('the same fraction')} (no seed differs by more than {largest['the same fraction']:.1f}); with the same "
        f"absolute ν {said('the same σ')} (up to {largest['the same σ']:.1f})."
    )
    tables = {"table": table, "pairs": pairs}
    return Outcome(tables, rows, verdict, partial(draw.collapse, table=table, factor=FACTOR), (9.5, 4.0))


def _ways(pairs: Rows) -> list[str]:
    return list(dict.fromkeys(row["way"] for row in pairs))


def _over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half the width of its 95 % interval by Student's t."""
    found = torch.tensor(values, dtype=torch.float64)
    stderr = (found.std() / len(found) ** 0.5).item()
    return found.mean().item(), t_95(len(found) - 1) * stderr
