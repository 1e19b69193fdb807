"""What a trial or a study is asked, in this order, and the words for its answers: one wording for screen and page.

Did it forget? What does a forget-token cost? Does RNA change that, at equal forgetting? And what a probe is asked: does
it come back?
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

from rna.intervals.estimate import Estimate, covers, said

FORGOT, COST = "Did it forget?", "What does a forget-token cost?"
RETURNS = "Does it come back?"
CHANGES = "Does RNA change that, at equal forgetting?"
AGAINST_BASE = "Retain with it less retain with a neutral one, against the same in base"
PERTURBED = "retain with a forget-token"
UNLIKE = "the two do not forget alike: compare along α"
ONE_SEED = "One trial of one seed says nothing of other seeds; this brings them, and their intervals:"
REDUCTION = "Reduction: what a forget-token takes of the base's accuracy with it"
RATES = f"{REDUCTION}; recovery: how much of that {{}} gives back."  # what: the noise, the defence
FORGOTTEN, PARTLY, NOT_FORGOTTEN = "forgotten", "partly forgotten", "not forgotten"
COSTS = {-1: "a cost", 0: "none seen", 1: "a gain"}
MOVES = {1: "higher", 0: "no difference seen", -1: "lower"}

CHANCE = 25.0  # percent, of questions with four choices
NEAR_CHANCE = 10.0  # points above it within which a model no longer knows the answers
MORE_PERPLEX = 2.0  # perplexity over the base's from which a text counts as forgotten


def against(neutral: bool) -> str:
    """How a forget-token's cost is taken where there is no base to compare with."""
    return "Retain with it less retain " + ("with a neutral one" if neutral else "without")


def tell(change: Estimate, *, choice: bool) -> str:
    """A difference with its unit and interval."""
    return said(change, 1 if choice else 3, "points" if choice else "nats a token")


def word(change: Estimate) -> str:
    """Of a difference RNA − plain, what its interval shows: higher, lower, or no difference seen."""
    return "no interval" if change.low is None else MOVES[change.sign]


def forgot(after: float, before: float, change: Estimate) -> str:
    """By accuracy in percent: forgotten near chance; partly, where it fell by more than its 95 % interval.

    The verdict stands before the colon, as `forgot_text`'s does.
    """
    how = _how_far(after <= CHANCE + NEAR_CHANCE, change.sign < 0)
    return f"{how}: forget accuracy {after:.1f} against {before:.1f}, {tell(change, choice=True)}"


def forgot_text(rises: Sequence[float], change: Estimate) -> str:
    """By the log-losses' rises in nats a token: forgotten where each topic's perplexity doubled."""
    how = _how_far(all(rise >= math.log(MORE_PERPLEX) for rise in rises), change.sign > 0)
    times, low, high = (_ratio(one) for one in (change.value, change.low, change.high))
    return f"{how}: forget perplexity {times} times the base's [{low}, {high}] ({covers(change, change=True)})"


def _how_far(enough: bool, moved: bool) -> str:
    return FORGOTTEN if enough and moved else PARTLY if moved else NOT_FORGOTTEN


def _ratio(change: float | None) -> str:
    """Of perplexities, from the change of the log-loss."""
    return "–" if change is None else f"{math.exp(min(change, 700.0)):.3g}"


def percent(made: Estimate | None) -> str:
    """An accuracy ± half the width of its 95 % interval."""
    if made is None:
        return "–"
    low, high = made.low, made.high
    return f"{made.value:.1f}" + ("" if low is None or high is None else f" ± {(high - low) / 2:.1f}")


def points(made: Estimate | None) -> str:
    """A difference of accuracies, signed."""
    return "–" if made is None else _signed(percent(made))


def nats(made: Estimate | None) -> str:
    """A difference of log-losses, signed."""
    if made is None:
        return "–"
    low, high = made.low, made.high
    return _signed(f"{made.value:.3f}" + ("" if low is None or high is None else f" ± {(high - low) / 2:.3f}"))


def _signed(text: str) -> str:
    return f"−{text[1:]}" if text.startswith("-") else f"+{text}"


def perplexity(made: Estimate | None) -> str:
    """exp of a log-loss ± half the width of exp of its 95 % interval."""
    if made is None:
        return "–"
    value, low, high = (math.nan if one is None else math.exp(min(one, 700.0))
                        for one in (made.value, made.low, made.high))  # fmt: skip
    return short(value, 4) + ("" if math.isnan(high - low) else f" ± {short((high - low) / 2, 2)}")


def short(value: float, digits: int) -> str:
    """A number in at most seven characters."""
    if value >= 1e4:
        return f"{value:.{2 if value < 1e10 else 0}e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.0f}" if round(value) >= 10**digits else f"{value:.{digits}g}"


def once(lines: list[str]) -> list[str]:
    """What most intervals are over is told once, below the lines; of the others each says so itself."""
    found = Counter(re.findall(r" \((95 % over [^()]*)\)", "\n".join(lines)))
    if not found:
        return lines
    ((usual, _),) = found.most_common(1)
    unless = ", where nothing else is said" if len(found) > 1 else ""
    return [*(line.replace(f" ({usual})", "") for line in lines), f"In brackets: {usual}{unless}."]
