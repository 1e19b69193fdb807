"""A model that was unlearned elsewhere, judged beside its base: its row, its verdicts, its key, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rna import export, run, show, trial
from rna.analyze import command as analyze
from rna.report import reading, records, tables
from rna.report.__main__ import report
from rna.report.records import Filters
from rna.settings import config
from rna.settings.fields import BUILTIN
from rna.store import results
from tests import folders

ELSEWHERE = BUILTIN / "retrained"  # any model of the base's kind that knows the forget set less


def words(folder: Path, given: Path = ELSEWHERE, *more: str) -> list[str]:
    return ["method=given", f"method.path={given}", "eval.limit=24", "wandb=disabled", f"output_dir={folder}", *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[trial.Arm]]:
    """Base, given, the same with noise at inference, and the very same model as the retrained one."""
    config.register_resolvers()
    folder = tmp_path_factory.mktemp("outputs")
    smoothed = ("noise=inference", "noise.nu=0.1", "noise.samples=2")
    rows = trial.arms(config.check(run.compose(words(folder, ELSEWHERE, *smoothed), None)))
    for row in rows:
        trial.work(row, lambda *_: None)
    return folder, rows


@pytest.mark.whole
def test_its_row_is_the_models_own(finished: tuple[Path, list[trial.Arm]]):
    _, rows = finished
    assert [row.label for row in rows] == ["base", "given", "smoothed", "retrained"]
    found = {row.label: show.scores(row) for row in rows}
    assert found["given"] == found["retrained"] != found["base"]
    assert found["smoothed"] != found["given"]
    names, *arms = show.table(rows).columns
    rates = [str(list(column.cells)[list(names.cells).index("reduction, %")]) for column in arms]
    assert float(rates[1]) >= 0
    assert (rates[0], rates[3]) == ("", "")  # a rate of the given model, none of base and retrained


@pytest.mark.whole
def test_its_verdicts_are_against_the_base(finished: tuple[Path, list[trial.Arm]]):
    said = "\n".join(show.verdicts(finished[1]))
    assert "Did it forget? given forgotten: forget accuracy" in said
    assert ", against the same in base: given " in said.splitlines()[1]
    assert "Does noise at inference change that" in said
    assert "Smoothed less given: " in said
    assert "plain" not in said


@pytest.mark.whole
def test_nothing_is_trained_and_the_record_says_what_it_is(finished: tuple[Path, list[trial.Arm]]):
    folder, rows = finished
    record = results.read(str(folder), rows[1].key)
    assert record is not None
    assert (record["label"], record["curve"], "delta" in record) == ("given", [], False)
    assert record["identity"]["model"] == rows[0].identity["model"]
    assert not (folder / "trials").exists()


@pytest.mark.whole
def test_the_report_shows_it_among_the_references_by_its_folders_name(
    finished: tuple[Path, list[trial.Arm]], tmp_path: Path
):
    folder, rows = finished
    loaded = reading.load(str(folder))
    assert not loaded.unknown
    (study,) = records.studies(loaded.trials)
    assert list(study.references) == ["base", "retrained", "given retrained"]
    titles = [row[0] for row in tables.summary(study, {}).rows]
    assert titles[:3] == ["base", "retrained", "given retrained"]
    twin = tmp_path / "other" / "retrained"
    shutil.copytree(ELSEWHERE, twin)
    folders.tensors(twin, lambda found: {name: 0.9 * tensor for name, tensor in found.items()})
    (other,) = [row for row in trial.arms(config.check(run.compose(words(folder, twin), None))) if row.label == "given"]
    trial.work(other, lambda *_: None)
    (study,) = records.studies(reading.load(str(folder)).trials)
    assert list(study.references)[2:] in (
        ["given retrained", f"given retrained {other.key[:6]}"],
        ["given retrained", f"given retrained {rows[1].key[:6]}"],
    )
    assert report([], Filters(), str(folder), "python -m rna.report").is_dir()


@pytest.mark.whole
def test_its_key_is_its_content_and_the_bases(tmp_path: Path):
    def key(given: Path, *more: str) -> str:
        return results.train_key(results.train_identity(config.check(run.compose(words(tmp_path, given, *more), None))))

    copy = Path(shutil.copytree(ELSEWHERE, tmp_path / "copy"))
    assert key(copy) == key(ELSEWHERE) == key(ELSEWHERE, "seed=3", "train.steps=7", "eval.limit=null")
    assert key(ELSEWHERE, f"model.path={ELSEWHERE}") != key(ELSEWHERE)
    folders.tensors(copy, lambda found: {name: 0.9 * tensor for name, tensor in found.items()})
    assert key(copy) != key(ELSEWHERE)


@pytest.mark.slow
def test_other_tokens_are_warned_of_where_perplexities_are_compared(tmp_path: Path, rna_here: Callable[..., str]):
    other = folders.sound(tmp_path / "m")
    tokens = json.loads((other / "tokenizer.json").read_text())
    ids = tokens["model"]["vocab"]
    own = sorted(ids, key=ids.get)[4:]  # behind the special ones
    ids |= dict(zip(own, [ids[word] for word in reversed(own)], strict=True))
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    more = ("eval=perplexity", "data.holdout=0.1", "eval.max_documents=4")
    chosen = [word for word in words(tmp_path / "o", other, *more) if "limit" not in word]
    printed = rna_here(*chosen)
    assert re.search(r"given: warning: method\.path=\S+/m: has other tokens than model\.path=", printed)
    assert "given reads other tokens than base: perplexities are per token, so none are compared with it." in printed
    assert "Did it forget?" not in printed
    (base,) = (row for row in trial.arms(config.check(run.compose(chosen, None))) if row.label == "base")
    alone = ["method=none", *(word for word in chosen if not word.startswith("method")), f"output_dir={tmp_path / 'p'}"]
    rna_here(*alone)
    (plain,) = (row for row in trial.arms(config.check(run.compose(alone, None))) if row.label == "base")
    assert base.evaluated["perplexity"]["metrics"] == plain.evaluated["perplexity"]["metrics"]  # on tokens of its own


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["method=given"], r"method\.path: a value is needed; give method\.path=…"),
        (["method.path="], r"method\.path=: names no model; give a hub id"),
        (["method.path=/no/such"], r"method\.path=/no/such: no such file or folder"),
        (["method.path=FOLDER"], r"method\.path=\S+/m: model\.safetensors is a git-lfs pointer"),
        (["train_only=true"], r"train_only=True: has no meaning with method=given, which trains nothing"),
        (["retain=mse"], r"retain_loss=mse: has no meaning with method=given; allowed: none"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(
    tmp_path: Path, rna_here: Callable[..., str], change: list[str], said: str
):
    folder = folders.sound(tmp_path / "m")
    folders.pointer(folder / "model.safetensors")
    given = words(tmp_path / "o", ELSEWHERE, *[word.replace("FOLDER", str(folder)) for word in change])
    printed = rna_here(*(word for word in given if change != ["method=given"] or "method.path" not in word), code=2)
    assert re.fullmatch(rf"error: {said}.*\n", printed), printed
    assert not list((tmp_path / "o").glob("results/*"))


@pytest.mark.whole
def test_what_needs_trained_tensors_says_that_there_are_none(
    finished: tuple[Path, list[trial.Arm]], called: Callable[..., str], tmp_path: Path
):
    folder, rows = finished
    printed = called(export.main, rows[1].key, str(tmp_path / "x"), "--output-dir", str(folder), code=2)
    assert printed == f"error: KEY={rows[1].key}: method=given trains nothing, and has no tensors of its own\n"
    printed = called(analyze.main, "eq_9", rows[1].key, "--output-dir", str(folder), code=2)
    assert printed.startswith(f"error: KEY={rows[1].key}: ")
    assert "method=given trains nothing" in printed
