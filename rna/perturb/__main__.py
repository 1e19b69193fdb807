"""`python -m rna.perturb`: export the perturbed questions as a data set, or mine n-grams to perturb questions with."""

import argparse
import hashlib
import json
import shlex
import sys
from pathlib import Path

from rna import printing
from rna.corpora import Row
from rna.ends import guarded
from rna.evaluation import ngrams, questions
from rna.perturb import POLICIES, has_choice, perturb_all, replaced_choices
from rna.printing import in_markdown


def main() -> None:
    printing.prepare()
    parser = printing.Parser(prog=printing.program("perturb"), description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("export", help="write perturbed questions as parquet and jsonl, with a card")
    command.add_argument("folder", help="where to write; must not exist yet, or be empty")
    command.add_argument("--source", choices=("mmlu", "wmdp_bio", "wmdp_cyber"), default="mmlu")
    command.add_argument("--path", help="a folder of jsonl or parquet files, or a hub id; by default the hub's own")
    command.add_argument("--keyword", default="SARS-CoV-2")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--replaced", type=int, default=1, help="how many wrong choices give way: 1 to 3")
    command.add_argument("--policy", choices=POLICIES, default="random", help="which of them")
    command.set_defaults(function=_export)
    ngrams.add_command(commands)
    options = parser.parse_args()
    guarded(lambda: options.function(options))


def _export(options: argparse.Namespace) -> None:
    export(
        Path(options.folder),
        source=options.source,
        path=options.path,
        keyword=options.keyword,
        seed=options.seed,
        replaced=options.replaced,
        policy=options.policy,
    )


def export(folder: Path, *, source: str, path: str | None, keyword: str, seed: int, replaced: int, policy: str) -> None:
    """Write `questions.jsonl`, `questions.parquet` and a card with what the questions depend on and their hash.

    Raises:
        ValueError: if the folder is not empty, or the questions cannot be read.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"FOLDER={folder}: exists already; give a folder that does not, nothing is overwritten")
    if not 1 <= replaced <= len(questions.LETTERS) - 1:
        raise ValueError(f"--replaced {replaced}: allowed: 1 to {len(questions.LETTERS) - 1}")
    name, _, subset = source.partition("_")
    place = path or {"mmlu": "cais/mmlu", "wmdp": "cais/wmdp"}[name]
    plain = list(questions.of_source(name, place, subset or None, key="--path"))
    rows = perturb_all(plain, keyword, seed, replaced=replaced, policy=policy)
    for row, before in zip(rows, plain, strict=True):
        kept = has_choice(before, keyword)
        row["replaced"] = [] if kept else sorted(replaced_choices(before, seed, replaced=replaced, policy=policy))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    digest = hashlib.sha256(lines.encode()).hexdigest()

    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "questions.parquet")
    kept = sum(not row["replaced"] for row in rows)
    (folder / "README.md").write_text(
        card(source, place, rows, kept, keyword, seed, replaced, policy, digest), encoding="utf-8"
    )
    print(f"{folder}: {len(rows)} questions, sha256 {digest}", file=sys.stderr)


def card(
    source: str,
    place: str,
    rows: list[Row],
    kept: int,
    keyword: str,
    seed: int,
    replaced: int,
    policy: str,
    digest: str,
) -> str:
    """What the data set is, how it came about, and how to evaluate on it."""
    found = questions.faults(rows)
    subjects = len({row["subject"] for row in rows})
    word = in_markdown(keyword)
    metadata = json.dumps({"keyword": keyword, "seed": seed, "replaced": replaced, "policy": policy})
    return f"""# Perturbed {source}

{len(rows)} multiple-choice questions of `{place}` in {subjects} subjects, with {replaced} wrong choice(s) in each
replaced by "{word}" (arXiv:2501.19202, Appendix A.2). The right answer is untouched; where a wrong choice repeated
it, that one gave way first. {kept} questions had the keyword among their choices and are as they were.

| | |
|---|---|
| keyword | {word} |
| seed | {seed} |
| replaced choices | {replaced}, policy {policy} |
| sha256 of `questions.jsonl` | `{digest}` |
| questions with the right answer twice | {found["repeated_answer"]} |
| questions with a wrong choice twice | {found["repeated_choice"]} |
| questions with an empty choice | {found["empty_choice"]} |

Columns: `question`, `subject`, `choices` (four), `answer` (0 to 3), `replaced` (indices), `half` (`select` or `report`:
choose hyperparameters on one, report on the other). The same seed gives the same bytes on every machine.

With lm-eval:

    lm_eval run --tasks mmlu_perturbed --include_path rna/tasks --metadata {shlex.quote(metadata)}
"""


if __name__ == "__main__":
    main()
