"""What an output folder takes on disk: by kind, and by sweep."""

from pathlib import Path
from typing import Any

from rna.records import columns, files
from rna.records.files import OF_A_TRIAL
from rna.records.listing import in_bytes
from rna.sweep import ledger

KINDS = ("tensors", "checkpoint", "answers", "records", "cache", "wandb", "reports", "sweeps", "other")
SAID = {"checkpoint": "checkpoints", "wandb": "W&B runs", "sweeps": "sweeps' ledgers and logs"}
TOP = {"results": "records", "cache": "cache", "wandb": "wandb", "reports": "reports", "sweeps": "sweeps"}


def usage(output_dir: str) -> dict[str, Any]:
    """Bytes in all, by kind, of each sweep, and of the trials of none.

    A sweep's are its folder and all that belongs to its trials; what two sweeps share counts in both. Plain twins that
    its trials computed on the way, and base models, belong to no sweep.

    Raises:
        ValueError: if there is no such folder.
    """
    root = Path(output_dir)
    if not root.is_dir():
        raise ValueError(f"--output-dir {output_dir}: no such folder")
    kinds: dict[str, int] = dict.fromkeys(KINDS, 0)
    for path, size in files.walked(root):
        parts = path.relative_to(root).parts
        kind = OF_A_TRIAL.get(path.name, "other") if parts[0] == "trials" else TOP.get(parts[0], "other")
        kinds[kind if len(parts) > 1 else "other"] += size
    own = {key: sum(file.bytes for file in lying) for key, lying in files.of_trials(output_dir).items()}
    sweeps: dict[str, int] = {}
    claimed: set[str] = set()
    for folder in sorted(root.glob("sweeps/*/trials")):
        keys = {trial.address["key"] for trial in ledger.trials(folder.parent) if trial.address}
        claimed |= keys
        sweeps[folder.parent.name] = files.size(folder.parent) + sum(own.get(key, 0) for key in keys)
    alone = sum(size for key, size in own.items() if key not in claimed)
    return {"total": sum(kinds.values()), "kinds": kinds, "sweeps": sweeps, "in_no_sweep": alone}


def lines(found: dict[str, Any]) -> list[str]:
    """Two short tables, the largest first."""
    kinds = sorted(found["kinds"].items(), key=lambda item: -item[1])
    cells = [[str(SAID.get(name, name)), in_bytes(size)] for name, size in kinds if size]
    made = columns.laid(["kind", "size"], [*cells, ["all", in_bytes(found["total"])]], left=["kind"])
    sweeps = sorted(found["sweeps"].items(), key=lambda item: -item[1])
    cells = [[name, in_bytes(size)] for name, size in [*sweeps, ("trials of no sweep", found["in_no_sweep"])]]
    made += ["", *columns.laid(["sweep", "size"], cells, left=["sweep"])]
    made.append("cache may be deleted; python -m rna.records delete deletes trials")
    return made
