"""What a step costs with each defence, against a plain step of the same method.

    python tests/bench/defences.py [--model FOLDER_OR_GGUF] [--methods rmu,npo+kl] [--steps 40] [--rounds 3]

In each round every way trains so many steps from the same model, one after the other; a cost is the median over rounds
of the ratio to the round's plain one, with the least and the most. Texts are the demo's.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rna import run
from rna.corpora import Cache, data
from rna.settings import config
from rna.trial import load_model
from rna.unlearning import train

WAYS = ("plain", "adversarial", "soft", "splice", "harmful", "placebo", "scope", "sam", "rare")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=None, help="a folder or a GGUF file; default: the demo's")
    parser.add_argument("--methods", default="rmu,npo+kl")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config.register_resolvers()
    model = ["model=local", f"model.path={options.model}", "model.unlearn_layer=7"] if options.model else []
    for method in options.methods.split(","):
        name, _, retain = method.partition("+")
        words = [*model, f"method={name}", *([f"retain={retain}"] if retain else []), f"train.steps={options.steps}"]
        ratios: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            seconds = {way: _seconds([*words, f"protection={way}"]) for way in WAYS}
            for way in WAYS:
                ratios[way].append(seconds[way] / seconds["plain"])
        for way, found in list(ratios.items())[1:]:
            print(f"{method:12} {way:12} {statistics.median(found):.2f}  ({min(found):.2f} to {max(found):.2f})")


def _seconds(words: list[str]) -> float:
    """Of a training, what it takes beyond its first steps, which make what all steps share."""
    with tempfile.TemporaryDirectory() as folder:
        settings = config.check(run.compose([*words, f"output_dir={folder}", "cache.enabled=false"], None))
        decoder, tokenizer = load_model(settings)
        corpora = data.load(settings, tokenizer, Cache(None, 0))
        feeds = train.feeds(settings, corpora, tokenizer.pad_token_id)
        ends: list[float] = []
        train.train(settings, decoder, feeds, lambda *_: ends.append(time.perf_counter()), tokenizer=tokenizer)
    return ends[-1] - ends[1]


if __name__ == "__main__":
    main()
