"""`python -m rna.demo FOLDER`: rebuild the demo from a seed: corpora, questions, base and retrained model.

Takes about 20 minutes on two cores, one for each model; longer where a model must be polished again until it knows what
it was taught. The built-in files are those of rna/demo/assets.
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


def build_one(
    folder: Path, seed: int, phases: tuple[build.Phase, ...], *, forget: bool, rounds: int
) -> dict[str, float]:
    """Train one model, on one core, and return its accuracy in each exam.

    Args:
        rounds: how often the last phase is gone through again, at most, until the model knows what it was taught.
    """
    import torch

    printing.prepare()
    torch.set_num_threads(1)
    name = "base" if forget else "retrained"
    subjects = [subject.name for subject in SUBJECTS if forget or subject.role != "forget"]
    tokenizer = build.build_tokenizer()
    model = build.build_model(len(tokenizer), seed=seed)
    started = time.perf_counter()

    def train(phase: build.Phase) -> None:
        def report(step: int, loss: float) -> None:
            if step % 100 == 0 or step == phase.steps:
                seconds = time.perf_counter() - started
                where = f"{name}: {phase.name} {step}/{phase.steps}"
                print(f"[{seconds:5.0f} s] {where}, loss {loss:.3f}", file=sys.stderr, flush=True)

        build.train(model, tokenizer, subjects, phase, seed=seed, report=report)

    for phase in phases:
        train(phase)
    found = build.examine(model, tokenizer, seed)
    for done in range(rounds):
        if build.knows(name, found):
            break
        train(replace(phases[-1], name=f"{phases[-1].name} {done + 2}"))
        found = build.examine(model, tokenizer, seed)
    build.rescale(model, build.unlearn_layer_rms(model, tokenizer, seed=seed))
    build.save(model, tokenizer, folder / name)
    return found


def main() -> None:
    printing.prepare()
    parser = printing.Parser(prog=printing.program("demo"), description=__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="where to write; what lies there is replaced")
    parser.add_argument("--seed", type=int, default=0, help="of the world and of both models (0)")
    parser.add_argument("--steps", type=int, help="at most so many steps of each phase, for a quick look")
    options = parser.parse_args()
    write_world(options.folder, options.seed)
    phases = tuple(replace(phase, steps=min(phase.steps, options.steps or phase.steps)) for phase in build.PHASES)
    rounds = 0 if options.steps else build.ROUNDS
    ignorant: list[str] = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = {
            name: pool.submit(build_one, options.folder, options.seed, phases, forget=name == "base", rounds=rounds)
            for name in ("base", "retrained")
        }
        for name, job in jobs.items():
            found = job.result()
            print(f"{name}: {', '.join(f'{exam} {100 * accuracy:.1f} %' for exam, accuracy in found.items())}")
            if rounds and not build.knows(name, found):
                ignorant.append(f"{name} knows less than {100 * build.KNOWS[name]:.0f} % of what it was taught")
    print(f"written to {options.folder}")
    if ignorant:
        raise SystemExit(f"{'; '.join(ignorant)}: try another --seed")
