"""What a question costs beyond the model's forward: CPU time of `multiple_choice` on a model of one layer.

    python tests/bench/overhead.py --mmlu FOLDER [--limit N] [--profile]

MMLU plain, perturbed and neutral in one evaluation, with SmolLM2's tokenizer, on one thread; twice in one process, as
two arms of a trial are judged. The forward is all between a batch's tensors and its log-probabilities.
"""

import argparse
import cProfile
import pstats
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmlu", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()

    import torch

    from rna import run
    from rna.decoder import model
    from rna.evaluation import evaluate, score
    from rna.settings import config

    torch.set_num_threads(1)
    config.register_resolvers()
    words = ["model=smollm2_135m_gguf", "method=none", "eval=mmlu", f"eval.mmlu_path={options.mmlu}"]
    words += [] if options.limit is None else [f"eval.limit={options.limit}"]
    settings = config.check(run.compose(words, None))
    decoder, tokenizer = model.load(settings.model.path, dtype="float32", device="cpu", revision=None)
    base: Any = decoder.base
    base.layers, base.config.num_hidden_layers = base.layers[:1], 1
    names = [name for name, task in settings.eval.tasks.items() if task.role in ("retain", "perturbed", "neutral")]
    forward = 0.0

    def timed(work: Any, sign: int) -> Any:
        def made(*arguments: Any) -> Any:
            nonlocal forward
            started = time.process_time()
            found = work(*arguments)
            forward += sign * (time.process_time() - started)
            return found

        return made

    score.last_log_probs, score.lay_out = timed(score.last_log_probs, 1), timed(score.lay_out, -1)
    for which in ("first", "second"):
        forward, started = 0.0, time.process_time()
        profile = cProfile.Profile() if options.profile else None
        with profile or nullcontext():
            found = evaluate.multiple_choice(decoder, tokenizer, names, settings.eval, lambda *_: None)
        seconds = time.process_time() - started
        count = sum(metrics["n"] for metrics in found.values())
        accuracies = ", ".join(f"{name} {metrics['acc']:.4f}" for name, metrics in found.items())
        print(
            f"{which}: {count} questions, {seconds:.1f} s of CPU, {forward:.1f} s of it forward; "
            f"{1000 * (seconds - forward) / count:.2f} ms a question beyond it; {accuracies}",
            flush=True,
        )
        if profile is not None:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(50)


if __name__ == "__main__":
    main()
