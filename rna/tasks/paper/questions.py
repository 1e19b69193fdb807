"""MMLU's and WMDP's questions as lm-eval data sets, plain, perturbed, or with a neutral keyword.

What lm-eval's metadata may say: `lm_eval --metadata '{"mmlu_path": "FOLDER", "keyword": "SARS-CoV-19", "seed": 1}'`.
"""

from typing import Any

import datasets

from rna import questions
from rna.perturb import perturb_all


def load(
    source: str,
    subset: str | None = None,
    subject: str | None = None,
    word: str | None = None,
    keyword: str = "SARS-CoV-2",
    neutral_keyword: str = "Lake Geneva",
    seed: int = 0,
    replaced: int = 1,
    policy: str = "random",
    limit: int | None = None,
    mmlu_path: str = "cais/mmlu",
    wmdp_path: str = "cais/wmdp",
    **_: Any,
) -> dict[str, datasets.Dataset]:
    """The questions of a source, all or of one subject; `word` says which keyword stands in for a wrong choice."""
    path = {"mmlu": mmlu_path, "wmdp": wmdp_path}[source]
    rows = [row for row in questions.of_source(source, path, subset) if subject is None or row["subject"] == subject]
    if not rows:
        raise ValueError(f"eval.{source}_path={path}: holds no question of {subject}")
    rows = questions.sample(rows, limit, seed)
    chosen = {None: None, "keyword": keyword, "neutral_keyword": neutral_keyword}[word]
    return {"test": datasets.Dataset.from_list(perturb_all(rows, chosen, seed, replaced=replaced, policy=policy))}


prompt = questions.prompt  # the tasks' doc_to_text
