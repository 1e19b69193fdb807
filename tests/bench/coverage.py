"""How often each kind of 95 % interval holds the true value, and how wide it is: by this `rna.intervals` was chosen.

python tests/bench/coverage.py [REPEATS]

Each row is a cell of a simulation. The first interval is the one that is shown; the others were weighed against it.
"""

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np

from rna.intervals import Z_95, Score, estimate, harm, over_seeds, questions, t_95
from rna.report import matching
from rna.report.matching import Point

Limits = tuple[float, float]
Draw = Callable[[np.random.Generator], tuple[float, dict[str, Limits]]]  # the truth, and limits by method


@dataclass(frozen=True)
class Cell:
    """One line of the table."""

    kind: str
    said: str
    draw: Draw
    exact: bool = False  # few questions change: more than 97 % is what an exact interval gives


def coverage(cell: Cell, repeats: int, seed: int = 0) -> dict[str, tuple[float, float]]:
    """By method, how often the truth is in it and its mean width."""
    source = np.random.default_rng([seed, *cell.said.encode()])
    held: dict[str, list[bool]] = {}
    wide: dict[str, list[float]] = {}
    for _ in range(repeats):
        truth, found = cell.draw(source)
        for method, (low, high) in found.items():
            held.setdefault(method, []).append(low - 1e-9 <= truth <= high + 1e-9)
            wide.setdefault(method, []).append(high - low)
    return {method: (float(np.mean(held[method])), float(np.mean(wide[method]))) for method in held}


def answered(right: np.ndarray, asked: str = "q", drawn: np.ndarray | None = None) -> Score:
    n, bits = len(right), "".join("01"[int(one)] for one in right)
    share = float(np.mean(right))
    stderr = 100 * math.sqrt(share * (1 - share) / (n - 1))
    words = None if drawn is None else "".join(f"{one:02x}" for one in drawn)
    return Score(100 * share, stderr, n, f"{int(bits, 2):x}", asked, words)


def shown(*terms: tuple[float, Score]) -> Limits:
    made = estimate([terms])
    assert made.low is not None
    assert made.high is not None
    return made.low, made.high


# The kinds


def share(n: int, p: float) -> Cell:
    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        score = answered(source.random(n) < p)
        low, high = questions.exact(round(score.value * n / 100), n)
        wald = (score.value - Z_95 * score.stderr, score.value + Z_95 * score.stderr)
        return 100 * p, {"shown": shown((1.0, score)), "Wald": wald, "exact": (100 * low, 100 * high)}

    return Cell("accuracy", f"n = {n}, true {p}", draw, exact=n * min(p, 1 - p) < questions.FEW)


def two(n: int, moved: float, tilt: float) -> Cell:
    """A share `moved` of the questions changes; (1 + tilt)/2 of them to right: the true difference is moved · tilt."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        before = source.random(n) < 0.6
        dice, up = source.random(n), moved * (1 + tilt) / 2
        # Of all questions a share `up` was wrong before and is right after, a share moved − up the other way round.
        after = np.where(before, dice >= (moved - up) / 0.6, dice < up / 0.4)
        one, other = answered(after), answered(before)
        change = 100.0 * (after.astype(float) - before)
        return 100 * moved * tilt, {
            "shown": shown((1.0, one), (-1.0, other)),
            "Bonett-Price": questions.many_changes(change, 100.0),
            "exact": questions.few_changes(change, 100.0),
            "Wald": wald(change),
            "Newcombe": newcombe(after, before),
            "conditional": conditional(change),
            "independent": shown((1.0, one), (-1.0, answered(before, "others"))),
        }

    return Cell("paired difference", f"n = {n}, {moved:g} change, true {100 * moved * tilt:+g}", draw,
                exact=n * moved <= 2 * questions.FEW)  # fmt: skip


def wald(change: np.ndarray) -> Limits:
    mean, half = float(change.mean()), Z_95 * float(change.std(ddof=1)) / math.sqrt(len(change))
    return mean - half, mean + half


def newcombe(after: np.ndarray, before: np.ndarray) -> Limits:
    """Newcombe, Stat. Med. 17:2635, 1998, method 10."""
    n, p, q = len(after), float(after.mean()), float(before.mean())
    (l1, u1), (l2, u2) = questions.wilson(p, n), questions.wilson(q, n)
    a, b = int((after & before).sum()), int((after & ~before).sum())
    c, d = int((~after & before).sum()), int((~after & ~before).sum())
    below = (a + b) * (c + d) * (a + c) * (b + d)
    top = a * d - b * c
    phi = 0.0 if not below else (max(top - n / 2, 0) if top > 0 else top) / math.sqrt(below)
    down = (p - l1) ** 2 - 2 * phi * (p - l1) * (u2 - q) + (u2 - q) ** 2
    up = (q - l2) ** 2 - 2 * phi * (q - l2) * (u1 - p) + (u1 - p) ** 2
    return 100 * (p - q - math.sqrt(max(down, 0))), 100 * (p - q + math.sqrt(max(up, 0)))


def conditional(change: np.ndarray) -> Limits:
    """McNemar's exact test turned round: the share of gains among the changed questions, their number taken as sure."""
    moved, n = int(np.count_nonzero(change)), len(change)
    if not moved:
        return 0.0, 0.0
    low, high = questions.exact(int((change > 0).sum()), moved)
    return 100 * moved / n * (2 * low - 1), 100 * moved / n * (2 * high - 1)


def harmed(n: int, hurt: float, noise: float) -> Cell:
    """Harm: of the questions that were right, `hurt` fail with the forget keyword; `noise` of all change by chance."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        known = source.random(n) < 0.7
        flip = [source.random(n) < noise for _ in range(4)]
        neutral, base_neutral, base_perturbed = (known ^ one for one in flip[:3])
        perturbed = (known & ~(source.random(n) < hurt)) ^ flip[3]
        scores = [[(1.0, answered(one))] for one in (perturbed, neutral, base_perturbed, base_neutral)]
        change = 100.0 * (perturbed.astype(float) - neutral - base_perturbed + base_neutral)
        four = (perturbed, neutral, base_perturbed, base_neutral)
        apart = [[(1.0, answered(one, f"q{place}"))] for place, one in enumerate(four)]
        return -100 * 0.7 * hurt * (1 - 2 * noise), {
            "shown": shown(*harm(*scores)),
            "Bonett-Price": questions.many_changes(change, 100.0),
            "exact": questions.few_changes(change, 100.0),
            "Wald": wald(change),
            "independent": shown(*harm(*apart)),
        }

    few = n * (4 * noise + 0.7 * hurt) <= 2 * questions.FEW
    return Cell("harm", f"n = {n}, {noise:g} by chance, true {-70 * hurt * (1 - 2 * noise):+.3g}", draw, exact=few)


def two_tasks(n: int, moved: float) -> Cell:
    """The mean of a role's two tasks, of n and 2n questions, after less before; all changes are losses."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        terms: list[tuple[float, Score]] = []
        for place, size in enumerate((n, 2 * n)):
            before = source.random(size) < 0.6
            after = before & ~(source.random(size) < moved / 0.6)
            terms += [(0.5, answered(after, f"q{place}")), (-0.5, answered(before, f"q{place}"))]
        return -100 * moved, {"shown": shown(*terms)}

    return Cell("mean of two tasks", f"n = {n} + {2 * n}, true {-100 * moved:+g}", draw,
                exact=n * moved <= 2 * questions.FEW)  # fmt: skip


def text(n: int, effect: float) -> Cell:
    """Perplexity: documents of odd lengths whose losses differ; the change of each has a long tail."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        tokens = np.ceil(source.lognormal(4.0, 0.6, n))
        before = tokens * source.normal(3.0, 0.4, n) + np.sqrt(tokens) * source.standard_normal(n)
        rise = effect + 0.1 * (source.gamma(2.0, 1.0, n) - 2.0)
        after = before + tokens * rise + 0.3 * np.sqrt(tokens) * source.standard_normal(n)
        one, other = (documents(sums, tokens) for sums in (after, before))
        alone = documents(before, tokens, "others")
        boot = bootstrap(after - before, tokens, source) if n <= 200 else {}
        return effect, {
            "shown": shown((1.0, one), (-1.0, other)), **boot, "independent": shown((1.0, one), (-1.0, alone))
        }  # fmt: skip

    return Cell("perplexity, paired", f"{n} documents, true {effect:+g}", draw)


def documents(sums: np.ndarray, tokens: np.ndarray, asked: str = "d") -> Score:
    mean = float(sums.sum() / tokens.sum())
    spread = float(((sums - mean * tokens) ** 2).sum()) * len(sums) / (len(sums) - 1)
    told = (tuple(sums.tolist()), tuple(tokens.astype(int).tolist()))
    return Score(mean, math.sqrt(spread) / float(tokens.sum()), len(sums), None, asked, None, *told, "documents")


def bootstrap(change: np.ndarray, tokens: np.ndarray, source: np.random.Generator) -> dict[str, Limits]:
    drawn = source.integers(len(change), size=(400, len(change)))
    means = change[drawn].sum(1) / tokens[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {"bootstrap": (float(low), float(high))}


def keywords(n: int, count: int, between: float, cost: float = 0.2) -> Cell:
    """Each question draws one of `count` keywords; how many right answers one costs differs by `between`."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        costs = source.beta(*beta(cost, between), count) if between else np.full(count, cost)
        drawn = source.integers(count, size=n)
        before = source.random(n) < 0.8
        after = before & ~(source.random(n) < costs[drawn])
        terms = ((1.0, answered(after, "q", drawn)), (-1.0, answered(before, "q")))
        change = 100.0 * (after.astype(float) - before)
        counted = questions.over_keywords(change, np.ones(n), drawn) or (math.nan, math.nan)
        return -80 * cost, {
            "shown": shown(*terms),
            "keywords alone": counted,
            "questions alone": questions.changes(change, 100.0),
        }

    return Cell("over keywords", f"n = {n}, {count} keywords, spread {between:g}", draw)


def beta(mean: float, deviation: float) -> Limits:
    total = mean * (1 - mean) / deviation**2 - 1
    return mean * total, (1 - mean) * total


def seeds(count: int) -> Cell:
    """Paired differences over seeds: normal, and each seed's over 400 questions."""

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        made = over_seeds((3.0 + 2.0 * source.standard_normal(count)).round(2).tolist())
        assert made.low is not None
        assert made.high is not None
        half = (made.high - made.low) / 2 * Z_95 / t_95(count - 1)
        return 3.0, {"shown": (made.low, made.high), "normal": (made.value - half, made.value + half)}

    return Cell("over seeds", f"{count} seeds", draw)


FORGET = (27.0, 36.0, 48.0, 62.0, 74.0)  # of the plain method, over α; RNA forgets a little less


def matched(n: int, alphas: int, steep: float, hard: float) -> Cell:
    """RNA against plain at the same forget score: n forget and 4n retain questions, each answered at every α by both.

    A question that is hard for one setting is so for all, to the share `hard` of its luck; retain rises with forget by
    `steep`, and RNA lies 4 points above plain.
    """
    wanted = [FORGET[place] for place in np.linspace(0, len(FORGET) - 1, alphas).round().astype(int)]
    lines = [
        [(forget + shift, 40 + steep * (forget + shift - 27) + gain) for forget in wanted]
        for shift, gain in ((3.0, 4.0), (0.0, 0.0))
    ]
    true = matching.gap(*lines)
    assert true is not None
    truth = true.mean

    def draw(source: np.random.Generator) -> tuple[float, dict[str, Limits]]:
        luck = [source.standard_normal(size) for size in (n, 4 * n)]

        def right(size: int, which: int, percent: float) -> np.ndarray:
            own = source.standard_normal(size)
            return math.sqrt(hard) * luck[which] + math.sqrt(1 - hard) * own < _quantile(percent / 100)

        found: dict[str, Limits] = {}
        answers = [[(right(n, 0, x), right(4 * n, 1, y)) for x, y in line] for line in lines]
        for said, apart in (("shown", False), ("independent", True)):
            curves = [
                [
                    Point(
                        [(1.0, answered(one, f"f{which}{place}" if apart else "f"))],
                        [(1.0, answered(other, f"r{which}{place}" if apart else "r"))],
                    )
                    for place, (one, other) in enumerate(line)
                ]
                for which, line in enumerate(answers)
            ]
            made = matching.matched([(curves[0], curves[1])])
            if made is not None and made.mean.low is not None and made.mean.high is not None:
                found[said] = made.mean.low, made.mean.high
        return truth, found

    return Cell("matched forgetting", f"{n} + {4 * n}, {alphas} α, slope {steep:g}, shared {hard:g}", draw)


def _quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


def cells() -> Iterator[Cell]:
    yield from (share(n, p) for n in (64, 128, 400, 7000) for p in (0.25, 0.5, 0.9, 0.98))
    for n in (64, 128, 400, 7000):
        for moved in (0.0, 0.005, 0.02, 0.1, 0.3):
            yield from (two(n, moved, tilt) for tilt in ((0.0, 0.5, 1.0) if moved else (0.0,)))
    yield from (
        harmed(n, hurt, noise) for n in (128, 400, 7000) for hurt in (0.0, 0.05, 0.3) for noise in (0.002, 0.05)
    )
    yield from (two_tasks(n, moved) for n in (64, 400) for moved in (0.01, 0.1, 0.3))
    yield from (text(n, effect) for n in (8, 20, 60, 200) for effect in (0.0, 0.3))
    yield from (
        keywords(n, count, between) for n in (200, 1000, 7000) for count in (5, 8, 16) for between in (0.0, 0.05, 0.15)
    )
    yield from map(seeds, (2, 3, 5, 10))
    yield from (
        matched(n, alphas, steep, hard)
        for n in (64, 128, 400)
        for alphas in (3, 5)
        for steep in (0.0, 0.6)
        for hard in (0.0, 0.7)
    )


def main() -> None:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    kind = ""
    for cell in cells():
        if cell.kind != kind:
            kind = cell.kind
            print(f"\n{kind}: % that hold the truth, and mean width in points or nats", flush=True)
        found = coverage(cell, repeats)
        said = "  ".join(f"{method} {100 * held:5.1f} ({wide:.3g})" for method, (held, wide) in found.items())
        held = found["shown"][0]
        odd = "" if held >= 0.93 and (held <= 0.97 or cell.exact) else "  ←"
        print(f"  {cell.said:<44} {said}{odd}", flush=True)


if __name__ == "__main__":
    main()
