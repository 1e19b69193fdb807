"""What a trial has answered in a race: a file a block beside its tensors, which nobody takes for an evaluation.

`trials/KEY/block-ASKED-NUMBER.json`, where ASKED names the evaluations that the questions are of. Each is written
once and complete, so that a race goes on where it was, and another one finds what this one asked.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rna.corpora import digest
from rna.ends import patient
from rna.store import results
from rna.store.results import Record

Block = dict[str, Any]  # `of`, and by name under `tasks` what `rna.evaluation.evaluate.answer_block` gives


def asked(evals: Mapping[str, str], names: Sequence[str]) -> str:
    """A word for these tasks of a trial, by their EVAL_KEYs."""
    return digest({name: evals[name] for name in sorted(names)})


def path_of(output_dir: str, key: str, word: str, number: int) -> Path:
    return Path(output_dir) / "trials" / key / f"block-{word}-{number}.json"


@patient
def read(output_dir: str, key: str, word: str) -> list[Block]:
    """The blocks that are answered, from the first on; one that a disk has lost half of is asked again."""
    found: list[Block] = []
    while True:
        path = path_of(output_dir, key, word, len(found))
        try:
            found.append(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return found
        except ValueError:
            path.unlink(missing_ok=True)
            return found


def write(
    output_dir: str, key: str, word: str, number: int, block: Block, commit: Callable[[], None] = lambda: None
) -> None:
    """Write a block once. Raises FileExistsError if it is there, and whatever `commit` raises."""
    record: Record = {"kind": "block", "key": key, "block": number, **block, **results.provenance()}
    results.write_once(path_of(output_dir, key, word, number), record, commit)
