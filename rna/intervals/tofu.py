"""TOFU's numbers (Maini et al., arXiv:2401.06121) from what a model says of single answers: no model, no text.

An answer's `log_prob` is its mean over tokens, log P(a|q)^(1/|a|), in nats. What the released code adds against a
division by zero, 1e-10, is left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

FORGET, RETAIN, AUTHORS, FACTS = SETS = ("forget", "retain", "real_authors", "world_facts")
PROB, ROUGE, TRUTH = NINE = ("prob", "rouge", "truth_ratio")  # of three sets each: what model utility is made of
EXTRACTION = "extraction_strength"
UTILITY, QUALITY, LOG_QUALITY = "model_utility", "forget_quality", "forget_quality_log10"
NAMES = (UTILITY, EXTRACTION, *(f"{name}/{what}" for name in SETS for what in NINE))  # of a record's metrics
BETTER = {UTILITY: "↑", EXTRACTION: "↓", QUALITY: "↑", LOG_QUALITY: "↑"} | {
    f"{name}/{what}": "↓" if name == FORGET and what != TRUTH else "↑" for name in SETS for what in NINE
}
Answers = Mapping[str, Sequence[float]]  # of a set, by what is measured: a number for each question


def probability(log_prob: float) -> float:
    """P(a|q)^(1/|a|) (arXiv:2401.06121, Section 2.2)."""
    return math.exp(log_prob)


def share(log_prob: float, wrong: Sequence[float]) -> float:
    """P(a|q)^(1/|a|) / Σ P(â|q)^(1/|â|) over a and the wrong answers: the probability where there are choices, as of
    real authors and world facts (arXiv:2401.06121, Section 2.2)."""
    return 1 / (1 + sum(math.exp(other - log_prob) for other in wrong))


def truth_ratio(log_prob: float, wrong: Sequence[float]) -> float:
    """R = (Π P(â|q)^(1/|â|))^(1/n) / P(ã|q)^(1/|ã|), over n wrong answers â and a paraphrase ã of the right one.

    The geometric mean of the released code (locuslab/tofu, `aggregate_eval_stat.py`; locuslab/open-unlearning,
    `memorization.py`).
    Deviation: the paper's equation (arXiv:2401.06121, Eq. 1) has the arithmetic mean; published numbers are the code's.
    """
    return math.exp(min(math.fsum(wrong) / len(wrong) - log_prob, 700.0))


def extraction_strength(likeliest: Sequence[bool]) -> float:
    """1 − k/|a|, with the fewest of an answer's first tokens, k, after which each is the likeliest behind those before:
    then the greedy continuation is the rest (Carlini et al., arXiv:2012.07805; OpenUnlearning, arXiv:2506.12618).

    k is at most |a| − 1, as in OpenUnlearning's code: 1/|a| where not even the last token is the likeliest.

    Args:
        likeliest: of each token of the answer, without the one that closes it.
    """
    count = len(likeliest)
    first = next((count - back for back, one in enumerate(reversed(likeliest)) if not one), 0)
    return 1 - min(first, count - 1) / count


def told(name: str, what: str, values: Sequence[float]) -> list[float]:
    """What each question of a set counts: a truth ratio as min(R, 1/R) of the forget set, where neither answer should
    be likelier, and as max(0, 1 − R) of the others (locuslab/tofu, `aggregate_eval_stat.py`)."""
    if what != TRUTH:
        return list(values)
    return [min(one, 1 / max(one, 1e-300)) if name == FORGET else max(0.0, 1 - one) for one in values]


def summary(questions: Mapping[str, Answers]) -> dict[str, Any]:
    """`NAMES`, each a mean over questions but for model utility, with its standard error; from a record's `questions`.

    Model utility is the harmonic mean H of nine means m; its standard error is by first order, with the questions of a
    set taken together: Σ (H²/9)·x/m² is what a question with the values x adds.
    """
    made: dict[str, Any] = {}
    for name in SETS:
        for what in NINE:
            made |= _mean(f"{name}/{what}", told(name, what, questions[name][what]))
    made |= _mean(EXTRACTION, questions[FORGET][EXTRACTION])
    means = {(name, what): made[f"{name}/{what}"] for name in SETS[1:] for what in NINE}
    utility = harmonic_mean(list(means.values()))
    variance = 0.0
    for name in SETS[1:] if utility else ():
        slopes = [utility**2 / (len(means) * means[name, what] ** 2) for what in NINE]
        values = [told(name, what, questions[name][what]) for what in NINE]
        added = [
            sum(slope * one for slope, one in zip(slopes, each, strict=True)) for each in zip(*values, strict=True)
        ]
        variance += _mean("added", added)["added_stderr"] ** 2
    return {UTILITY: utility, f"{UTILITY}_stderr": math.sqrt(variance)} | made


def _mean(name: str, values: Sequence[float]) -> dict[str, float]:
    count = len(values)
    mean = math.fsum(values) / count
    spread = math.fsum((one - mean) ** 2 for one in values) / max(count - 1, 1)
    return {name: mean, f"{name}_stderr": math.sqrt(spread / count)}


def harmonic_mean(values: Sequence[float]) -> float:
    """n / Σ 1/m; 0 where one of them is 0."""
    return len(values) / math.fsum(1 / one for one in values) if all(values) else 0.0


def forget_quality(truth_ratios: Sequence[float], retrained: Sequence[float]) -> dict[str, float]:
    """p of the two-sample Kolmogorov-Smirnov test that the forget set's truth ratios are of one distribution with those
    of a model retrained without it, and its log10 (arXiv:2401.06121, Section 2.2)."""
    from scipy.stats import ks_2samp

    found: Any = ks_2samp(truth_ratios, retrained)
    p = float(found.pvalue)
    return {QUALITY: p, LOG_QUALITY: math.log10(max(p, 5e-324))}


def against(metrics: Mapping[str, Any], retrained: Mapping[str, Any]) -> dict[str, float]:
    """`forget_quality` from two records' metrics; nothing where they are of other questions."""
    mine, its = (one["questions"][FORGET][TRUTH] for one in (metrics, retrained))
    return forget_quality(mine, its) if metrics["asked"] == retrained["asked"] else {}
