"""`python -m rna.demo.tune METHOD RETAIN_LOSS`: the rule behind the learning rates and α of `conf/tuned/demo`.

It favours no method and no defence, as it looks at nothing but forgetting, and at plain trainings alone: the lowest
learning rate of `RATES` with which a method, at the least α of `ALPHAS`, forgets within the step budget; and with that
rate the largest α with which it still does. To forget is to come to a forget accuracy of 35 % or below on the half of
the questions that is for choosing, with each of three seeds that are used for nothing else. What a forget-token does to
the result, and what protects from it, is found out after that. The method's own number (its coefficient or β) is not
searched. Trainings are kept in `outputs/demo-tune`, and not made twice.
"""

import argparse
import os
from collections.abc import Sequence

from rna import printing
from rna.settings import Settings

RATES = (1e-5, 3e-5, 1e-4)
ALPHAS = tuple(0.25 * 2.0**power for power in range(16))
SEEDS = (100, 101, 102)
STEPS = 150  # the budget: three trainings fit into the demo's minute, if a protected one takes twice as many
TARGET = 0.35


def training(method: str, retain_loss: str, rate: float, alpha: float, seed: int, overrides: Sequence[str]) -> Settings:
    """The plain training of a cell, to the target or to the end of the budget."""
    from rna.settings import compose, config

    words = [
        f"method={method}",
        f"retain={retain_loss}",
        f"train.lr={rate:g}",
        f"retain.alpha.default={alpha:g}",
        f"seed={seed}",
        f"train.steps={STEPS}",
        f"train.until={{eval/forget/acc: {TARGET}}}",
        "noise=none",
        "eval.interim_every=10",
        "eval.interim_roles=[forget]",
        "output_dir=outputs/demo-tune",
        "wandb=disabled",
        *overrides,
    ]
    return config.check(compose(words, None))


def steps_to_forget(settings: Settings) -> int | None:
    """After how many steps this training has forgotten; None if the budget is too small."""
    from rna import trial

    row = next(row for row in trial.arms(settings) if row.label == "plain")
    row.tasks = {}  # the training alone
    trial.work(row, lambda *_: None)
    assert row.trained is not None
    outcome = row.trained["until"]
    return outcome["step"] if outcome["reached"] else None


def main() -> None:
    printing.prepare()
    os.environ.setdefault("TQDM_DISABLE", "1")
    parser = argparse.ArgumentParser(prog="python -m rna.demo.tune", description=__doc__)
    parser.add_argument("method")
    parser.add_argument("retain_loss", choices=("representation", "mse", "kl"))
    parser.add_argument("overrides", nargs="*", help="further values, as on rna.run's command line")
    options = parser.parse_args()

    from rna.settings import config

    config.register_resolvers()

    def forgets(rate: float, alpha: float) -> bool:
        taken: list[int | None] = []
        for seed in SEEDS:
            cell = training(options.method, options.retain_loss, rate, alpha, seed, options.overrides)
            taken.append(steps_to_forget(cell))
            if taken[-1] is None:
                break
        print(f"lr {rate:g}, α {alpha:g}: steps", *("-" if one is None else one for one in taken), flush=True)
        return None not in taken

    rate = next((rate for rate in RATES if forgets(rate, ALPHAS[0])), None)
    if rate is None:
        print(f"forgets with none of these learning rates within {STEPS} steps")
        return
    least, most = 0, len(ALPHAS)  # forgets with the one, not with the other
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if forgets(rate, ALPHAS[middle]) else (least, middle)
    print(f"{options.method} {options.retain_loss}: lr {rate:g}, α {ALPHAS[least]:g}")


if __name__ == "__main__":
    main()
