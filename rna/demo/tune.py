"""`python -m rna.demo.tune METHOD RETAIN_LOSS`: the rule behind the learning rates, α and steps of `conf/tuned/demo`.

It favours no method and no defence, as it looks at plain trainings alone, and at what they forget and keep: of the
budgets of steps the least, and of `RATES` the lowest, with which a method forgets at the least α of `ALPHAS`; with
these the largest α at which it still does; and if it then keeps nothing worth having, the next rate, and the next
budget. The steps are then what the slowest seed took. To forget is to come to a forget accuracy of 35 % or below, and
to keep is a retain accuracy of 90 % there, on the half of the questions that is for choosing, with each of three seeds
that are used for nothing else. What a forget-token does to the result, and what protects from it, is found out after
that. The method's own number (its coefficient or β) is not searched. Trainings are kept in `outputs/demo-tune`, and not
made twice.
"""

import itertools
import math
import os
from collections.abc import Sequence

from rna import printing
from rna.settings import Settings

RATES = (1e-5, 3e-5, 1e-4)
ALPHAS = tuple(0.25 * 2.0**power for power in range(16))
SEEDS = (100, 101, 102)
BUDGETS = (150, 300)  # steps: three trainings fit into the demo's minute, if a protected one takes more
TARGET, KEPT = 0.35, 0.90


def training(
    losses: tuple[str, str], steps: int, rate: float, alpha: float, seed: int, more: Sequence[str]
) -> Settings:
    """The plain training of a cell, to the target or to the end of the budget."""
    from rna.settings import compose, config

    words = [
        f"method={losses[0]}",
        f"retain={losses[1]}",
        f"train.lr={rate:g}",
        f"retain.alpha.default={alpha:g}",
        f"seed={seed}",
        f"train.steps={steps}",
        f"train.until={{eval/forget/acc: {TARGET}}}",
        "noise=none",
        "eval.interim_every=10",
        "eval.interim_roles=[forget]",
        "output_dir=outputs/demo-tune",
        "wandb=disabled",
        *more,
    ]
    return config.check(compose(words, None))


def found(settings: Settings, *, judged: bool) -> tuple[int | None, float]:
    """After how many steps this training has forgotten, None if the budget is too small; and retain accuracy there, if
    it is to be judged."""
    from rna import trial

    row = next(row for row in trial.arms(settings) if row.label == "plain")
    row.tasks = {"retain": row.tasks["retain"]} if judged else {}
    trial.work(row, lambda *_: None)
    assert row.trained is not None
    outcome = row.trained["until"]
    kept = row.evaluated["retain"]["metrics"]["select"]["acc"] if judged else math.nan
    return (outcome["step"] if outcome["reached"] else None), kept


def main() -> None:
    printing.prepare()
    os.environ.setdefault("TQDM_DISABLE", "1")
    parser = printing.Parser(prog="python -m rna.demo.tune", description=__doc__)
    parser.add_argument("method")
    parser.add_argument("retain_loss", choices=("representation", "mse", "kl"))
    parser.add_argument("overrides", nargs="*", help="further values, as on rna.run's command line")
    options = parser.parse_args()

    from rna.settings import config

    config.register_resolvers()

    losses = (options.method, options.retain_loss)

    def forgets(steps: int, rate: float, alpha: float) -> bool:
        return all(seen(steps, rate, alpha, seed, judged=False)[0] is not None for seed in SEEDS)

    def seen(steps: int, rate: float, alpha: float, seed: int, *, judged: bool) -> tuple[int | None, float]:
        taken, kept = found(training(losses, steps, rate, alpha, seed, options.overrides), judged=judged)
        said = f", retain {100 * kept:.1f} %" if judged else ""
        print(f"lr {rate:g}, α {alpha:g}, seed {seed}: {taken or 'not'} in {steps} steps{said}", flush=True)
        return taken, kept

    for steps, rate in itertools.product(BUDGETS, RATES):
        if not forgets(steps, rate, ALPHAS[0]):
            continue
        least, most = 0, len(ALPHAS)  # forgets with the one, not with the other
        while most - least > 1:
            middle = (least + most) // 2
            least, most = (middle, most) if forgets(steps, rate, ALPHAS[middle]) else (least, middle)
        judged = [seen(steps, rate, ALPHAS[least], seed, judged=True) for seed in SEEDS]
        if all(kept >= KEPT for _, kept in judged):
            slowest = max(taken or steps for taken, _ in judged)
            print(f"{options.method} {options.retain_loss}: {slowest} steps, lr {rate:g}, α {ALPHAS[least]:g}")
            return
    print(f"no learning rate of {RATES} forgets and keeps within {BUDGETS[-1]} steps")


if __name__ == "__main__":
    main()
