"""`python -m rna.analyze WHAT [KEY …] [OVERRIDE …]`: the paper's analyses and theory, on a model and trials of it.

Writes tables (CSV and Markdown), a figure (SVG and PNG) and a sentence of verdict to
OUTPUT_DIR/reports/analyses/MODEL/WHAT/, which `python -m rna.report` shows. A KEY is a trial whose tensors lie in
OUTPUT_DIR/trials/KEY, or its beginning, or the name of a sweep, whose trials it stands for; an OVERRIDE is as on
rna.run's command line.
A model of one's own needs model=…, data=… with its forget documents, and --questions FILE (.jsonl, rows as in MMLU).
"""

import argparse
import csv
import json
import shlex
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import printing, progress
from rna.ends import guarded
from rna.printing import in_markdown
from rna.settings import BUILTIN, Settings, compose, config, hydra_text, title_of
from rna.store import Record, results
from rna.sweep import ledger

if TYPE_CHECKING:
    from rna.analyze.findings import Arm, Outcome
    from rna.analyze.measure import Question

# analysis -> what --samples and --limit are where they are not said
WHAT = {
    "noise_sensitivity": (32, 32),
    "theorem_4_2": (256, 256),
    "theorem_5_2": (64, 256),
    "eq_9": (64, 32),
    "backdoor": (2, 256),
    "relative_noise": (3, 256),  # seeds
}


def main() -> None:
    printing.prepare()
    parser = printing.Parser(
        prog=printing.program("analyze"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("rest", nargs="*", metavar="KEY|OVERRIDE", help="trials to compare with the base; overrides")
    parser.add_argument("--model", help="the same as model=NAME")
    parser.add_argument("--questions", metavar="FILE", help="retain questions (the demo's own, for the demo)")
    parser.add_argument("--layer", type=int, help="where noise falls and shifts are read (the unlearn layer)")
    parser.add_argument("--limit", type=int, help="documents or questions (32 documents, 256 questions)")
    parser.add_argument(
        "--samples", type=int, help="draws for each of them, seeds in relative_noise; cost is linear in it"
    )
    parser.add_argument(
        "--nu", type=float, help="RNA's ν, a standard deviation, in theorem_5_2 (of the first RNA trial)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output-dir", default="outputs", help="where everything is written (outputs)")
    options = parser.parse_intermixed_args()
    options.command = shlex.join(["python", "-m", "rna.analyze", *sys.argv[1:]])
    guarded(lambda: analyze(options))


def analyze(options: argparse.Namespace) -> None:
    """Measure, write and tell the verdict.

    Raises:
        ValueError: for an unknown KEY, a KEY of another model, a layer outside the model, too few samples or texts.
    """
    config.register_resolvers()
    samples, limit = WHAT[options.what]
    samples, limit = options.samples or samples, options.limit or limit
    for name, value in (("--samples", samples), ("--limit", limit)):
        if value < 2:
            raise ValueError(f"{name} {value}: an interval needs at least 2")
    if options.what == "theorem_4_2" and samples < 20:
        raise ValueError(f"--samples {samples}: a covariance of 16 projections needs at least 20")
    overrides = [item for item in options.rest if "=" in item]
    if options.model:
        overrides.insert(0, f"model={options.model}")
    settings = config.check(compose([*overrides, f"output_dir={hydra_text(options.output_dir)}"], None))
    results.check_writable(settings.output_dir)
    layer = settings.layer.unlearn if options.layer is None else options.layer
    num_layers = settings.model.num_layers or 0
    if not 0 <= layer < num_layers:
        raise ValueError(f"--layer {layer}: outside the model; allowed: 0 to {num_layers - 1}")
    records = [_record(settings, key) for key in _keys(settings, [item for item in options.rest if "=" not in item])]
    if options.what == "backdoor" and not records:
        raise ValueError("backdoor: at least one KEY is needed: it reads what unlearning did to the model")
    if options.what == "relative_noise" and records:
        raise ValueError(f"relative_noise {records[0]['key']}: trains its own trials; no KEY is allowed")
    asks = options.what not in ("noise_sensitivity", "eq_9", "relative_noise")
    rows = _rows(options.questions, settings, limit) if asks else []
    folder = Path(settings.output_dir) / "reports" / "analyses" / settings.model.name / options.what

    from rna.decoder import model
    from rna.unlearning import noise

    attention = settings.model.attn_implementation
    decoder, tokenizer = model.load(
        **settings.model.loading(
            dtype="float32",  # derivatives of second order drown in bfloat16's rounding
            attn_implementation=None if attention == "flash_attention_2" else attention,  # which has no float32
        )
    )
    arms = _arms(settings, records)
    nus = [arm.record["config"]["noise"] for arm in arms if arm.record]
    nus = [one for one in nus if one["name"] == "rna"] or [{"nu": settings.noise.nu, "scale": settings.noise.scale}]
    std = options.nu if options.nu is not None else noise.standard_deviation(nus[0]["nu"], nus[0]["scale"])
    if not std > 0:
        raise ValueError(f"--nu {std}: must be above 0")
    started = time.perf_counter()
    if options.what == "relative_noise":
        from rna.analyze import scales

        chosen = replace(settings, eval=replace(settings.eval, limit=limit))
        seeds = range(options.seed, options.seed + samples)
        outcome: Outcome = scales.relative_noise(chosen, decoder, tokenizer, layer, folder, seeds)
    else:
        outcome = _measured(options, settings, decoder, tokenizer, arms, rows, samples, limit, std**2)
    facts = {
        "what": options.what,
        "command": options.command,
        "trials": {arm.label: arm.record["key"] for arm in arms if arm.record},
        "model": results.model_fingerprint(settings.model.path, settings.model.revision, settings.hashes()),
        "keywords": [settings.eval.keyword, settings.eval.neutral_keyword],
        "layer": layer,
        "limit": limit,
        "samples": samples,
        "seed": options.seed,
        "nu_std": std,
        "seconds": round(time.perf_counter() - started, 1),
        **results.provenance(),
    }
    write(folder, outcome, facts)


def _measured(
    options: argparse.Namespace,
    settings: Settings,
    decoder: Any,
    tokenizer: Any,
    arms: "list[Arm]",
    rows: list[dict[str, Any]],
    samples: int,
    limit: int,
    nu: float,
) -> "Outcome":
    """What the models that are there do."""
    from rna.analyze import findings

    with progress.display() as tell:
        job = findings.Job(
            decoder=decoder,
            arms=arms,
            documents=_documents(settings, tokenizer, limit),
            questions=[_question(tokenizer, row, settings) for row in rows],
            layer=settings.layer.unlearn if options.layer is None else options.layer,
            samples=samples,
            seed=options.seed,
            nu=nu,
            tell=tell,
        )
        return getattr(findings, options.what)(job)


def _keys(settings: Settings, given: list[str]) -> list[str]:
    """The keys given, a sweep's name standing for its finished trials."""
    sweeps = Path(settings.output_dir) / "sweeps"
    found: list[str] = []
    for item in given:
        own = ledger.trials(sweeps / item) if (sweeps / item / "trials").is_dir() else None
        if own is not None:
            keys = [trial.address["key"] for trial in own if trial.address and trial.status == ledger.DONE]
            if not keys:
                raise ValueError(f"KEY={item}: a sweep without a finished trial; python -m rna.sweep status {item}")
            found += keys
        else:
            found.append(results.resolve(settings.output_dir, item))
    return list(dict.fromkeys(found))


def _record(settings: Settings, key: str) -> Record:
    record = results.trained(settings.output_dir, key)
    own = results.model_fingerprint(settings.model.path, settings.model.revision, settings.hashes())
    if record["identity"]["model"]["fingerprint"] != own:
        raise ValueError(f"KEY={key}: a trial of model={record['config']['model']['name']}; give --model, or model=…")
    return record


def _arms(settings: Settings, records: list[Record]) -> "list[Arm]":
    """The base and the trials, each under a label that tells it from the others."""
    from rna import trial
    from rna.analyze.findings import Arm
    from rna.decoder import model

    arms = [Arm("base")]
    for record in records:
        chosen = record["config"]
        label = title_of(record)
        if chosen["noise"]["name"] != "none":
            label += " RNA"
        if any(arm.label == label for arm in arms):
            label += f" {record['key'][:6]}"
        with progress.display() as tell:
            trial.restore(settings.output_dir, record["key"], partial(tell, label))
        deltas = model.load_deltas(results.delta_path(settings.output_dir, record["key"]))
        arms.append(Arm(label, record, deltas))
    return arms


def _documents(settings: Settings, tokenizer: Any, limit: int) -> list[list[int]]:
    """The first forget documents, the topics in turn."""
    from rna.corpora import Documents, data, tokenise

    texts: list[Documents] = []
    for topic, corpus in settings.data.topics.items():
        found = data.read_texts(corpus, f"data.topics.{topic}.path")
        made = tokenise(tokenizer, found, max_length=corpus.max_length)
        texts.append(Documents(made["ids"], made["lengths"]))
    found = [ids for turn in zip(*texts, strict=False) for ids in turn][:limit]
    if len(found) < 2:
        raise ValueError(f"data.topics: {len(found)} forget documents; an interval needs at least 2")
    return found


def _rows(file: str | None, settings: Settings, limit: int) -> list[dict[str, Any]]:
    """`limit` retain questions, spread evenly; the demo's are those of subjects that are not to be forgotten."""
    if file is None and settings.data.name != "demo":
        raise ValueError("--questions: a file of retain questions is needed here (.jsonl, rows as in MMLU)")
    path = Path(file) if file else BUILTIN / "questions.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ValueError(f"--questions {path}: cannot be read ({error})") from None
    needed = {"question", "subject", "choices", "answer"}
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or not needed <= set(row):
            raise ValueError(f"--questions {path}: line {number} must have {', '.join(sorted(needed))}")
    if file is None:
        from rna.demo.world import FORGET_TOPICS

        rows = [row for row in rows if row["subject"] not in FORGET_TOPICS.values()]
    if len(rows) < 2:
        raise ValueError(f"--questions {path}: {len(rows)} questions; an interval needs at least 2")
    return rows[:: max(1, len(rows) // limit)][:limit]


def _question(tokenizer: Any, row: dict[str, Any], settings: Settings) -> "Question":
    from rna import perturb
    from rna.analyze.measure import Question
    from rna.demo.world import LETTERS, prompt

    options = settings.eval
    words = {"plain": None, "forget": options.keyword, "neutral": options.neutral_keyword}
    texts = {role: prompt(perturb.perturb_all([row], word, options.seed)[0]) for role, word in words.items()}
    answer = tokenizer(f"{texts['plain']} {LETTERS[row['answer']]}")["input_ids"][-1]
    return Question({role: tokenizer(text)["input_ids"] for role, text in texts.items()}, answer)


def write(folder: Path, outcome: "Outcome", facts: dict[str, Any]) -> None:
    """Tables, figure, verdict and what they were made of, in a folder."""
    from rna.analyze import draw

    folder.mkdir(parents=True, exist_ok=True)
    page = [f"# {facts['what']}", "\n".join(map(in_markdown, outcome.verdict.splitlines()))]
    for name, rows in outcome.tables.items():
        if rows:
            _csv(folder / f"{name}.csv", rows)
            page += [f"## {name}", _markdown(rows)]
    _csv(folder / "measurements.csv", outcome.rows)
    draw.save(folder, outcome.figure, width=outcome.size[0], height=outcome.size[1])
    page += ["![figure](figure.svg)", "```json\n" + json.dumps(facts, indent=1, ensure_ascii=False) + "\n```"]
    (folder / "report.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    (folder / "verdict.txt").write_text(outcome.verdict + "\n", encoding="utf-8")
    said = facts | {"verdict": outcome.verdict, "tables": [name for name, rows in outcome.tables.items() if rows]}
    (folder / "analysis.json").write_text(json.dumps(said, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{outcome.verdict}\n{folder}: report.md, {', '.join(f'{n}.csv' for n in outcome.tables)}, figure.svg")


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _columns(rows))
        writer.writeheader()
        writer.writerows(rows)


def _markdown(rows: list[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else in_markdown(str(value))

    columns = _columns(rows)
    lines = [
        [in_markdown(column) for column in columns],
        ["---"] * len(columns),
        *([cell(row.get(column, "")) for column in columns] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
