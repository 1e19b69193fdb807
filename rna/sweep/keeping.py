"""`keep=all|best|none`: the trained tensors that a sweep leaves on disk; the others are trained again by their keys.

Each trial looks at its end, so that a sweep whose jobs run by themselves on a cluster needs nobody to clear up.
"""

from pathlib import Path
from typing import Any

from rna.store import results
from rna.sweep import ledger
from rna.sweep.leaderboard import best
from rna.sweep.ledger import Trial
from rna.sweep.records import current
from rna.sweep.rows import rows_of


def release(folder: Path) -> int:
    """Delete the tensors that this sweep needs no more and was told not to keep; return the bytes.

    With `best` the row that leads stays, all its seeds with their plain twins, and every row until its last seed is
    over: it may still lead. Whatever a trial that is not over may want stays too, in this sweep or in another one.
    """
    trials = current(folder)
    ended = (ledger.DONE, ledger.PRUNED)  # by a race, with tensors
    over = [trial for trial in trials if trial.status in ended and trial.address and keep_of(trial) != "all"]
    if not over:
        return 0
    spec: dict[str, Any] = ledger.read_json(folder / "sweep.json") or {}
    kept = _wanted(trials)
    if any(keep_of(trial) == "best" for trial in over):
        kept |= _best(trials, spec)
    if spec.get("sampler", "grid") != "grid" and sum(trial.over for trial in trials) < spec.get("n_trials", 0):
        kept |= {key for trial in trials for key in uses(trial)[1:]}  # of trials that are not drawn yet
    candidates = {(trial.address["output_dir"], key) for trial in over if trial.address for key in uses(trial)}
    there = [one for one in sorted(candidates) if one[1] not in kept and results.delta_path(*one).is_file()]
    if there:
        others = (path for path in folder.parent.iterdir() if path != folder and (path / "trials").is_dir())
        kept |= {key for path in others for key in _wanted(ledger.trials(path))}
    return sum(results.drop(*one) for one in there if one[1] not in kept)


def keep_of(trial: Trial) -> str:
    return (trial.address or {}).get("keep", "all")


def uses(trial: Trial) -> list[str]:
    """The keys of the trainings that a trial evaluates: its own, and its plain twin's."""
    where = trial.address or {}
    return where.get("uses") or ([where["key"]] if "key" in where else [])


def _wanted(trials: list[Trial]) -> set[str]:
    """The trainings of trials that are not over, and of those that keep all."""
    return {key for trial in trials if not trial.over or keep_of(trial) == "all" for key in uses(trial)}


def _best(trials: list[Trial], spec: dict[str, Any]) -> set[str]:
    """The trainings of the row that leads, and of rows with seeds to come."""
    open_groups = {group_of(trial) for trial in trials if not trial.over}
    whole = rows_of([trial for trial in trials if group_of(trial) not in open_groups])
    metric, direction = next(iter((spec.get("objectives") or {}).items()), ("", "minimize"))
    found = best(whole, metric, direction, spec.get("constraints") or []) or best(whole, metric, direction, [])
    leading = [] if found is None else found.trials
    unfinished = [trial for trial in trials if group_of(trial) in open_groups]
    return {key for trial in (*leading, *unfinished) for key in uses(trial)}


def group_of(trial: Trial) -> str:
    """What trials that differ in their seed alone have in common."""
    return (trial.address or {}).get("group") or trial.name
