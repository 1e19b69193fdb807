"""What the paper's claims are measured by: of one study on one basis, differences between its trainings seed by seed.

A number is a mean over methods of each one's mean over seeds, `intervals.together`. Scores are of the report half where
there is one, as ν is chosen and trainings stop on the select half.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rna import intervals
from rna.intervals import Estimate
from rna.report import compare
from rna.report.compare import Condition
from rna.report.records import Study, Trial
from rna.settings import roles

EQUAL, MATCHED = "equal hyperparameters", "matched forgetting"
BASES = (EQUAL, MATCHED)
RM, PO = "RM", "PO"
FORGETS = 5.0  # points by which forgetting may be worse with RNA: the most that the paper has (Appendix D)
Values = dict[str, list[float]]  # method -> a value of each seed


@dataclass(frozen=True)
class Measured:
    """A claim's number on one basis, with what it was made of."""

    number: Estimate | None = None
    by_method: dict[str, Estimate] = field(default_factory=dict)
    margin: float | None = None  # where it depends on what else was measured
    note: str = ""  # how it came about, or why there is none


@dataclass(frozen=True)
class Asked:
    """One study on one basis, and its sensitivities by training key: rows of `rna.analyze noise_sensitivity`."""

    study: Study  # on the half that is reported
    basis: str
    sensitivities: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """Where the forget-token stands: in the place of a wrong choice, as the paper has it, or within a text. Of
        questions answered in words in front, as among the choices its own likelihood would be judged."""
        return "prefix" if self.study.config["eval"]["name"] == "answers" else "perturbed"

    @property
    def base(self) -> Trial | None:
        return self.study.references.get("base")

    @property
    def methods(self) -> list[str]:
        return [name for name in self.study.methods if self.plain(name) is not None]

    def conditions(self, method: str) -> list[Condition]:
        """A method's settings on this basis that nothing but RNA at the unlearn layer protects, and of these the family
        with the most trials: those that differ in ν and the seed alone."""
        found = [one for one in self.of(method) if one.first.bare or _at_the_layer(one.first)]
        families: dict[str, list[Condition]] = {}
        for one in found:
            families.setdefault(one.first.without("seed", "noise"), []).append(one)
        return max(families.values(), key=lambda of: sum(len(one.trials) for one in of), default=[])

    def of(self, method: str) -> list[Condition]:
        """A method's settings on this basis without a defence."""
        if self.basis == MATCHED:
            every = compare.to_target(self.study)
        else:
            every = [one for one in compare.conditions(self.study) if one.first.reached is None]
        return [one for one in every if one.first.method == method and not one.first.defences]

    def plain(self, method: str) -> Condition | None:
        """Without noise; on the basis of matched forgetting the seeds that reached the target."""
        found = next((one for one in self.conditions(method) if one.first.bare), None)
        if found is None or self.basis == EQUAL:
            return found
        there = [trial for trial in found.trials if trial.reached]
        return Condition(there) if there else None

    def with_rna(self, method: str) -> list[Condition]:
        return [one for one in self.conditions(method) if not one.first.bare]

    def noised(self, method: str) -> dict[float, Condition]:
        """By ν, those with RNA whose ν is absolute, the smallest first."""
        own = [one for one in self.with_rna(method) if one.first.config["noise"]["name"] == "rna"]
        return {one.first.nu: one for one in sorted(own, key=lambda one: one.first.nu)}

    def pairs(self, one: Condition, other: Condition) -> list[tuple[Trial, Trial]]:
        """Of each seed that both have; at matched forgetting those that are matched."""
        if self.basis == MATCHED:
            return compare.beside(self.study, one, other).pairs
        twins = {trial.seed: trial for trial in other.trials}
        return [(trial, twins[trial.seed]) for trial in one.trials if trial.seed in twins]

    def score(self, trial: Trial | None, role: str) -> float | None:
        found = None if trial is None else trial.score(role, self.study.part)
        return None if found is None or not math.isfinite(found.value) else found.value

    def cost(self, trial: Trial) -> float | None:
        """What a forget-token costs beyond a neutral one, and beyond what it costs the base; more is worse."""
        both = (self.role, roles.BY_NAME[self.role].control or "")
        four = [self.score(one, name) for one in (trial, self.base) for name in both]
        known = [value for value in four if value is not None]
        if len(known) < 4:
            return None
        return -self.study.better * ((known[0] - known[1]) - (known[2] - known[3]))

    def less(self, one: Trial, other: Trial, role: str) -> float | None:
        """One's score less the other's."""
        scores = self.score(one, role), self.score(other, role)
        return None if scores[0] is None or scores[1] is None else scores[0] - scores[1]

    def gain(self, one: Trial, other: Trial) -> float | None:
        """How much better one answers than the other beside a forget-token."""
        less = self.less(one, other, self.role)
        return None if less is None else self.study.better * less

    def best(self, method: str) -> Condition | None:
        """With the ν whose score beside a forget-token is the best on the select half, where there is one, of those
        that forget."""
        half = "select" if self.study.halved else self.study.part
        plain, left_out = self.plain(method), self.unforgotten(method)
        there = [one for one in self.with_rna(method) if one not in left_out]
        found = [one for one in there if plain is not None and self.pairs(one, plain)]

        def merit(one: Condition) -> float:
            made = one.estimate(self.study, self.role, half)
            return -math.inf if made is None else self.study.better * made.value

        return max(found, key=merit, default=None)

    def unforgotten(self, method: str) -> list[Condition]:
        """Those with which forget accuracy stays more than `FORGETS` points above plain's, on the select half where
        there is one: what has not forgotten is robust of nothing. Trainings with a target have forgotten alike."""
        plain = self.plain(method)
        if plain is None or self.basis == MATCHED or self.study.kind != "choice":
            return []
        chosen = replace(self, study=replace(self.study, part="select")) if self.study.halved else self
        left_out: list[Condition] = []
        for one in self.with_rna(method):
            apart = [chosen.less(*pair, "forget") for pair in self.pairs(one, plain)]
            known = [value for value in apart if value is not None]
            left_out += [one] if known and sum(known) / len(known) > FORGETS else []
        return left_out


def nu_of(trial: Trial) -> str:
    """A trial's ν in words."""
    return f"ν = {trial.nu:g}" + (" of the layer’s size" if trial.config["noise"]["name"] == "relative" else "")


def _at_the_layer(trial: Trial) -> bool:
    noise = trial.config["noise"]
    return trial.arm == "rna" and noise["layers"] == [trial.config["layer"]["unlearn"]]


def _pooled(values: Values, weights: Mapping[str, float] | None = None, **more: Any) -> Measured:
    """The mean over methods, or a weighted sum; of those that have two seeds or more, if any has."""
    several = {name: of for name, of in values.items() if len(of) > 1} or {n: of for n, of in values.items() if of}
    if not several:
        return Measured(note=more.get("note") or "no records")
    shares = weights or dict.fromkeys(several, 1 / len(several))
    number = intervals.together(list(several.values()), [shares[name] for name in several])
    return Measured(number, {name: intervals.over_seeds(of) for name, of in several.items()}, **more)


def _each(asked: Asked, of: Callable[[Condition], list[float | None]]) -> Values:
    """By method, the values of its plain trials that have one."""
    found = {method: of(plain) for method in asked.methods if (plain := asked.plain(method)) is not None}
    return {name: known for name, values in found.items() if (known := [one for one in values if one is not None])}


def _families(asked: Asked, methods: Iterable[str]) -> dict[str, list[str]]:
    kinds = {trial.method: trial.family for trial in asked.study.trials}
    return {family: [name for name in methods if kinds[name] == family] for family in (RM, PO)}


# The measures, in the order of the claims


def fragile(asked: Asked) -> Measured:
    values = _each(asked, lambda plain: [asked.cost(trial) for trial in plain.trials])
    return _pooled(values, note="" if values else "no base, or no neutral token beside the forget-token")


def rm_beside_po(asked: Asked) -> Measured:
    values = _each(asked, lambda plain: [asked.cost(trial) for trial in plain.trials])
    values = {name: of for name, of in values.items() if len(of) > 1}
    return _apart(asked, {name: [-one for one in of] for name, of in values.items()})


def _apart(asked: Asked, values: Values, note: str = "") -> Measured:
    """RM's mean less PO's."""
    families = _families(asked, values)
    if not all(families.values()):
        return Measured(note="takes methods of both kinds, RM and PO, with two seeds or more")
    weights = {name: 1 / len(families[RM]) for name in families[RM]}
    weights |= {name: -1 / len(families[PO]) for name in families[PO]}
    return _pooled(values, weights, note=note)


def recovers(family: str) -> Callable[[Asked], Measured]:
    def measure(asked: Asked) -> Measured:
        gains: Values = {}
        costs: Values = {}
        told: list[str] = []
        own = _families(asked, asked.methods)[family]
        unforgotten = [f"{name} {nu_of(one.first)}" for name in own for one in asked.unforgotten(name)]
        for method in asked.methods:
            plain, best = asked.plain(method), asked.best(method)
            if plain is None or best is None or best.first.family != family:
                continue
            pairs = asked.pairs(best, plain)
            found = [asked.gain(*pair) for pair in pairs]
            lost = [asked.cost(twin) for _, twin in pairs]
            if all(one is not None for one in found) and found:
                gains[method] = [one for one in found if one is not None]
                costs[method] = [one for one in lost if one is not None]
                told.append(f"{method} {nu_of(best.first)}")
        if not gains:
            return Measured(note=f"no {family} method with RNA beside a plain one that has forgotten alike")
        harm = sum(sum(of) / len(of) for of in costs.values() if of) / max(len(costs), 1)
        note = f"of a harm of {harm:.{asked.study.digits}f}; {', '.join(told)}"
        note += f"; left out, as it forgets less than plain: {', '.join(unforgotten)}" if unforgotten else ""
        return _pooled(gains, margin=max(harm, 0.0) / 4, note=note)

    return measure


def stays(role: str) -> Callable[[Asked], Measured]:
    def measure(asked: Asked) -> Measured:
        values: Values = {}
        for method in asked.methods:
            plain, best = asked.plain(method), asked.best(method)
            pairs = asked.pairs(best, plain) if plain is not None and best is not None else []
            found = [asked.less(*pair, role) for pair in pairs]
            if known := [one for one in found if one is not None]:
                values[method] = known
        return _pooled(values, note="" if values else "no pair of plain and RNA that has forgotten alike")

    return measure


def slope(numbers: Mapping[str, str]) -> Callable[[Asked], Measured]:
    """Perturbed score against the base-2 logarithm of a method's number, by least squares, seed by seed."""

    def measure(asked: Asked) -> Measured:
        values: Values = {}
        told: list[str] = []
        for method, key in numbers.items():
            group, _, name = key.partition(".")
            families: dict[str, list[Trial]] = {}
            for one in asked.of(method):
                if one.first.bare:
                    there = [trial for trial in one.trials if asked.basis == EQUAL or trial.reached]
                    families.setdefault(one.first.without("seed", key), []).extend(there)
            trials = max(families.values(), key=len, default=[])
            slopes: list[float] = []
            grid: set[float] = set()
            for seed in sorted({trial.seed for trial in trials}):
                own = [trial for trial in trials if trial.seed == seed]
                points = [
                    (math.log2(float(trial.config[group][name])), asked.study.better * score)
                    for trial in own
                    if (score := asked.score(trial, asked.role)) is not None
                ]
                if len({x for x, _ in points}) > 2:
                    slopes.append(_least_squares(points))
                    grid |= {2**x for x, _ in points}
            if slopes:
                values[method] = slopes
                told.append(f"{method} {name} {', '.join(f'{one:g}' for one in sorted(grid))}")
        return _pooled(values, note="; ".join(told) or "takes three values or more of c or β")

    return measure


def _least_squares(points: Sequence[tuple[float, float]]) -> float:
    x_mean, y_mean = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    above = math.fsum((x - x_mean) * (y - y_mean) for x, y in points)
    return above / math.fsum((x - x_mean) ** 2 for x, _ in points)


def steps_of_nu(first: int, second: int) -> Callable[[Asked], Measured]:
    """Perturbed score with one ν less another, both by their place, 0 being plain; of one seed and method."""

    def measure(asked: Asked) -> Measured:
        found: dict[str, list[tuple[Trial, Trial]]] = {}
        nus: set[str] = set()
        for method in asked.methods:
            plain, noised = asked.plain(method), asked.noised(method)
            assert plain is not None
            rows, names = [plain, *noised.values()], [0.0, *noised]
            if len(rows) > 3 and (pairs := asked.pairs(rows[second], rows[first])):
                found[method] = pairs
                nus.add(f"ν = {names[second]:g} less {names[first]:g}")
        values = _gains(asked, found)
        if not values:
            return Measured(note="takes three values of ν or more, that have forgotten alike")
        return _pooled(values, note="; ".join([*sorted(nus), *_forgetting(asked, found)]))

    return measure


def _gains(asked: Asked, found: Mapping[str, Sequence[tuple[Trial, Trial]]]) -> Values:
    every = {name: [gain for pair in pairs if (gain := asked.gain(*pair)) is not None] for name, pairs in found.items()}
    return {name: gains for name, gains in every.items() if gains}


def _forgetting(asked: Asked, found: Mapping[str, Sequence[tuple[Trial, Trial]]]) -> list[str]:
    """How far forgetting moves between the two of a pair, where it was not held alike: it explains what else moves."""
    if asked.basis == MATCHED:
        return []
    moved = [[asked.less(*pair, "forget") for pair in pairs] for pairs in found.values()]
    means = [sum(known) / len(known) for one in moved if (known := [value for value in one if value is not None])]
    if not means:
        return []
    return [f"forget moves by {sum(means) / len(means):+.{asked.study.digits}f}".replace("-", "−")]


def tolerates(asked: Asked) -> Measured:
    found: dict[str, list[tuple[Trial, Trial]]] = {}
    for method in asked.methods:
        plain, noised = asked.plain(method), asked.noised(method)
        if plain is not None and noised and len(pairs := asked.pairs(noised[max(noised)], plain)) > 1:
            found[method] = pairs
    by_family = _families(asked, found)
    told = [
        f"{family}: {line}"
        for family, names in by_family.items()
        for line in _forgetting(asked, {name: found[name] for name in names})
    ]
    return _apart(asked, _gains(asked, found), note="; ".join(told))


def similar(asked: Asked) -> Measured:
    """Score with the n-grams most like their documents less with those least like them, and less the base's."""
    sizes = sorted({one.ngram[0] for trial in asked.study.trials for one in trial.evaluations if one.ngram})
    if not sizes:
        return Measured(note="no questions with n-grams")

    def apart(trial: Trial | None) -> float | None:
        found = {
            one.ngram: one.parts.get(asked.study.part) for one in (trial.evaluations if trial else ()) if one.ngram
        }
        top, bottom = found.get((sizes[0], "top")), found.get((sizes[0], "bottom"))
        return None if top is None or bottom is None else asked.study.better * (top.value - bottom.value)

    before = apart(asked.base)
    if before is None:
        return Measured(note="the base was not asked")
    values = _each(asked, lambda plain: [None if (own := apart(t)) is None else own - before for t in plain.trials])
    return _pooled(values, note=f"n = {sizes[0]}; base {before:+.{asked.study.digits}f}".replace("-", "−"))


def placed(chosen: Callable[[Trial], bool]) -> Callable[[Asked], Measured]:
    """Gains of noise at other layers than the unlearn layer: of each seed the mean over its settings."""

    def measure(asked: Asked) -> Measured:
        values: Values = {}
        layers: set[str] = set()
        for method in asked.methods:
            plain = asked.plain(method)
            assert plain is not None
            like = plain.first.without("seed", "noise")
            by_seed: dict[int, list[float]] = {}
            for one in asked.of(method):
                noise = one.first.config["noise"]
                if one.first.arm == "rna" and chosen(one.first) and one.first.without("seed", "noise") == like:
                    for pair in asked.pairs(one, plain):
                        if (gain := asked.gain(*pair)) is not None:
                            by_seed.setdefault(pair[0].seed, []).append(gain)
                            layers.add(f"{','.join(map(str, noise['layers']))} (ν = {one.first.nu:g})")
            if by_seed:
                values[method] = [sum(found) / len(found) for found in by_seed.values()]
        return _pooled(values, note=f"layers {'; '.join(sorted(layers))}" if layers else "no RNA at other layers")

    return measure


def elsewhere(trial: Trial) -> bool:
    return len(trial.config["noise"]["layers"]) == 1 and not _at_the_layer(trial)


def everywhere(trial: Trial) -> bool:
    return len(trial.config["noise"]["layers"]) > 1


def sensitive(asked: Asked) -> Measured:
    """Eq. 33 at the layer behind the unlearn layer, ξ of the layer's own size, less the base's."""

    def change(trial: Trial) -> float | None:
        behind = trial.config["layer"]["unlearn"] + 1
        rows = asked.sensitivities.get(trial.key, ())
        return next(
            (float(row["minus_base"]) for row in rows if row["noise"] == "rms" and int(row["layer"]) == behind), None
        )

    values = _each(asked, lambda plain: [change(trial) for trial in plain.trials])
    return _pooled(values, note="" if values else "python -m rna.analyze noise_sensitivity was not run on these trials")


def middle(asked: Asked) -> Measured:
    """The mean change of the middle third of layers less that of the last third."""
    values: Values = {}
    for method in asked.methods:
        plain = asked.plain(method)
        for trial in plain.trials if plain is not None else ():
            rows = [row for row in asked.sensitivities.get(trial.key, ()) if row["noise"] == "rms"]
            depth = 1 + max((int(row["layer"]) for row in rows), default=0)
            if depth < 9:
                continue
            thirds: dict[int, list[float]] = {0: [], 1: [], 2: []}
            for row in rows:
                thirds[int(row["layer"]) * 3 // depth].append(float(row["minus_base"]))
            middle, last = (sum(thirds[third]) / len(thirds[third]) for third in (1, 2))
            values.setdefault(method, []).append(middle - last)
    return _pooled(values, note="" if values else "takes a model of nine layers or more, and their sensitivities")
