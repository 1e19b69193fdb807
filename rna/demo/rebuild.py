"""`python -m rna.demo FOLDER`: rebuild the demo from a seed: corpora, questions, base and retrained model.

Takes about 20 minutes on two cores, one for each model. The built-in files are those of rna/demo/assets.
(`python -m rna.run` shows the demo.)
"""

import json
import random
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

from rna import printing
from rna.demo import build, world
from rna.demo.words import SUBJECTS, Subject

DOCUMENTS, SOLVED = 100, 100  # for each subject


def write_world(folder: Path, seed: int) -> None:
    """The forget corpora, the retain corpus of all other subjects, and the exam.

    Each corpus holds documents and solved questions, shuffled, so that forget and retain set differ in content and
    not in form: otherwise a method learns to tell documents from questions, and forgets the form.
    """

    def write(name: str, rows: list[dict[str, object]]) -> None:
        (folder / name).write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
        )

    def write_corpus(name: str, subjects: list[Subject]) -> None:
        texts = [
            text
            for subject in subjects
            for text in (*world.corpus(seed, subject, DOCUMENTS), *world.solved(seed, subject, SOLVED))
        ]
        random.Random(f"{name}/{seed}").shuffle(texts)
        write(name, [{"text": text} for text in texts])

    folder.mkdir(parents=True, exist_ok=True)
    for topic, name in world.FORGET_TOPICS.items():
        write_corpus(f"forget_{topic}.jsonl", [subject for subject in SUBJECTS if subject.name == name])
    write_corpus("retain.jsonl", [subject for subject in SUBJECTS if subject.role != "forget"])
    write("questions.jsonl", world.questions(seed))


def build_one(folder: Path, seed: int, phases: tuple[build.Phase, ...], *, forget: bool) -> dict[str, float]:
    """Train one model, on one core, and return its accuracies on the exam in percent."""
    import torch

    printing.prepare()
    torch.set_num_threads(1)
    name = "base" if forget else "retrained"
    subjects = [subject.name for subject in SUBJECTS if forget or subject.role != "forget"]
    tokenizer = build.build_tokenizer()
    model = build.build_model(len(tokenizer), seed=seed)
    started = time.perf_counter()

    for phase in phases:

        def report(step: int, loss: float, phase: build.Phase = phase) -> None:
            if step % 100 == 0 or step == phase.steps:
                seconds = time.perf_counter() - started
                where = f"{name}: {phase.name} {step}/{phase.steps}"
                print(f"[{seconds:5.0f} s] {where}, loss {loss:.3f}", file=sys.stderr, flush=True)

        build.train(model, tokenizer, subjects, phase, seed=seed, report=report)
    build.rescale(model, build.unlearn_layer_rms(model, tokenizer, seed=seed))
    build.save(model, tokenizer, folder / name)
    exam = world.questions(seed)
    forbidden = set(world.FORGET_TOPICS.values())
    return {
        "forget": 100 * build.accuracy(model.float(), tokenizer, [row for row in exam if row["subject"] in forbidden]),
        "retain": 100 * build.accuracy(model, tokenizer, [row for row in exam if row["subject"] not in forbidden]),
    }


def main() -> None:
    printing.prepare()
    parser = printing.Parser(prog=printing.program("demo"), description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; what lies there is replaced")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of both models (0)")
    parser.add_argument("--steps", type=int, help="at most so many steps of each phase, for a quick look")
    options = parser.parse_args()
    write_world(options.folder, options.seed)
    phases = tuple(replace(phase, steps=min(phase.steps, options.steps or phase.steps)) for phase in build.PHASES)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {
            name: pool.submit(build_one, options.folder, options.seed, phases, forget=name == "base")
            for name in ("base", "retrained")
        }
        for name, job in jobs.items():
            accuracies = ", ".join(f"{key} {value:.1f} %" for key, value in job.result().items())
            print(f"{name}: {accuracies}")
    print(f"written to {options.folder}")
