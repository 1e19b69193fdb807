"""Whether a trial's strengths fit its model: the scales that methods work in, measured, and what cannot work there.

The scale of a layer is the median token norm, not the root mean square of all tokens: in many models the first tokens
have norms tens of times as large as the others', and no method moves those.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from rna import perturb
from rna.corpora import Corpora, data, pad
from rna.decoder import Decoder, model
from rna.settings import Settings
from rna.unlearning.noise import standard_deviation

MEASURED = 64  # documents of each corpus
NOISE = (0.01, 3.0)  # of ν over a dimension's root mean square; the paper's published ν are 0.13 to 1.1 times it


def token_norms(
    decoder: Decoder, documents: Sequence[list[int]], layers: Iterable[int], pad_id: int
) -> dict[int, torch.Tensor]:
    """The norm of each token of the stream that leaves each of these layers, over the first documents."""
    wanted = sorted(set(layers))
    found: dict[int, list[torch.Tensor]] = {layer: [] for layer in wanted}
    for first in range(0, min(len(documents), MEASURED), 8):
        stop = min(first + 8, MEASURED)
        batch = pad([documents[index] for index in range(first, min(stop, len(documents)))], pad_id)
        batch = batch.to(decoder.device)
        with torch.no_grad():
            stream = model.embed(decoder, batch)
            for layer in wanted:
                stream = model.advance(decoder, stream, layer + 1)
                hidden_ND = stream.hidden_BTD[batch.mask_BT.to(stream.hidden_BTD.device)]
                found[layer].append(hidden_ND.float().norm(dim=-1))
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def root_mean_square(norms: torch.Tensor, width: int) -> float:
    """Of a dimension of the middle token: its norm over √D."""
    return norms.median().item() / width**0.5


def warnings(settings: Settings, decoder: Decoder, corpora: Corpora, pad_id: int) -> list[str]:
    """What cannot work in a trial's strengths, a line each; its corpora are read and its model is loaded."""
    return [*_target(settings, decoder, corpora, pad_id), *_noise(settings, decoder, corpora, pad_id)]


def _target(settings: Settings, decoder: Decoder, corpora: Corpora, pad_id: int) -> list[str]:
    """A method's aim against the norm of the forget tokens at the unlearn layer."""
    aim, layer = settings.method.aim, settings.layer.unlearn
    if aim is None or settings.layer.site == "mlp":
        return []
    low, high, value = aim.least, aim.most, getattr(settings.method, aim.number)
    if aim.relative:
        if low <= value <= high:
            return []
        return [f"method.{aim.number}={value:g}: a target {_side(value, low, high)} of the token's own norm"]
    norms = [token_norms(decoder, corpus.documents, [layer], pad_id)[layer] for corpus in corpora.forget.values()]
    middle = torch.cat(norms).median().item()
    ratio = value / middle
    if low <= ratio <= high:
        return []
    return [
        f"method.{aim.number}={value:g}: {_digits(ratio)} times the norm of the forget tokens at layer "
        f"{layer} ({middle:.3g}), {_side(ratio, low, high)} times; python -m rna.suggest gives strengths that fit"
    ]


def _noise(settings: Settings, decoder: Decoder, corpora: Corpora, pad_id: int) -> list[str]:
    """ν against the root mean squares of the layers it falls on: out of bounds for all of them."""
    noise, (low, high) = settings.noise, NOISE
    if noise.name not in ("rna", "relative"):
        return []
    std = standard_deviation(noise.nu, noise.scale)
    ratios = [std]
    said = "of the layers' root mean square"
    if noise.name == "rna":
        norms = token_norms(decoder, corpora.retain.documents, noise.layers, pad_id)
        scales = [root_mean_square(found, decoder.width) for found in norms.values()]
        ratios = [std / scale for scale in scales]
        said = f"of a dimension's root mean square there ({', '.join(f'{scale:.2g}' for scale in scales)})"
    nearest = max(ratios) if max(ratios) < low else min(ratios)
    if low <= nearest <= high:
        return []
    return [
        f"noise.nu={noise.nu:g}: {_digits(100 * nearest)} % {said}, {_side(100 * nearest, 100 * low, 100 * high)} %; "
        "noise=relative takes a fraction of it, noise=none leaves it out"
    ]


def _digits(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _side(value: float, low: float, high: float) -> str:
    return f"below {low:g}" if value < low else f"above {high:g}"


def keyword_warnings(settings: Settings) -> list[str]:
    """The forget keywords that stand nowhere in the forget texts, in one line: what they do is no harm of forgetting.

    Words count, not their case nor the marks between them. A corpus is read up to where the last keyword is found.
    """
    options = settings.eval
    judged = options.kind == "perplexity" or any(
        task.role in ("perturbed", "forget_perturbed") for task in options.tasks.values()
    )
    if not settings.method.trains or settings.train_only or not judged:
        return []
    keywords = perturb.read_keywords(options.keywords, options.keyword)
    missing = {keyword: f" {_words(keyword)} " for keyword in keywords}
    for topic, corpus in settings.data.topics.items():
        for text in data.read_texts(corpus, f"data.topics.{topic}.path"):
            said = f" {_words(text)} "
            missing = {keyword: words for keyword, words in missing.items() if words not in said}
            if not missing:
                return []
    key = "eval.keywords" if options.keywords is not None else "eval.keyword"
    few = ", ".join(list(missing)[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    files = ", ".join(dict.fromkeys(Path(corpus.path).name for corpus in settings.data.topics.values()))
    return [f"{key}={few}: nowhere in the forget texts ({files}); give one that is"]


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
