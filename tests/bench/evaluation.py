"""Evaluating plain and perturbed questions: this project's scorer against lm-eval's own model at its best batch size.

    python tests/bench/evaluation.py --mmlu FOLDER [--model FOLDER-or-FILE] [--limit N]

The same questions, prompts and model; each way in a process of its own. Prints a table and writes JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
TASKS = ("mmlu", "mmlu_perturbed", "mmlu_neutral")


def measure(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of an evaluation, model loaded, and the accuracies."""
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from rna import run
    from rna.decoder import model
    from rna.evaluation import score
    from rna.settings import config
    from rna.settings.fields import TASKS as FOLDER

    config.register_resolvers()
    chosen = [f"model.path={options.model}"] if options.model else []
    settings = config.check(run.compose(["model=smollm2_135m_gguf", *chosen, "method=none"], None))
    chosen = settings.model
    decoder, tokenizer = model.load(chosen.path, dtype="float32", device=chosen.device, revision=None)
    metadata = {"mmlu_path": options.mmlu, "limit": options.limit}
    manager = TaskManager(include_path=str(FOLDER), include_defaults=False, metadata=metadata)
    loaded = manager.load([f"rna_{task}" for task in TASKS])
    if way == "ours":
        harness = score.harness(decoder, tokenizer, None, lambda *_: None)
    else:
        harness = HFLM(pretrained=decoder.model, tokenizer=tokenizer, batch_size=int(way))  # pyright: ignore
    started = time.perf_counter()
    found: Any = evaluate(harness, loaded, bootstrap_iters=0, log_samples=True)
    seconds = time.perf_counter() - started
    correct = {task: [sample["acc"] for sample in found["samples"][f"rna_{task}"]] for task in TASKS}
    return {
        "way": way,
        "seconds": seconds,
        "acc": {task: sum(v) / len(v) for task, v in correct.items()},
        "correct": correct,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmlu", required=True)
    parser.add_argument("--model")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-sizes", default="1,8,32")
    parser.add_argument("--out", default="outputs/bench/evaluation.json")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    rows: list[dict[str, Any]] = []
    for way in [*options.batch_sizes.split(","), "ours"]:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", way]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            raise SystemExit(done.stderr)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        name = "ours" if way == "ours" else f"lm-eval, batch {way}"
        print(f"{name:<20}{rows[-1]['seconds']:>8.1f} s  {rows[-1]['acc']}", flush=True)
    best = min(rows[:-1], key=lambda row: row["seconds"])
    pairs = [(a, b) for task in TASKS for a, b in zip(best["correct"][task], rows[-1]["correct"][task], strict=True)]
    different = sum(a != b for a, b in pairs)
    print(f"ours / best: {rows[-1]['seconds'] / best['seconds']:.2f}; {different} of {len(pairs)} verdicts differ")
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"limit": options.limit, "rows": rows, "different": different}))


if __name__ == "__main__":
    main()
