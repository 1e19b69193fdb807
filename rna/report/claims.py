"""The paper's claims (arXiv:2501.19202), each asked of one study's records, with a number, its interval and a verdict.

A claim says which way a number should lie, and how far from zero it would have to lie to matter, its margin. Its 95 %
interval then tells: it *holds* where the interval leaves out zero on the claimed side, it *does not* where the whole
interval falls short of the margin, and else it *cannot be told here*. That nothing changes holds where the interval
lies within the margin to both sides, and does not where it lies outside. What is measured stands in `measures`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rna import intervals
from rna.intervals import Estimate
from rna.report import measures
from rna.report.measures import PO, RM, Asked, Measured
from rna.report.records import Study

HOLDS, FAILS, UNTOLD = "holds", "does not hold", "cannot be told here"


@dataclass(frozen=True)
class Claim:
    """What the paper says, and what would count as that."""

    name: str
    text: str
    where: str  # in the paper
    paper: str  # its own number
    wants: int  # the sign of its number; 0: that nothing changes
    margin: tuple[float, float]  # how far from zero matters: in points of accuracy, in nats a token
    measure: Callable[[Asked], Measured]
    tells: str = ""  # what the number is
    unit: str = ""  # its own, in the place of points or nats
    each: str = ""  # of what step it is a change, behind the unit


@dataclass(frozen=True)
class Finding:
    """A claim's answer in one study on one basis."""

    claim: Claim
    study: Study
    basis: str
    measured: Measured
    verdict: str

    @property
    def told(self) -> bool:
        return self.measured.number is not None


# Verdicts


def verdict(number: Estimate | None, wants: int, margin: float) -> str:
    """What an interval says of a claim; without one over seeds nothing can be told.

    Args:
        wants: 1 or −1: that the number lies on this side of zero; 0: that it lies within the margin.
    """
    if number is None or number.low is None or number.high is None or number.over != intervals.SEEDS:
        return UNTOLD
    if wants == 0:
        if -margin <= number.low and number.high <= margin:
            return HOLDS
        return FAILS if number.low > margin or number.high < -margin else UNTOLD
    low, high = sorted((wants * number.low, wants * number.high))
    if high < margin:
        return FAILS
    return HOLDS if low > 0 else UNTOLD


def judged(asked: Asked) -> list[Finding]:
    """Every claim, asked of one study on one basis."""
    place = 0 if asked.study.kind == "choice" else 1
    found: list[Finding] = []
    for claim in CLAIMS:
        measured = claim.measure(asked)
        margin = claim.margin[place] if measured.margin is None else measured.margin
        said = verdict(measured.number, claim.wants, margin)
        found.append(Finding(claim, asked.study, asked.basis, measured, said))
    return found


EQ_33 = "of Eq. 33"
SMALL = (3.0, 0.02)  # points, nats: what a token's harm, or a change of it, must come to
COEFFICIENTS = {"RMU": "method.coefficient", "RSV": "method.coefficient"}
CLAIMS = (
    Claim(
        "fragile",
        "Plain unlearned models fail when a forget-token stands in an ordinary question.",
        *("Section 6.2, Figure 1", "accuracy falls by 23.3 % of itself in RM, by 43.5 % in PO"),
        *(1, SMALL, measures.fragile),
        "what a forget-token costs plain methods, beyond a neutral token and beyond the base",
    ),
    Claim(
        "rm_robust",
        "RM methods are more robust than PO methods.",
        *("Section 6.2", "20 points of the reduction rate"),
        *(1, SMALL, measures.rm_beside_po),
        "what a forget-token costs PO methods, less what it costs RM methods",
    ),
    Claim(
        "recovers_rm",
        "RNA gives RM methods back what a forget-token costs.",
        *("Section 6.2, Figure 1", "66.3 % of the loss"),
        *(1, SMALL, measures.recovers(RM)),
        "RNA less plain with a forget-token; a quarter of the harm would count",
    ),
    Claim(
        "recovers_po",
        "RNA gives PO methods back what a forget-token costs.",
        *("Section 6.2, Figure 1", "51.7 % of the loss"),
        *(1, SMALL, measures.recovers(PO)),
        "RNA less plain with a forget-token; a quarter of the harm would count",
    ),
    Claim(
        "forget_stays",
        "RNA leaves forgetting as it is.",
        *("Section 6.2; Appendix D has 0.5 to 5 points less", "about one point"),
        *(0, (3.0, 0.1), measures.stays("forget")),
        "RNA less plain on forget questions",
    ),
    Claim(
        "retain_stays",
        "RNA leaves retain performance as it is.",
        *("Section 6.2, Appendix D", "less than 0.5 points"),
        *(0, (2.0, 0.02), measures.stays("retain")),
        "RNA less plain on retain questions without a forget-token",
    ),
    Claim(
        "coefficient",
        "A larger coefficient c makes RM models less robust.",
        *("Section 6.2, Figure 2", "a clear trend; no number"),
        *(-1, (1.0, 0.005), measures.slope(COEFFICIENTS)),
        "change with a forget-token for each doubling of c, plain",
        each=" a doubling",
    ),
    Claim(
        "beta",
        "A larger scaling factor β makes Adaptive RMU less robust.",
        *("Section 6.2, Figure 2", "a clear trend; no number"),
        *(-1, (1.0, 0.005), measures.slope({"Adaptive RMU": "method.beta"})),
        "change with a forget-token for each doubling of β, plain",
        each=" a doubling",
    ),
    Claim(
        "nu_helps",
        "A first, small ν helps.",
        *("Section 6.2, Figure 3", "no number"),
        *(1, SMALL, measures.steps_of_nu(0, 1)),
        "the smallest ν less plain, with a forget-token",
    ),
    Claim(
        "nu_saturates",
        "Then it saturates: more noise changes little.",
        *("Section 6.2, Figure 3; Theorem 5.2", "no number"),
        *(0, SMALL, measures.steps_of_nu(1, 2)),
        "the middle ν less the smallest, with a forget-token",
    ),
    Claim(
        "nu_hurts",
        "Too much noise hurts.",
        *("Section 6.2, Figure 3", "no number"),
        *(-1, SMALL, measures.steps_of_nu(2, 3)),
        "the largest ν less the middle one, with a forget-token",
    ),
    Claim(
        "rm_tolerates",
        "RM methods bear noise better than PO methods.",
        *("Section 6.2, Figure 3", "no number"),
        *(1, SMALL, measures.tolerates),
        "the largest ν less plain with a forget-token: RM's less PO's",
    ),
    Claim(
        "similar",
        "Forget-tokens that are more like their documents harm more.",
        *("Section 6.2, Figure 4", "a clear trend; no number"),
        *(-1, (1.0, 0.005), measures.similar),
        "accuracy with the n-grams most like their documents less with those least like them, less the base's",
    ),
    Claim(
        "layer_behind",
        "Unlearned models are less sensitive to noise at the layer behind the unlearn layer.",
        *("Appendix C, Figure 7 left", "no number"),
        *(-1, (0.0, 0.0), measures.sensitive),
        "Eq. 33 there, less the base's",
        unit=EQ_33,
    ),
    Claim(
        "middle_layers",
        "The sensitivity of middle layers falls most.",
        *("Appendix C, Figure 7 right", "no number"),
        *(-1, (0.0, 0.0), measures.middle),
        "the change of Eq. 33 in the middle third of layers, less in the last third",
        unit=EQ_33,
    ),
    Claim(
        "elsewhere",
        "Noise at one other layer helps as well.",
        *("Appendix E, Figure 8", "no consistent trend across methods"),
        *(1, SMALL, measures.placed(measures.elsewhere)),
        "RNA at other single layers less plain, with a forget-token",
    ),
    Claim(
        "everywhere",
        "Noise at all layers is particularly effective.",
        *("Appendix E, Figure 10", "at moderate ν; no number"),
        *(1, SMALL, measures.placed(measures.everywhere)),
        "RNA at all layers less plain, with a forget-token",
    ),
)
