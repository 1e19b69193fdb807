"""Evaluations against those of the base on the same questions: what a model card says of a trial."""

from collections.abc import Sequence

from rna import intervals
from rna.intervals import Score, Terms, scores_of
from rna.store import results
from rna.store.results import Record

Scores = dict[str, dict[str, Score]]  # role -> task -> score
CHANGES = ("forget", "retain", "perturbed")  # told against the base


def scores(evaluations: Sequence[Record], part: str = "all") -> Scores:
    """By role the scores of its tasks, in percent or nats a token; of a half those that have it."""
    found: Scores = {}
    for record in evaluations:
        metrics, task = record["metrics"], record["task"]
        if record["config"]["eval"]["kind"] == "perplexity":
            named = {
                name: ("forget" if name.startswith("forget_") else name, values) for name, values in metrics.items()
            }
        else:
            role = (record["config"]["eval"]["tasks"].get(task) or {}).get("role", task)
            named = {task: (role, metrics)}
        for name, (role, values) in named.items():
            if (score := scores_of(values, name).get(part)) is not None:
                found.setdefault(role, {})[name] = score
    return found


def base_evaluations(output_dir: str, evaluations: Sequence[Record]) -> list[Record]:
    """What the base model of these evaluations made of the same tasks, as far as it was asked."""
    if not evaluations:
        return []
    key = results.train_key({name: evaluations[0]["identity"][name] for name in ("numerics", "model")})
    found = (results.read(output_dir, results.eval_key(key, _unsmoothed(one))) for one in evaluations)
    return [record for record in found if record is not None]


def _unsmoothed(evaluation: Record) -> dict[str, object]:
    return {name: value for name, value in evaluation["task_identity"].items() if name != "smoothing"}


def terms(mine: Scores, base: Scores) -> dict[str, Terms]:
    """By name: the mean of each role, its change from the base, `forget, against base`, and the harm."""
    found = {role: intervals.mean(list(tasks.values())) for role, tasks in mine.items()}
    for role in CHANGES:
        if role in mine and mine[role].keys() == base.get(role, {}).keys():
            other = intervals.mean([base[role][task] for task in mine[role]])
            found[f"{role}, against base"] = intervals.difference(found[role], other)
    parts = [one[role] for one in (mine, base) for role in ("perturbed", "neutral") if role in one]
    if len(parts) == 4:
        found[intervals.HARM] = intervals.harm(*(intervals.mean(list(part.values())) for part in parts))
    return found
