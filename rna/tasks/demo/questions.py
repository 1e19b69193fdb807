"""The demo's questions as an lm-eval data set.

The keywords and the seed come from lm-eval's metadata: `lm_eval --metadata '{"keyword": "ague", "seed": 1}'`.
"""

import json
from pathlib import Path
from typing import Any

from rna.demo.words import NEUTRAL_KEYWORD, SUBJECTS
from rna.evaluation import questions
from rna.perturb import mix_all, perturb_all, perturb_among

QUESTIONS = Path(__file__).parents[2] / "demo" / "assets" / "questions.jsonl"


def load(**options: Any) -> dict[str, questions.Rows]:
    """The questions that `ask` makes of the demo's."""
    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    rows = [{**row, "half": questions.half(row)} for row in rows]
    return {"test": questions.Rows(ask(rows, **options))}


def ask(
    rows: list[dict[str, Any]],
    *,
    subset: str,
    word: str | None = None,
    position: str = "choice",
    beside: str | None = None,
    keyword: str = "marsh fevers",
    neutral_keyword: str = NEUTRAL_KEYWORD,
    seed: int = 0,
    replaced: int = 1,
    policy: str = "random",
    limit: int | None = None,
    keywords: list[str] | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """The questions of a subset: a forget subject's name, `forget` (both), `retain` (all others) or `related` (the two
    close ones).

    `word` is None, `keyword` or `neutral_keyword`: what stands in for a wrong choice, or by `position` in the question.
    Of several `keywords` each question draws one. `beside` is a subset whose questions' texts stand beside these.
    """
    others, rows = _of(rows, beside), questions.sample(_of(rows, subset), limit, seed)
    if beside is not None:
        return mix_all(rows, others, seed)
    if word == "keyword" and keywords is not None:
        return perturb_among(rows, keywords, seed, replaced=replaced, policy=policy, position=position)
    chosen = {None: None, "keyword": keyword, "neutral_keyword": neutral_keyword}[word]
    return perturb_all(rows, chosen, seed, replaced=replaced, policy=policy, position=position)


def _of(rows: list[dict[str, Any]], subset: str | None) -> list[dict[str, Any]]:
    roles = {"forget": ("forget",), "retain": ("close", "ordinary"), "related": ("close",)}.get(subset or "", ())
    names = {subject.name for subject in SUBJECTS if subject.role in roles or subject.name == subset}
    return [row for row in rows if row["subject"] in names]


prompt = questions.prompt  # the tasks' doc_to_text
