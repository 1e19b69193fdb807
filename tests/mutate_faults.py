"""Plant one fault after another in a copy of the package, and see a default test turn red.

`python tests/mutate_faults.py [PART OF A NAME …]`: by hand, some seconds a fault where the tests of its own room find
it, up to three minutes where all have to look. A fault that no default test finds is one that they no longer guard
against.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests import mutated

SWEEPER = "launchers/hydra_plugins/rna_optuna_sweeper"
FAULTS: dict[str, tuple[str, str, str]] = {  # by what is wrong: the file, what stands there, what stands there then
    "a shifted mask": (
        "rna/corpora/batch.py",
        "followed_BT = self.counted_BT.roll(-1, 1)",
        "followed_BT = self.counted_BT.roll(1, 1)",
    ),
    "a sum for a mean": ("rna/unlearning/losses.py", "logsigmoid(argument_B).mean()", "logsigmoid(argument_B).sum()"),
    "the refusal rejected": ("rna/unlearning/losses.py", "(preferred_B - rejected_B)", "(rejected_B - preferred_B)"),
    "a weight on the wrong loss": (
        "rna/unlearning/train.py",
        '(1.0 if name == "forget" else self.alpha)',
        '(self.alpha if name == "forget" else 1.0)',
    ),
    "the same noise at each step": ("rna/unlearning/noise.py", "        self.drawn += 1\n", ""),
    "an order that does not resume": (
        "rna/corpora/feed.py",
        '        self.generator.set_state(state["generator"])\n',
        "",
    ),
    "a value lost from a key": ("rna/store/results.py", '        "alpha": settings.alpha,\n', ""),
    "a skipped fsync of a record": ("rna/store/results.py", "        os.fsync(stream.fileno())\n", ""),
    "a skipped fsync of a checkpoint": ("rna/unlearning/checkpoint.py", "os.fsync(stream.fileno())", "pass"),
    "swapped arms": (
        "rna/trial.py",
        '"plain" if settings.noise.name == "none" else "with RNA"',
        '"with RNA" if settings.noise.name == "none" else "plain"',
    ),
    "the right answer replaced": (
        "rna/perturb/__init__.py",
        'for index in range(len(row["choices"])) if index != row["answer"]]',
        'for index in range(len(row["choices"]))]',
    ),
    "questions taken as independent": (
        "rna/intervals/estimate.py",
        "groups.setdefault((score.asked, score.n) if known else place, []).append((weight, score))",
        "groups.setdefault(place, []).append((weight, score))",
    ),
    "a preemption that costs an attempt": (
        f"{SWEEPER}/_endings.py",
        "            trial.attempts -= 1\n            self._try_again",
        "            self._try_again",
    ),
}


def runs(file: str) -> list[list[str]]:
    """The tests of a file's own room, where it has any, and then all."""
    room = mutated.ROOT / "tests" / ("launchers" if file.startswith("launchers") else Path(file).parent.name)
    every = ["--ignore=tests/test_mutations.py"]  # which looks for what is replaced
    return [*([[str(room.relative_to(mutated.ROOT))]] if room.is_dir() else []), every]


def main() -> None:
    wanted = sys.argv[1:]
    green = 0
    with mutated.checkout() as copy:
        for name, (file, there, put) in FAULTS.items():
            if wanted and not any(word in name for word in wanted):
                continue
            source = (copy / file).read_text(encoding="utf-8")
            assert source.count(there) == 1, f"{file}: {there!r} stands there {source.count(there)} times"
            red = mutated.first_red(copy, copy / file, source.replace(there, put), *runs(file))
            green += red is None
            print(f"{'GREEN' if red is None else 'red  '} {name}  {(red or '')[:110]}", flush=True)
    print(f"{green} faults are not found")
    sys.exit(green > 0)


if __name__ == "__main__":
    main()
