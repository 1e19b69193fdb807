"""`python -m rna.demo [FOLDER]`: rebuild the demo from a seed: corpora, questions, base and retrained model.

Without FOLDER the built-in files are replaced. Takes about 15 minutes on two cores, one for each model.
"""

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from rna.config import BUILTIN
from rna.demo import build, world
from rna.demo.words import SUBJECTS

DOCUMENTS = 100  # for each subject


def write_world(folder: Path, seed: int) -> None:
    """The forget corpora, the retain corpus of all other subjects, shuffled, and the questions."""
    import random

    def write(name: str, rows: list[dict[str, object]]) -> None:
        (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    folder.mkdir(parents=True, exist_ok=True)
    texts = {subject.name: list(world.corpus(seed, subject, DOCUMENTS)) for subject in SUBJECTS}
    for topic, name in world.FORGET_TOPICS.items():
        write(f"forget_{topic}.jsonl", [{"text": text} for text in texts[name]])
    retain = [{"text": text} for subject in SUBJECTS if subject.role != "forget" for text in texts[subject.name]]
    random.Random(f"retain/{seed}").shuffle(retain)
    write("retain.jsonl", retain)  # pyright: ignore
    write("questions.jsonl", world.questions(seed))


def build_one(folder: Path, seed: int, steps: int, *, forget: bool) -> dict[str, float]:
    """Train one model, on one core, and return its accuracies on the exam in percent."""
    import torch

    torch.set_num_threads(1)
    name = "base" if forget else "retrained"
    subjects = [subject.name for subject in SUBJECTS if forget or subject.role != "forget"]
    tokenizer = build.build_tokenizer()
    model = build.build_model(len(tokenizer), seed=seed)
    started = time.perf_counter()

    def report(step: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            seconds = time.perf_counter() - started
            print(f"[{seconds:5.0f} s] {name}: step {step}/{steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    build.train(model, tokenizer, subjects, seed=seed, steps=steps, report=report)
    build.rescale(model, build.unlearn_layer_rms(model, tokenizer, seed=seed))
    build.save(model, tokenizer, folder / name)
    exam = world.questions(seed)
    forbidden = set(world.FORGET_TOPICS.values())
    return {
        "forget": 100 * build.accuracy(model.float(), tokenizer, [row for row in exam if row["subject"] in forbidden]),
        "retain": 100 * build.accuracy(model, tokenizer, [row for row in exam if row["subject"] not in forbidden]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m rna.demo", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=BUILTIN)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=build.STEPS)
    options = parser.parse_args()
    write_world(options.folder, options.seed)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {
            name: pool.submit(build_one, options.folder, options.seed, options.steps, forget=name == "base")
            for name in ("base", "retrained")
        }
        for name, job in jobs.items():
            accuracies = ", ".join(f"{key} {value:.1f} %" for key, value in job.result().items())
            print(f"{name}: {accuracies}")
    print(f"written to {options.folder}")


if __name__ == "__main__":
    main()
