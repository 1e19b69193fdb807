"""`sweep.json`: what a sweep is, kept so that its name never comes to mean another one."""

from pathlib import Path
from typing import Any

from rna.sweep import ledger

from .space import Space


def spec_path(folder: Path) -> Path:
    return folder / "sweep.json"


def read_spec(folder: Path) -> dict[str, Any]:
    """What was written when the sweep began last; nothing if it never has."""
    return ledger.read_json(spec_path(folder)) or {}


def write_spec(folder: Path, **spec: Any) -> None:
    ledger.write_json(spec_path(folder), {"name": folder.name, **spec})


def check_spec(spec: dict[str, Any], study: str, space: Space, sampler: str, seed: int) -> None:
    """Raises ValueError if the study's name belongs to another search space, or to other draws from it.

    A grid may get other values on its axes; a sampler that draws would have drawn otherwise.
    """
    if not spec:
        return
    there, here = spec["space"], space.described()
    grid = sampler == "grid"
    if spec["sampler"] != sampler or (set(there) != set(here) if grid else there != here):
        differs = sorted({*there} ^ {*here}) if grid else _differing(there, here)
        raise ValueError(
            f"hydra.sweeper.study_name={study}: this study has another search space "
            f"({', '.join(differs or ['sampler'])} differ); give another name, or the space it was begun with"
        )
    if not grid and spec["seed"] != seed:
        raise ValueError(
            f"hydra.sweeper.study_name={study}: this study was begun with hydra.sweeper.seed={spec['seed']}, "
            f"not {seed}; give another name, or the seed it was begun with"
        )


def check_same_configuration(spec: dict[str, Any], study: str, fingerprint: dict[str, Any]) -> None:
    """Raises ValueError if the study was begun with another configuration, for an app without a record store.

    With a store a changed configuration makes other trials, and the old ones keep their records; a returned value has
    none, and could only be mixed with the new ones, or lost.
    """
    if spec and spec["fingerprint"] != fingerprint:
        raise ValueError(
            f"hydra.sweeper.study_name={study}: this study was begun with another configuration "
            f"({', '.join(_differing(spec['fingerprint'], fingerprint))} differ); "
            "give another name, or the configuration it was begun with"
        )


def _differing(there: Any, here: dict[str, Any]) -> list[str]:
    if not isinstance(there, dict):  # a record store's, which this one has not
        return ["hydra.sweeper.store"]
    return sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
