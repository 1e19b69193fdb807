"""Retain questions perturbed by mined n-grams, as an lm-eval data set.

Which n-grams, lm-eval's metadata says: `lm_eval --metadata '{"ngrams_path": "FILE", "n": 2, "group": "top"}'`.
"""

import json
from typing import Any

from rna.demo.words import SUBJECTS
from rna.evaluation import questions
from rna.perturb import mined, perturb_with
from rna.settings import BUILTIN


def load(
    source: str,
    ngrams_path: str | None = None,
    n: int = 2,
    group: str = "top",
    mmlu_path: str = "cais/mmlu",
    asker: str = questions.LM_EVAL,
    **options: Any,
) -> dict[str, questions.Rows]:
    """The questions that `ask` makes of a source with the n-grams of the group."""
    with questions.in_words_of(asker):
        if ngrams_path is None:
            raise ValueError("eval.ngrams_path=FILE: a value is needed; python -m rna.perturb ngrams makes one")
        groups = mined.read_groups(ngrams_path)
        if (n, group) not in groups:
            there = ", ".join(f"n={size} {name}" for size, name in groups)
            raise ValueError(f"eval.ngrams_path={ngrams_path}: holds no n={n} {group}; allowed: {there}")
        rows = _demo() if source == "demo" else list(questions.of_source(source, mmlu_path, None))
    return {"test": questions.Rows(ask(rows, source=source, grams=groups[n, group], **options))}


def ask(
    rows: list[dict[str, Any]],
    *,
    source: str,
    grams: list[str],
    seed: int = 0,
    replaced: int = 1,
    policy: str = "random",
    limit: int | None = None,
    **_: Any,
) -> list[dict[str, Any]]:
    """The questions of MMLU, or of the demo's retain subjects, each with one of the n-grams among its choices."""
    if source == "demo":
        names = {subject.name for subject in SUBJECTS if subject.role in ("close", "ordinary")}
        rows = [row for row in rows if row["subject"] in names]
    return perturb_with(questions.sample(rows, limit, seed), grams, seed, replaced=replaced, policy=policy)


def _demo() -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (BUILTIN / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{**row, "half": questions.half(row)} for row in rows]


prompt = questions.prompt  # the tasks' doc_to_text
