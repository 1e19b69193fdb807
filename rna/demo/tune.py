"""`python -m rna.demo.tune METHOD RETAIN_LOSS`: the search behind `conf/tuned/demo`.

Stage 1 looks at the plain method alone, on a grid of learning rate, α and the method's own number, with the steps of
`conf/tuned/demo` (or `train.steps=…`, which was raised by 50 until a cell of the grid would do). Settings
count if forget accuracy falls to 40 % or below and retain accuracy stays within 4 points of the base, for both of
two seeds; among these it lists the ones in which a forget-token does the most harm first, because that harm is what
the demo is to show. Stage 2 adds noise to the first of them, on a grid of ν, with the same two conditions.
Seeds 100 and up are for tuning; the demo's own default seed 0 is never looked at.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

from rna import printing
from rna.corpora import Cache
from rna.settings import BUILTIN, Settings

RATES = [3e-5, 1e-4]
GRIDS: dict[str, dict[str, list[Any]]] = {
    "rmu": {"method.coefficient": [6.5, 20], "train.lr": RATES, "retain.alpha.default": [30, 100]},
    "adaptive_rmu": {"method.beta": [8, 20], "train.lr": RATES, "retain.alpha.default": [30, 100]},
    "rsv": {"method.coefficient": [20, 60], "train.lr": RATES, "retain.alpha.default": [30, 100]},
    "npo": {"train.lr": [3e-5], "retain.alpha.default": [0.3, 0.5, 1]},
    "simnpo": {"train.lr": [3e-5], "retain.alpha.default": [0.3, 0.5, 1]},
    "dpo": {"train.lr": [3e-5], "retain.alpha.default": [0.3, 0.5, 1]},
}
NOISE = (0.01, 0.02, 0.04, 0.08)
SEEDS = (100, 101)


def candidates(grid: dict[str, list[Any]]) -> Iterator[list[str]]:
    """Every cell of the grid as overrides."""
    for values in itertools.product(*grid.values()):
        yield [f"{key}={value}" for key, value in zip(grid, values, strict=True)]


def outcome(overrides: list[str], seed: int, loaded: Any) -> dict[str, float]:
    """Accuracies in percent after one trial with these overrides."""
    from rna import perturb
    from rna.corpora import data
    from rna.decoder import model
    from rna.demo import build, world
    from rna.settings import compose, config
    from rna.unlearning import train

    settings: Settings = config.check(compose([*overrides, f"seed={seed}"], None))
    decoder, tokenizer = loaded
    feeds = train.feeds(settings, data.load(settings, tokenizer, Cache(None, 0)), tokenizer.pad_token_id)
    started = time.perf_counter()
    deltas = train.train(settings, decoder, feeds, lambda _step, _report: None)
    seconds = time.perf_counter() - started
    rows = [json.loads(line) for line in (BUILTIN / "questions.jsonl").read_text(encoding="utf-8").splitlines()]
    forbidden = set(world.FORGET_TOPICS.values())
    retain = [row for row in rows if row["subject"] not in forbidden][::2]
    exams = {
        "forget": [row for row in rows if row["subject"] in forbidden],
        "retain": retain,
        "perturbed": perturb.perturb_all(retain, settings.eval.keyword, 0),
        "neutral": perturb.perturb_all(retain, settings.eval.neutral_keyword, 0),
    }
    with model.installed(decoder, deltas):
        found = {name: 100 * build.accuracy(decoder.model, tokenizer, exam) for name, exam in exams.items()}  # pyright: ignore
    return {**found, "seconds": seconds}


def main() -> None:
    printing.prepare()
    parser = argparse.ArgumentParser(prog="python -m rna.demo.tune", description=__doc__)
    parser.add_argument("method", choices=GRIDS)
    parser.add_argument("retain_loss", choices=("representation", "mse", "kl"))
    parser.add_argument("overrides", nargs="*", help="values to fix, as on rna.run's command line")
    options = parser.parse_args()

    import torch

    from rna.decoder import model
    from rna.settings import config

    torch.set_num_threads(1)
    config.register_resolvers()
    loaded = model.load(str(BUILTIN / "base"), dtype="float32", device="cpu", revision=None)
    common = [f"method={options.method}", f"retain={options.retain_loss}", *options.overrides]

    def look(overrides: list[str]) -> tuple[bool, dict[str, float]]:
        tried = [outcome([*common, *overrides], seed, loaded) for seed in SEEDS]
        meets = all(one["forget"] <= 40 and one["retain"] >= 95 for one in tried)
        means = {name: round(sum(one[name] for one in tried) / len(tried), 1) for name in tried[0]}
        print("ok " if meets else "-- ", *overrides, means, flush=True)
        return meets, means

    fixed = {item.partition("=")[0] for item in options.overrides}
    grid = {key: values for key, values in GRIDS[options.method].items() if key not in fixed}
    plain = [(overrides, *look(["noise=none", *overrides])) for overrides in candidates(grid)]
    chosen = sorted((means["perturbed"], overrides) for overrides, meets, means in plain if meets)
    if not chosen:
        print("no cell of the grid forgets and retains")
        return
    print("plain, most harm first:", *(f"{value:.1f} {' '.join(cell)}" for value, cell in chosen[:5]), sep="\n  ")
    for nu in NOISE:
        look([*chosen[0][1], f"noise.nu={nu}"])


if __name__ == "__main__":
    main()
