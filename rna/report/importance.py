"""Which settings moved the scores: the share of their variance that each explains over a study's trials.

Optuna and its random forests load here alone, and only when a study is closed.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rna.report import commands
from rna.report.compare import alpha
from rna.report.records import Study, Trial
from rna.report.sheet import Cell, Table
from rna.report.tables import ROLES

MIN_TRIALS = 8
TREES = 32  # of each forest; 64 move no share by a point, in twice the time
Value = str | float


def _option(name: str) -> Callable[[Trial], Value | None]:
    return lambda trial: trial.config["method"].get(name)


def _alpha(trial: Trial) -> Value:
    values = set(trial.config["alpha"].values())
    return float(values.pop()) if len(values) == 1 else alpha(trial.config)


SETTINGS: dict[str, Callable[[Trial], Value | None]] = {
    "method": lambda trial: trial.method,
    "ν": lambda trial: trial.nu,
    "noised layers": lambda trial: str(trial.config["noise"]["layers"]),
    "α": _alpha,
    "c": _option("coefficient"),
    "β": _option("beta"),
    "γ": _option("gamma"),
    "unlearn layer": lambda trial: float(trial.config["layer"]["unlearn"]),
    "trained layers": lambda trial: str(trial.config["layer"]["trained"]),
    "steps": lambda trial: float(trial.config["train"]["steps"]),
    "learning rate": lambda trial: float(trial.config["train"]["lr"]),
    "batch": lambda trial: float(trial.config["train"]["batch_size"]),
    "seed": lambda trial: float(trial.seed),
}


def varied(trials: Sequence[Trial]) -> dict[str, list[Value]]:
    """By setting, its value in each trial: of those that every trial has and that take several values."""
    found: dict[str, list[Value]] = {}
    for name, read in SETTINGS.items():
        values = [value for trial in trials if (value := read(trial)) is not None]
        # Where the noise lies is ν = 0 said again, unless trials with noise differ in it.
        telling = [read(trial) for trial in trials if trial.arm == "rna"] if name == "noised layers" else values
        if len(values) == len(trials) and len(set(telling)) > 1:
            found[name] = values
    return found


def shares(settings: dict[str, list[Value]], scores: Sequence[float]) -> dict[str, float]:
    """Functional ANOVA on a random forest of settings -> score: each setting's main share, all together 1.

    Hutter, Hoos and Leyton-Brown (2014), as Optuna has it; the forest's seed is fixed.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions: dict[str, Any] = {}
    for name, values in settings.items():
        if all(isinstance(value, float) for value in values):
            distributions[name] = optuna.distributions.FloatDistribution(min(values), max(values))  # pyright: ignore
        else:
            distributions[name] = optuna.distributions.CategoricalDistribution(sorted({str(value) for value in values}))
    study = optuna.create_study()
    for place, score in enumerate(scores):
        params = {
            name: values[place] if isinstance(distributions[name], optuna.distributions.FloatDistribution)
            else str(values[place])
            for name, values in settings.items()
        }  # fmt: skip
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
    evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(found.get(name, 0.0)) for name in settings}


def table(study: Study) -> Table:
    """Each setting's share of the variance of forget and perturbed scores over the study's trials."""
    by_role: dict[str, dict[str, float]] = {}
    values: dict[str, list[Value]] = {}
    counts: list[int] = []
    for role in ("perturbed", "forget"):
        scored = [(trial, score.value) for trial in study.trials if (score := study.score(trial, role)) is not None]
        settings = varied([trial for trial, _ in scored])
        enough = len(scored) >= MIN_TRIALS and len({value for _, value in scored}) > 1
        if enough and len(settings) > 1:
            by_role[role] = shares(settings, [value for _, value in scored])
            values |= settings
            counts.append(len(scored))
    first = next(iter(by_role), "")
    names = sorted(values, key=lambda name: -by_role[first].get(name, 0.0))
    rows: list[list[Cell]] = [
        [name, len(set(values[name])), *(100 * found.get(name, 0.0) for found in by_role.values())] for name in names
    ]
    notes = [
        f"Functional ANOVA on a random forest over {min(counts, default=0)} trials; each column adds up to 100. No "
        "interval: a setting below the seed moved the scores less than chance did, and settings that always change "
        "together share their part at random.",
        f"Settings that all trials have, with several values; at least {MIN_TRIALS} trials.",
    ]
    columns = ["setting", "values", *(f"% of {ROLES[role]}" for role in by_role)]
    command = commands.sweep(study, "method=npo", "retain=mse,kl", "noise.nu=0,0.01,0.02", "seed=0,1,2")
    return Table("importance", "What moved the scores", columns, rows, notes, 1, command=command)
