"""Many records as one small file, `NAME.jsonl.xz`, a record a line: for a paper's appendix, or for those who rerun it.

Of a training's curve the evaluations on the way are kept, in their steps; losses and norms, which hardly compress and
which no comparison reads, are not. Nor is what is of one machine alone: its name, and of paths all but the file's or
folder's own name. All else is as in `results/`.
"""

import csv
import json
import lzma
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from rna.report import analyses
from rna.report.reading import ANALYSIS, ON_THE_WAY, names_of

SUFFIX = ".jsonl.xz"
LOCAL = ("host", "wandb")  # of the machine that trained it


def pack(output_dir: str, file: Path, keys: Collection[str] | None) -> int:
    """Write the records of these training keys, and of all references and analyses, to a file; None: all. Returns how
    many records.

    Raises:
        ValueError: if the file is there already or is not named as one, if a record cannot be read, or there is none.
    """
    if not file.name.endswith(SUFFIX):
        raise ValueError(f"FILE={file}: must end in {SUFFIX}")
    if file.exists():
        raise ValueError(f"FILE={file}: exists already; give a file that does not, nothing is overwritten")
    found = [_slim(record) for record in _chosen(output_dir, keys)]
    if not found:
        raise ValueError(f"no record to pack in {output_dir}/results")
    lines = [json.dumps(one, ensure_ascii=False, sort_keys=True) for one in [*found, *analysed(output_dir)]]
    temporary = file.with_name(f".{file.name}.partial")
    try:
        temporary.write_bytes(lzma.compress(("\n".join(lines) + "\n").encode(), preset=9 | lzma.PRESET_EXTREME))
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return len(found)


def _chosen(output_dir: str, keys: Collection[str] | None) -> Iterator[dict[str, Any]]:
    """Records of trials, in the order of their names: no reruns, and no attempts that failed."""
    for name, text in names_of(output_dir):
        try:
            record = json.loads(text())
            key = str(record.get("train_key") or record["key"])
            reference = record["config"]["method"]["name"] in ("none", "given")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{output_dir}/results/{name}: cannot be read as a record ({error}); move it away"
            ) from None
        if record["kind"] != "failure" and ".r" not in record["key"] and (keys is None or reference or key in keys):
            yield record


def _slim(record: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in record.items() if name not in LOCAL}
    kept["config"] = _placeless(record["config"])
    if record["kind"] == "train":
        steps: Iterable[dict[str, Any]] = record.get("curve") or []
        kept["curve"] = [{name: step[name] for name in ON_THE_WAY if step.get(name) is not None} for step in steps]
    return kept


def _placeless(value: Any) -> Any:
    """A configuration with the names alone of what absolute paths lead to."""
    if isinstance(value, dict):
        return {name: _placeless(item) for name, item in dict[str, Any](value).items()}
    if isinstance(value, list):
        return [_placeless(item) for item in list[Any](value)]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def analysed(source: str | Path) -> list[dict[str, Any]]:
    """What `rna.analyze` measured on trials of this folder or packed file: by `model` and `what` its `facts`, and each
    row of its `tables` by column."""
    if Path(source).is_file():
        told = [json.loads(text()) for _, text in names_of(source)]
        return [one for one in told if one.get("kind") == ANALYSIS]
    found: list[dict[str, Any]] = []
    for file in sorted((Path(source) / "reports" / "analyses").glob(f"*/*/{analyses.FACTS}")):
        facts = json.loads(file.read_text(encoding="utf-8"))
        tables: dict[str, list[dict[str, str]]] = {}
        for name in facts["tables"]:
            with file.with_name(f"{name}.csv").open(encoding="utf-8", newline="") as stream:
                tables[name] = list(csv.DictReader(stream))
        model, what = file.parent.parent.name, file.parent.name
        facts = {name: value for name, value in facts.items() if name not in LOCAL}
        found.append({"kind": ANALYSIS, "model": model, "what": what, "facts": facts, "tables": tables})
    return found
