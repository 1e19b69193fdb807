"""A leaderboard on made-up records: plain twins, intervals, who wins, and who is in no comparison."""

import itertools
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from rna.run import compose
from rna.settings import config
from rna.store import lookup, results
from rna.sweep import ledger, shown
from rna.sweep.leaderboard import leaderboard
from rna.sweep.ledger import Trial
from rna.sweep.records import Reader
from rna.sweep.status import status, status_lines

ROLES = {"asked": "perturbed", "kept": "forget"}
SELECT = "eval/perturbed/select/acc"


def judged(bits: str) -> dict[str, Any]:
    """A task's metrics, the first half of the questions being `select`."""

    def part(some: str, name: str) -> dict[str, Any]:
        share = some.count("1") / len(some)
        stderr = math.sqrt(share * (1 - share) / (len(some) - 1))
        return {"acc": share, "acc_stderr": stderr, "n": len(some), "correct": f"{int(some, 2):x}", "asked": name}

    half = len(bits) // 2
    return part(bits, "all") | {"select": part(bits[:half], "select"), "report": part(bits[half:], "report")}


class Sweep:
    """A sweep by hand, by `eval/perturbed/acc`, of settings that are called by their noise."""

    def __init__(self, output_dir: Path, **spec: Any):
        self.output_dir, self.folder, self.count = output_dir, output_dir / "sweeps" / "made", 0
        (output_dir / "results").mkdir(parents=True)
        self.spec = {"objectives": {"eval/perturbed/acc": "maximize"}, **spec}

    def record(self, key: str, asked: str, kept: str, reached: bool | None = None) -> dict[str, str]:
        whole: dict[str, Any] = {"kind": "train", "curve": [{"train/loss": asked.count("0") / len(asked)}]}
        whole |= {} if reached is None else {"until": {"reached": reached, "step": 40}}
        results.path_of(str(self.output_dir), key).write_text(json.dumps(whole))
        for task, bits in (("asked", asked), ("kept", kept)):
            path = results.path_of(str(self.output_dir), f"{key}-{task}")
            path.write_text(json.dumps({"metrics": judged(bits)}))
        return {task: f"{key}-{task}" for task in ROLES}

    def add(
        self,
        nu: str,
        seed: int,
        asked: str,
        *,
        kept: str = "1010",
        plain: str = "",
        until: tuple[bool, bool] | None = None,
        plain_kept: str = "",
        **more: Any,
    ) -> Trial:
        """A trial that is done.

        Args:
            plain: what its plain twin got right.
            until: whether it, and its plain twin, got to the target of a `train.until`.
            plain_kept: what the twin did not forget, where it is not the same.
        """
        mine, its = until or (None, None)
        key, twin = f"rna{self.count}", f"plain{seed}"
        made = Trial(self.count, [*nu.split(), f"seed={seed}"], status=ledger.DONE)
        made.address = {"output_dir": str(self.output_dir), "key": key, "evals": self.record(key, asked, kept, mine)}
        made.address |= {"kind": "choice", "roles": ROLES, "seed": seed, "group": nu}
        made.address["uses"] = [key, twin] if plain else [key]
        if plain:
            self.record(twin, plain, plain_kept or kept, its)
        made.metrics = lookup.metrics(made.address) or {}
        return self.save(made, **more)

    def save(self, made: Trial, **more: Any) -> Trial:
        for name, value in more.items():
            setattr(made, name, value)
        self.count = max(self.count, made.number + 1)
        ledger.save(self.folder, made)
        ledger.write_json(self.folder / "sweep.json", {"n_trials": self.count, **self.spec})
        return made

    def found(self) -> dict[str, Any]:
        return leaderboard(self.folder)


def of(found: dict[str, Any], title: str) -> dict[str, Any]:
    return next(row for row in found["rows"] if row["title"] == title)


def right(*counts: int, n: int = 100) -> str:
    """The first `counts` of each n questions are right."""
    return "".join("1" * count + "0" * (n - count) for count in counts)


def said(found: dict[str, Any]) -> str:
    return "\n".join(shown.words(found))


def test_one_seed_is_judged_by_paired_questions(tmp_path: Path):
    """8 of 100 lost and none gained leave out zero, as two independent 60 % and 52 % would not; 28 lost and 20 gained
    do not, with the same two accuracies."""
    nested, scattered = Sweep(tmp_path / "nested"), Sweep(tmp_path / "scattered")
    for sweep, other in ((nested, right(52, 50)), (scattered, ("0" * 28 + "1" * 52 + "0" * 20) + right(50))):
        sweep.add("nu=1", 0, right(60, 55))
        sweep.add("nu=2", 0, other)
    found = nested.found()
    change = of(found, "nu=2")["less_leader"]
    assert (change["n"], change["over"], change["paired"]) == (1, "questions", True)
    assert change["value"] == pytest.approx(-0.08)
    # exact limits of 8 and of 0 in 100: 3.517 % and 3.622 %, joined: −8 + √(4.483² + 3.622²)
    assert change["high"] == pytest.approx(-0.02237, abs=1e-5)
    winner = found["winner"]
    assert (winner["title"], winner["second"], found["chosen_on"]) == ("nu=1", "nu=2", SELECT)
    assert (winner["shown"]["value"], winner["less_second"]["value"]) == (0.55, pytest.approx(0.05))
    assert "Winner, 1 seed each: nu=1, 60.0 % [" in said(found)
    assert "over questions of one seed" in shown.head(found)
    found = scattered.found()
    assert (found["winner"], found["leader"], found["tied"]) == (None, "nu=1", ["nu=2"])
    assert of(found, "nu=2")["less_leader"]["value"] == pytest.approx(-0.08)
    assert f"No winner: cannot be told apart on {SELECT}, 1 seed each: nu=1, nu=2" in said(found)


def test_the_winner_is_chosen_on_one_half_and_shown_on_the_other(tmp_path: Path):
    halved, whole = Sweep(tmp_path / "halved"), Sweep(tmp_path / "whole")
    for sweep in (halved, whole):
        sweep.add("nu=1", 0, right(40, 90))
        sweep.add("nu=2", 0, right(60, 50))
    for trial in ledger.trials(whole.folder):
        whole.save(trial, metrics={name: value for name, value in trial.metrics.items() if "/select/" not in name})
    found = halved.found()
    assert [row["title"] for row in found["rows"]] == ["nu=1", "nu=2"]  # by all questions
    winner = found["winner"]
    assert (winner["title"], winner["chosen"]["value"], winner["shown"]["value"]) == ("nu=2", 0.6, 0.5)
    assert winner["less_second"]["value"] == -0.4
    told = said(found)
    assert f"nu=2, 60.0 % [50.2, 69.1] (95 % over questions, one seed) on {SELECT}." in told
    assert "On eval/perturbed/report/acc: 50.0 % [" in told
    assert "less the second, nu=1: −40.0 points [" in told
    for sweep in (halved, whole):  # no report half: all questions choose and are shown
        for trial in ledger.trials(sweep.folder):
            sweep.save(trial, metrics={name: value for name, value in trial.metrics.items() if "/report/" not in name})
        found = sweep.found()
        assert (found["winner"]["title"], found["chosen_on"]) == ("nu=1", "eval/perturbed/acc")
        assert "chosen and is shown on the same questions, which flatters it" in said(found)


@pytest.mark.parametrize(("last", "wins"), [(21, True), (40, False)])
def test_several_seeds_are_paired_seed_by_seed(last: int, wins: bool, tmp_path: Path):
    """The better row leads by 19, 20 and 21 points, though seeds lie 30 apart; by 19, 20 and 40 t says nothing."""
    sweep = Sweep(tmp_path)
    for seed, (base, lead) in enumerate(zip((10, 40, 50), (19, 20, last), strict=True)):
        sweep.add("nu=1", seed, right(base + lead, base + lead))
        sweep.add("nu=2", seed, right(base, base))
    sweep.add("nu=2", 7, right(0, 0))  # a seed that the other row lacks: in its mean, in no difference
    found = sweep.found()
    change = of(found, "nu=2")["less_leader"]
    mean = (19 + 20 + last) / 3
    spread = math.sqrt(sum((lead - mean) ** 2 for lead in (19, 20, last)) / 2)
    assert change["value"] == pytest.approx(-mean / 100)
    assert change["high"] - change["value"] == pytest.approx(4.3027 * spread / math.sqrt(3) / 100, abs=1e-5)
    assert (change["n"], change["over"]) == (3, "seeds")
    assert (found["winner"] is not None, found["tied"]) == (wins, [] if wins else ["nu=2"])
    assert "over 3 seeds" in shown.head(found)
    other = leaderboard(sweep.folder, "train/loss")  # which no record has by question
    assert of(other, "nu=2")["less_leader"]["low"] == pytest.approx(-change["high"])
    assert of(found, "nu=2")["metrics"]["eval/perturbed/acc"]["value"] == pytest.approx(0.25)


def test_plain_twins_stand_beside_their_rows_by_seed(tmp_path: Path):
    sweep = Sweep(tmp_path)
    for seed, (rna, plain) in enumerate(((30, 20), (60, 48), (90, 76))):
        sweep.add("nu=1", seed, right(rna, rna), plain=right(plain, plain))
    sweep.add("nu=0", 0, right(20, 20))
    found = sweep.found()
    twin = of(found, "nu=1")["plain"]
    assert (twin["keys"], twin["metrics"]["eval/perturbed/acc"]["value"]) == (
        ["plain0", "plain1", "plain2"],
        pytest.approx(0.48),
    )
    change = twin["rna_less_plain"]["eval/perturbed/acc"]  # 10, 12, 14: s = 2, t · s/√3 = 4.968
    assert (change["value"], change["n"]) == (pytest.approx(0.12), 3)
    assert change["low"] == pytest.approx(0.12 - 0.04968, abs=1e-5)
    assert of(found, "nu=0")["plain"] is None
    results.path_of(str(tmp_path), "plain2").unlink()
    assert of(sweep.found(), "nu=1")["plain"]["keys"] == ["plain0", "plain1"]


def test_trainings_with_a_target_are_less_their_plain_twins_where_they_are_matched(tmp_path: Path):
    """Seeds 0 to 2 are matched and gain 10, 12 and 14 points, though two are 3 points apart on the report half; 3 did
    not get there and would gain 60. Of ν = 2 both did, and are 4 points apart there, though of all questions level."""
    sweep = Sweep(tmp_path)
    for seed, (gain, forget, reached) in enumerate(
        [(10, (30, 33), True), (12, (30, 27), True), (14, (50, 30), True), (60, (30, 30), False)]
    ):
        kept = {"kept": right(*forget), "plain_kept": right(30, 30)}
        sweep.add("nu=1", seed, right(20 + gain, 20 + gain), plain=right(20, 20), until=(reached, True), **kept)
    sweep.add("nu=0", 0, right(20, 20), until=(True, True))
    found = sweep.found()
    far, apart = Sweep(tmp_path / "far"), {"kept": right(34, 26), "plain_kept": right(30, 30)}
    far.add("nu=2", 0, right(90, 90), plain=right(20, 20), until=(True, True), **apart)
    too_far = of(far.found(), "nu=2")
    assert too_far["target"]["left_out"] == {"more than 3 points apart in the mean": 1}
    assert too_far["plain"]["rna_less_plain"]["eval/perturbed/acc"] is None
    row = of(found, "nu=1")
    change = row["plain"]["rna_less_plain"]["eval/perturbed/acc"]
    assert (change["value"], change["n"]) == (pytest.approx(0.12), 3)
    assert {name: row["target"][name] for name in ("reached", "of", "matched", "pairs", "left_out")} == {
        "reached": 3,
        "of": 4,
        "matched": 3,
        "pairs": 4,
        "left_out": {"did not reach the target": 1},
    }
    forget = row["target"]["forget"]
    assert (forget["metric"], forget["rna_less_plain"]["value"]) == (
        "eval/forget/report/acc",
        pytest.approx(0, abs=1e-9),
    )
    assert "(left out: 1 did not reach the target)." in said(found)
    table = shown.tables(found, [one["title"] for one in found["rows"]], 120)[1]
    assert [list(column.cells) for column in table.columns][:3] == [
        ["nu=1 ●", "nu=0"],
        ["3 of 4", "1 of 1"],
        ["3 of 4", "–"],
    ]
    (line,) = status_lines(status(sweep.folder))[1:]
    assert line == "  #3 nu=1 seed=3: did not reach its train.until in 40 steps"
    without = Sweep(tmp_path / "without")
    without.add("nu=1", 0, right(20, 20), plain=right(20, 20))
    assert "target" not in without.found()["rows"][0]
    assert len(shown.tables(without.found(), ["nu=1"], 120)) == 2
    assert "train.until" not in said(without.found())


def test_a_twin_that_no_trial_uses_is_found_by_its_key(tmp_path: Path):
    """With baseline=skip, as `sweep=noise_scale` has it, an address names no twin: the record's settings do."""
    common = ["method=npo", "retain=mse", "seed=3", "baseline=skip", f"output_dir={tmp_path}"]
    rna, plain = (config.check(compose([*common, noise], None)) for noise in ("noise.nu=0.02", "noise=none"))
    where, twin = lookup.address_of(rna), lookup.address_of(plain)
    (tmp_path / "results").mkdir()
    identity = {"identity": results.train_identity(rna)}
    results.path_of(str(tmp_path), where["key"]).write_text(json.dumps(identity))
    made = Trial(0, [], status=ledger.DONE, address=where)
    assert Reader().plain(made) is None
    for key in (twin["key"], *twin["evals"].values()):
        results.path_of(str(tmp_path), key).write_text(json.dumps({"metrics": judged("1100")}))
    found = Reader().plain(made)
    assert found is not None
    assert found.address is not None
    assert (found.address["key"], found.address["evals"]) == (twin["key"], twin["evals"])
    assert found.metrics["eval/perturbed/acc"] == 0.5
    assert Reader().plain(found) is None


def test_what_is_infeasible_failed_pruned_or_without_a_number_is_in_no_comparison(tmp_path: Path):
    sweep = Sweep(tmp_path, constraints=["eval/forget/acc <= 0.5"])
    sweep.add("nu=1", 0, right(80, 80))
    sweep.add("nu=2", 0, right(40, 40))
    assert sweep.found()["winner"]["title"] == "nu=1"
    sweep.add("nu=3", 0, right(99, 99), kept="1110")  # the best, but it forgot too little
    lost = sweep.add("nu=4", 0, right(98, 98))
    lost.metrics |= {name: None for name in lost.metrics if name.startswith("eval/perturbed")}
    sweep.save(lost)
    for number, (how, reason) in enumerate(
        [(ledger.FAILED, "not finite"), (ledger.FAILED, ledger.CANCELLED), (ledger.PRUNED, "pruned")], sweep.count
    ):
        over = sweep.add(f"nu={5 + number}", 0, right(97, 97))
        sweep.save(over, status=how, reason=reason)
    found = sweep.found()
    assert [row["title"] for row in found["rows"]] == ["nu=1", "nu=2", "nu=3", "nu=4"]
    assert [(row["compared"], row["feasible"]) for row in found["rows"]] == [
        (True, True),
        (True, True),
        (False, False),
        (False, True),
    ]
    assert [row["front"] for row in found["rows"]] == [True, False, False, False]
    assert (found["winner"]["title"], found["winner"]["second"], found["tied"]) == ("nu=1", "nu=2", [])
    assert "In no row: 1 failed, 1 cancelled, 1 pruned (" in said(found)
    assert "✗ does not meet eval/forget/acc <= 0.5" in said(found)


def test_one_row_has_no_winner_and_one_key_is_one_seed(tmp_path: Path):
    sweep = Sweep(tmp_path)
    first = sweep.add("nu=1", 0, right(80, 70))
    again = Trial(1, ["nu=1.0", "seed=0"], status=ledger.DONE, address=first.address, metrics=first.metrics)
    sweep.save(again)
    found = sweep.found()
    assert (found["winner"], found["tied"]) == (None, [])
    assert "No winner: nothing to compare" in said(found)
    (row,) = found["rows"]
    made = row["metrics"]["eval/perturbed/acc"]
    assert (row["seeds"], made["n"], made["over"]) == (1, 1, "questions")


def test_the_command_for_more_seeds_goes_on_with_the_same_sweep_or_with_its_leader(tmp_path: Path):
    options = ["hydra/launcher=gpu_pool", "hydra.sweeper.sampler=tpe", "hydra.sweeper.study_name=made"]
    spec = {"store": "rna.store.lookup", "fixed": ["method=npo", "seed=5"], "options": [options[0], options[2]]}
    space = {"noise.nu": ["0.1", "0.2"], "seed": ["0", "2"]}
    sweep = Sweep(tmp_path / "grid", sampler="grid", space=space, **spec)
    drawn = Sweep(tmp_path / "drawn", sampler="tpe", space={"noise.nu": [0, 1]}, **{**spec, "options": options})
    for one, nu, seed in itertools.product((sweep, drawn), ("0.1", "0.2"), (0, 2)):
        one.add(f"noise.nu={nu}", seed, right(50 if nu == "0.1" else 51, 50))
    begun = ["python", "-m", "rna.run", "-m", "method=npo"]
    assert sweep.found()["more_seeds"] == [
        *begun,
        "noise.nu=0.1,0.2",
        "seed=0,1,2,3,4",
        "hydra/launcher=gpu_pool",
        "hydra.sweeper.study_name=made",
    ]
    assert drawn.found()["more_seeds"] == [
        *begun,
        "noise.nu=0.2",
        "seed=0,1,2,3,4",
        "hydra/launcher=gpu_pool",
        "hydra.sweeper.sampler=grid",
        "hydra.sweeper.study_name=made_seeds",
    ]


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("path", ["", " data.topics.text.path=/a/folder/that/is/long/enough/to/be/broken/forget.jsonl"])
def test_nothing_is_broken_inside_a_number_a_word_or_a_path(
    path: str, width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("COLUMNS", str(width))
    draw, sweep = random.Random(0), Sweep(tmp_path)
    for nu in ("0.0140", "0.1234"):
        bits = ("".join(draw.choices("01", k=24)) for _ in range(2))
        sweep.add(
            f"method=npo data.max_documents=100000 noise.nu={nu}{path}", 0, next(bits), kept="1" * 24, plain=next(bits)
        )
    found = sweep.found()
    shown.show(found)
    printed = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in printed.splitlines()) <= max(width, 80)
    words = {word for row in found["rows"] for word in row["title"].split()}
    table, _, told = printed.partition("● no other row")
    assert all(words <= set(re.findall(r"[^\s,]+", part)) for part in (table, told))
    for row in found["rows"]:
        values = [row["metrics"]["eval/perturbed/acc"], row["less_leader"]]
        values += [row["plain"]["rna_less_plain"][name] for name in found["columns"]]
        for sign, one in zip(("", "+", "+", "+"), values, strict=True):
            if one is not None:
                ends = "[{:{sign}.1f}, {:{sign}.1f}]".format(100 * one["low"], 100 * one["high"], sign=sign)
                assert ends.replace("-", "−") in printed
