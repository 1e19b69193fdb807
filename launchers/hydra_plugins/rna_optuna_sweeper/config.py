"""The options of `hydra/sweeper=rna_optuna`."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class RnaOptunaConf:
    _target_: str = "hydra_plugins.rna_optuna_sweeper.sweeper.RnaOptunaSweeper"
    study_name: str | None = None  # None: made from the search space, so that the same command finds its study again
    folder: str = "sweeps"  # FOLDER/STUDY_NAME holds the study
    storage: str | None = None  # None: a journal file in the study's folder; or a database's URL
    sampler: str | None = None  # grid | random | tpe | nsga2; None: grid
    seed: int = 0  # of the sampler
    params: dict[str, Any] | None = None  # overrides, as on the command line, which wins
    grids: Any = None  # {NAME: params}: several grids in one sweep, each beside what params say
    objectives: Any = None  # {METRIC: minimize | maximize, …}; None: the store's choice, or the returned value
    direction: str = "minimize"  # of a returned value
    constraints: list[str] = field(default_factory=list)  # "METRIC <= NUMBER" or "METRIC >= NUMBER"
    pruner: str | None = None  # median | hyperband, with one objective; None: every trial runs to its end
    prune_by: Any = None  # {METRIC: minimize | maximize} of the training's course; None: the objective's own course
    pruning: dict[str, int] = field(
        default_factory=lambda: {"every": 10, "startup_trials": 5, "warmup_steps": 0, "reduction_factor": 3}
    )  # steps between two looks (means of what lies between); what the median waits for; Hyperband's η
    race: dict[str, float] = field(  # with eval.race=true, see rna/sweep/race.py
        default_factory=lambda: {"error": 0.05, "tolerance": 0.01, "finalists": 3}
    )  # that the winner is not the best by more than the tolerance, a share; settings that are evaluated whole
    n_trials: int | None = None  # of random, tpe, nsga2
    n_jobs: int | None = None  # trials in flight; None: as many as the launcher has places for
    timeout: float | None = None  # seconds, after which no trial is started
    max_retries: int = 2  # of a trial that was killed, hung, preempted or out of memory
    pause_after: int | None = 3  # trials in a row that fail for the same reason, after which no other is started
    stall: dict[str, float] = field(
        default_factory=lambda: {
            "starting": 7200.0,
            "waiting": 86400.0,  # for another trial that computes the same
            "loading": 7200.0,
            "training": 1800.0,
            "evaluating": 7200.0,
        }
    )  # seconds of silence in a phase after which a trial counts as hung
    store: str | None = None  # a module that finds a trial's record; None: what the job returns is all there is
    finish: str | None = None  # a function called with the study's folder at the end


ConfigStore.instance().store(group="hydra/sweeper", name="rna_optuna", node=RnaOptunaConf, provider="rna")
