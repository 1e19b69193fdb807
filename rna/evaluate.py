"""lm-eval in, flat metrics out; and token perplexity for models too small for multiple choice."""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from rna import losses, model, perturb
from rna.batch import pad
from rna.model import Decoder
from rna.settings import TASKS, EvalSettings

Metrics = dict[str, float]
Progress = Callable[[int, int], None]  # (done, total)


def multiple_choice(
    decoder: Decoder, tokenizer: Any, names: list[str], options: EvalSettings, progress: Progress
) -> dict[str, Metrics]:
    """Zero-shot accuracy and its standard error on each of the tasks, by lm-eval.

    Args:
        names: names of `options.tasks` to run; all of their requests go through the model together.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval.evaluator import evaluate
    from lm_eval.models import huggingface
    from lm_eval.tasks import TaskManager

    hflm: Any = huggingface.HFLM

    class Harness(hflm):
        """lm-eval's own model, telling how far it is."""

        done = 0

        def loglikelihood(self, requests: Any, **_: Any) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)  # `progress` shows how far it is

        def _model_call(self, inps: torch.Tensor, **rest: Any) -> torch.Tensor:
            self.done += len(inps)
            progress(self.done, questions)
            return super()._model_call(inps, **rest)

    metadata: dict[str, Any] = {
        "keyword": options.keyword,
        "neutral_keyword": options.neutral_keyword,
        "seed": options.seed,
    }
    if options.limit is not None:
        metadata["limit"] = options.limit
    tasks = {name: options.tasks[name].task for name in names}
    manager = TaskManager(include_path=str(TASKS), include_defaults=False, metadata=metadata)
    loaded = manager.load(list(dict.fromkeys(tasks.values())))
    questions = sum(len(task.eval_docs) for task in loaded["tasks"].values())
    # `simple_evaluate` would index all of lm-eval's tasks again, seed every global generator and probe the machine.
    found: Any = evaluate(
        # lm-eval ignores a `batch_size` given beside a model that exists already, so the harness has to carry it.
        Harness(pretrained=decoder.model, tokenizer=tokenizer, batch_size=options.batch_size),
        loaded,
        bootstrap_iters=1,  # above 0 for the standard errors, which are analytic for accuracies
        log_samples=False,
    )
    counts = {task: sample["effective"] for task, sample in found["n-samples"].items()}
    return {
        name: {
            "acc": found["results"][task]["acc,none"],
            "acc_stderr": found["results"][task]["acc_stderr,none"],
            "n": counts[task],
        }
        for name, task in tasks.items()
    }


@dataclass
class Clustered:
    """A mean over tokens whose standard error counts documents, not tokens, as independent."""

    sums: list[float]
    counts: list[int]

    def metrics(self) -> Metrics:
        """`nll` (nats a token) and `ppl` = exp(nll), each with its standard error."""
        total = sum(self.counts)
        mean = sum(self.sums) / total
        residuals = [value - mean * count for value, count in zip(self.sums, self.counts, strict=True)]
        documents = len(residuals)
        spread = sum(residual**2 for residual in residuals) * documents / max(documents - 1, 1)
        stderr = math.sqrt(spread) / total
        ppl = math.exp(min(mean, 700.0))
        return {"nll": mean, "nll_stderr": stderr, "ppl": ppl, "ppl_stderr": ppl * stderr, "n": documents}


def token_losses(
    decoder: Decoder, documents: Iterable[list[int]], starts: Iterable[int], *, batch_size: int, pad_id: int
) -> Clustered:
    """−log π of the tokens of each document from its start on (never the first token, which nothing predicts)."""
    found = Clustered([], [])
    rows = [(ids, max(start, 1)) for ids, start in zip(documents, starts, strict=True)]
    for first in range(0, len(rows), batch_size):
        chunk = rows[first : first + batch_size]
        batch = pad([ids for ids, _ in chunk], pad_id).to(decoder.device)
        predicts_BT = torch.zeros_like(batch.mask_BT)
        for row, (ids, start) in enumerate(chunk):
            predicts_BT[row, start - 1 : len(ids) - 1] = True
        with torch.no_grad():
            end = model.advance(decoder, model.embed(decoder, batch), len(decoder.layers))
            hidden_ND = model.head_hidden(decoder, end, predicts_BT)
            target_N = batch.ids_BT.roll(-1, 1)[predicts_BT]
            values_N = model.head_values(
                decoder, hidden_ND, losses.target_log_probs, losses.target_log_probs_and_slope, target_N
            ).double()
        parts = values_N.split(predicts_BT.sum(1).tolist())
        found.sums += [-part.sum().item() for part in parts]
        found.counts += [len(part) for part in parts]
    return found


def perplexity(
    decoder: Decoder,
    tokenizer: Any,
    held_out: dict[str, list[list[int]]],
    options: EvalSettings,
    progress: Progress,
) -> dict[str, Metrics]:
    """Perplexity on held-out text, and on retain text behind an inserted forget keyword and a neutral one.

    `retain_after`, `perturbed` and `neutral` judge the same tokens: those behind the place of insertion, with
    nothing, the keyword, or the neutral keyword put in there.
    """
    corpora = {
        role: [ids for ids in documents if len(ids) >= 8][: options.max_documents]
        for role, documents in held_out.items()
    }
    for role, documents in corpora.items():
        if not documents:
            raise ValueError(
                f"eval.kind=perplexity: no held-out document of 8 tokens or more in '{role}'; raise data.holdout"
            )
    pad_id = tokenizer.pad_token_id
    words = {"perturbed": options.keyword, "neutral": options.neutral_keyword}
    jobs: dict[str, tuple[list[list[int]], list[int]]] = {
        role: (documents, [0] * len(documents)) for role, documents in corpora.items()
    }
    after: list[tuple[list[int], int]] = [
        perturb.insert(ids, [], options.seed, index) for index, ids in enumerate(corpora["retain"])
    ]
    jobs["retain_after"] = ([ids for ids, _ in after], [start for _, start in after])
    for role, word in words.items():
        tokens = tokenizer(" " + word, add_special_tokens=False)["input_ids"]
        placed = [perturb.insert(ids, tokens, options.seed, index) for index, ids in enumerate(corpora["retain"])]
        jobs[role] = ([ids for ids, _ in placed], [start for _, start in placed])
    found: dict[str, Metrics] = {}
    for number, (role, (documents, starts)) in enumerate(jobs.items()):
        progress(number, len(jobs))
        found[role] = token_losses(decoder, documents, starts, batch_size=options.batch_size, pad_id=pad_id).metrics()
    progress(len(jobs), len(jobs))
    return found
