"""Every trial is found again: in a table that no terminal breaks, as flat rows, and by the first letters of its key."""

import json
import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rna import run, trial
from rna.records import columns, files, listing, reading, trials
from rna.records.__main__ import main
from rna.settings import config
from rna.store import results
from rna.sweep import ledger
from tests import generated
from tests.generated import scores, settings


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """Base, retrained, and NPO+MSE and RMU on two seeds, plain and with RNA."""
    generated.world(tmp_path, seeds=2, alphas=(1.0,), pairs=[("npo", "mse"), ("rmu", "representation")], curve=3)
    return tmp_path


def aged(folder: Path, key: str, created: str) -> None:
    """Give a training another time."""
    file = folder / "results" / f"{key}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"created": created}, indent=1))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training with RNA leaves, and its evaluation."""
    config.register_resolvers()
    folder = tmp_path_factory.mktemp("real")
    words = ["method=npo", "retain=mse", "noise.nu=0.014", "train.steps=1", "eval.limit=2", "wandb=disabled"]
    trial.work(
        trial.arm("with RNA", config.check(run.compose([*words, f"output_dir={folder}"], None))), lambda *_: None
    )
    return folder


@pytest.mark.whole
def test_what_a_run_leaves_is_listed_with_its_own_numbers(real: Path):
    (row,) = trials(str(real))
    assert (row["arm"], row["method"], row["nu"], row["seed"]) == ("rna", "NPO+MSE", 0.014, 0)
    assert (row["noise.layers"], row["train.steps"], row["tensors"], row["evaluations"]) == ([2], 1, True, 6)
    record = results.read(str(real), row["key"])
    assert record is not None
    judged = {one["task"]: one["metrics"] for one in results.evaluations(str(real), row["key"])}
    assert row["eval/perturbed/acc"] == judged["perturbed"]["acc"]
    assert row["eval/forget/acc"] == (judged["forget_bio"]["acc"] + judged["forget_cyber"]["acc"]) / 2
    lying = [*(real / "results").glob(f"{row['key']}*"), *(real / "trials" / row["key"]).iterdir()]
    assert row["bytes"] == sum(file.stat().st_size for file in lying)
    assert row["created"] == record["created"]


def test_a_record_read_in_parts_is_the_record(real: Path):
    """Splitting at the lines is exact for what the store writes, and a file laid out otherwise is read too."""
    for file in (real / "results").glob("*.json"):
        text = file.read_text(encoding="utf-8")
        whole = json.loads(text)
        for written in (text, json.dumps(whole), json.dumps(whole, indent=2), json.dumps(whole, indent=1)):
            parts = reading._fields(written)
            assert {name: json.loads(value) for name, value in parts.items()} == whole


def test_the_table_shows_each_trial_the_newest_last(world: Path, called: Callable[..., str]):
    first = trials(str(world), method="rmu", arm="rna", seed=1)[0]
    aged(world, first["key"], "2026-02-01T00:00:00+0000")
    printed = called(main, "--output-dir", str(world)).splitlines()
    assert printed[0].split() == ["key", "method", "ν", "seed", "model", *listing.ROLES, "age", "size"]
    assert len(printed) == 1 + 10 + 1
    row = printed[-2].split()
    assert row[:5] == [first["prefix"], "RMU", "0.014", "1", "demo"]
    assert row[5:8] == [f"{100 * first[f'eval/{role}/acc']:.1f}" for role in listing.ROLES]
    assert printed[-1].startswith("10 trials, model demo, ")
    assert called(main, "list", "--output-dir", str(world)).splitlines()[:-1] == printed[:-1]


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--method", "npo"], 4),
        (["--method", "npo", "rmu", "--seed", "1"], 4),
        (["--retain", "mse", "--arm", "rna"], 2),
        (["--nu", "0.014"], 4),
        (["--nu", "0", "--arm", "plain"], 4),
        (["--arm", "base", "retrained"], 2),
        (["--model", "demo"], 10),
        (["--model", "other"], 0),
    ],
)
def test_filters_keep_what_they_name_and_nothing_else(world: Path, called: Callable[..., str], words, count):
    found = json.loads(called(main, "--output-dir", str(world), "--json", *words))
    assert len(found) == count
    allowed = {"--method": "method.name", "--retain": "retain_loss", "--arm": "arm", "--model": "model.name"}
    if words[0] in allowed and len(words) == 2:
        assert {row[allowed[words[0]]] for row in found} <= {words[1]}


def test_no_trial_that_passes_is_told_with_what_there_is(world: Path, called: Callable[..., str], tmp_path: Path):
    printed = called(main, "--output-dir", str(world), "--method", "dpo")
    assert "10 trials in" in printed
    assert "--method: none, npo, rmu\n" in printed
    (tmp_path / "empty").mkdir()
    assert "no trials in" in called(main, "--output-dir", str(tmp_path / "empty"))
    assert "error: --output-dir nowhere: no such folder" in called(main, "--output-dir", "nowhere", code=2)
    assert "error: --arm rma: did you mean 'rna'?" in called(main, "--output-dir", str(world), "--arm", "rma", code=2)


def test_a_sweep_is_listed_with_its_plain_twins_and_references(world: Path, called: Callable[..., str]):
    own = next(row for row in trials(str(world), method="npo", arm="rna", seed=1))
    ledger.save(world / "sweeps" / "mine", ledger.Trial(0, [], address={"key": own["key"]}))
    found = trials(str(world), sweep="mine")
    assert sorted((row["arm"], row["method"]) for row in found) == [
        ("base", "base"), ("plain", "NPO+MSE"), ("retrained", "retrained"), ("rna", "NPO+MSE"),
    ]  # fmt: skip
    assert {row["seed"] for row in found if row["arm"] in ("plain", "rna")} == {1}
    assert "NAME=yours: no such sweep" in called(main, "--output-dir", str(world), "--sweep", "yours", code=2)


def test_rows_are_sorted_by_a_column_or_any_field(world: Path):
    for name, field in (("perturbed", "eval/perturbed/acc"), ("train.steps", "train.steps"), ("size", "bytes")):
        values = [row[field] for row in trials(str(world), sort=name)]
        assert values == sorted(values)
        assert len(values) == 10
    with pytest.raises(ValueError, match="--sort perturbd: did you mean 'perturbed"):
        trials(str(world), sort="perturbd")
    generated.trial(world, settings("dpo", "kl"), {})  # never evaluated
    assert trials(str(world), sort="retain")[0]["method"] == "DPO+KL"


def test_a_task_judged_twice_shows_the_last_and_says_so(tmp_path: Path, called: Callable[..., str]):
    made = settings()
    generated.trial(tmp_path, made, scores(30, 40))
    trained = generated.record(made)
    later = generated.evaluation(trained, "perturbed", 0.66, keyword="plague") | {"created": "2026-03-01T00:00:00+0000"}
    generated.write(tmp_path, later)
    (row,) = trials(str(tmp_path))
    assert row["eval/perturbed/acc"] == 0.66
    assert row["judged_otherwise"] == ["perturbed"]
    printed = called(main, "--output-dir", str(tmp_path))
    assert " 66.0* " in printed
    assert "*: judged in several ways, the last is shown" in printed


def test_noise_at_inference_has_a_row_of_its_own(tmp_path: Path):
    made = settings()
    generated.trial(tmp_path, made, scores(30, 40))
    smoothed = settings(nu=0.03)
    smoothed.noise.name = "inference"
    one = generated.evaluation(generated.record(smoothed), "perturbed", 0.2)
    key = results.train_key(generated.record(made)["identity"])
    one |= {"key": key, "train_key": key}
    one["task_identity"]["smoothing"] = {"nu": 0.03}
    generated.write(tmp_path, one)
    plain, judged = trials(str(tmp_path))
    assert (plain["arm"], plain["nu"], plain["eval/perturbed/acc"]) == ("plain", 0.0, 0.4)
    assert (judged["arm"], judged["nu"], judged["eval/perturbed/acc"]) == ("smoothed", 0.03, 0.2)
    assert judged["key"] == plain["key"]


def perplexity(made: Any, **nll: float) -> dict[str, Any]:
    """The record of a perplexity evaluation: log-losses by part."""
    metrics = {name: {"nll": value, "nll_stderr": 0.1, "ppl": math.exp(value), "n": 8} for name, value in nll.items()}
    one = generated.evaluation(generated.record(made), "perplexity", 0.0)
    one["config"]["eval"] = {"kind": "perplexity", "name": "perplexity", "tasks": {}}
    return one | {"metrics": metrics, "task_identity": {"corpora": "c", "seed": 0}}


def test_perplexities_are_shown_where_there_are_no_accuracies(tmp_path: Path, called: Callable[..., str]):
    made = settings("npo", "kl")
    judged = perplexity(made, forget_bio=1.0, forget_cyber=3.0, retain=2.0, perturbed=2.5)
    generated.write(tmp_path, generated.record(made), judged)
    (row,) = trials(str(tmp_path))
    assert row["eval/forget/nll"] == 2.0
    assert row["eval/forget/ppl"] == pytest.approx(math.exp(2.0))  # of the mean log-loss
    printed = called(main, "--output-dir", str(tmp_path))
    assert re.search(r"ppl 7\.389 +ppl 7\.389 +ppl 12\.18", printed)


@pytest.mark.parametrize("width", range(40, 130, 9))
def test_no_width_breaks_a_number_or_a_word(
    world: Path, called: Callable[..., str], width: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = [line.split() for line in called(main, "--output-dir", str(world)).splitlines()[:-1]]
    monkeypatch.setenv("COLUMNS", str(width))
    printed = called(main, "--output-dir", str(world)).splitlines()
    assert all(len(line) <= width for line in printed)
    known = {word for line in whole for word in line}
    assert all(set(line.split()) <= known for line in printed[: len(whole)])
    kept = printed[0].split()
    assert kept[:3] == ["key", "method", "ν"]
    assert "perturbed" in kept
    assert ("age" in kept) or width < 80


def test_a_column_too_wide_loses_the_beginning_of_its_texts():
    made = columns.laid(["name", "n"], [["/a/long/path/to/model", "12345"]], left=["name"], shorten=["name"], width=16)
    assert made == ["name           n", "…to/model  12345"]


def test_ages_and_bytes_are_told_in_their_largest_unit():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for ago, said in ((5, "5s"), (61, "1m"), (7200, "2h"), (3 * 86400, "3d"), (-5, "0s")):
        assert listing.age((now - timedelta(seconds=ago)).strftime("%Y-%m-%dT%H:%M:%S%z"), now) == said
    assert listing.age(None, now) == listing.age("yesterday", now) == "–"
    told = {0: "0 B", 999: "999 B", 1000: "1.0 KiB", 2**20: "1.0 MiB", 150 * 2**20: "150 MiB", 2**40: "1024 GiB"}
    assert {count: listing.in_bytes(count) for count in told} == told


def test_what_cannot_be_read_is_counted_and_left_alone(world: Path, called: Callable[..., str]):
    broken = world / "results" / f"{'a' * 16}.json"
    whole = next((world / "results").glob("*.json")).read_text()
    broken.write_text(whole[: len(whole) // 2])
    (world / "results" / f"{'b' * 16}.json").write_text('{\n "kind": "train",\n "key": "b"\n}')
    (world / "results" / f"{'c' * 16}.failed1.json").write_text("{}")
    printed = called(main, "--output-dir", str(world))
    assert "10 trials" in printed
    assert "2 files cannot be read as records, such as " in printed
    assert f"1 attempts failed: results/{'c' * 16}.failed1.json" in printed


def test_prefixes_are_the_shortest_that_name_one_key_from_six_letters_on():
    keys = ["abcdef1100000000", "abcdef1200000000", "abcdef1200000000.r2", "0123456789abcdef"]
    found = listing.prefixes(keys)
    assert found == {keys[0]: "abcdef11", keys[1]: "abcdef12", keys[2]: "abcdef12.r2", keys[3]: "012345"}


def test_a_rerun_is_a_trial_of_its_own_and_named_by_its_prefix(tmp_path: Path):
    key = generated.trial(tmp_path, settings(), scores(30, 40))
    again = generated.record(settings()) | {"key": f"{key}.r2"}
    (tmp_path / "results" / f"{key}.r2.json").write_text(json.dumps(again, indent=1))
    assert sorted(row["key"] for row in trials(str(tmp_path))) == [key, f"{key}.r2"]
    for row in trials(str(tmp_path)):
        assert results.resolve(str(tmp_path), row["prefix"]) == row["key"]


def test_a_file_counts_for_the_trial_whose_it_is(tmp_path: Path):
    key = "0123456789abcdef"
    for name in (f"{key}.json", f"{key}-{key}.json", f"{key}.failed1.json", f"{key}.broken", ".hidden.tmp"):
        (tmp_path / "results").mkdir(exist_ok=True)
        (tmp_path / "results" / name).write_text("12")
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{key}-{key}" / "files").mkdir(parents=True)
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{key}-{key}" / "files" / "a").write_text("123")
    (tmp_path / "wandb" / "latest-run").symlink_to(tmp_path)
    found = files.of_trials(str(tmp_path))
    assert set(found) == {key}
    assert sorted((file.kind, file.bytes) for file in found[key]) == [
        ("broken", 2), ("evaluation", 2), ("failure", 2), ("record", 2), ("wandb", 3),
    ]  # fmt: skip
