"""`keep=all|best|none`: which tensors of a sweep are deleted, which never, and that they come back to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest

from rna import export, run, trial
from rna.settings import Settings, config
from rna.store import lookup, results
from rna.sweep import keeping, ledger, plan
from rna.sweep.ledger import Trial
from tests.sweep.test_sweep import run as run_sweep

# Which are deleted: on a sweep made by hand


def trained(output_dir: Path, key: str, keep: str = "best") -> None:
    """A training's record and tensors, of ten bytes."""
    (output_dir / "results").mkdir(parents=True, exist_ok=True)
    record = {"kind": "train", "key": key, "delta": f"trials/{key}/unlearned.safetensors", "config": {"keep": keep}}
    results.path_of(str(output_dir), key).write_text(json.dumps(record))
    path = results.delta_path(str(output_dir), key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"0123456789")


def swept(output_dir: Path, rows: dict[str, list[float | None]], keep: str = "best", name: str = "s") -> Path:
    """A sweep to be maximised: rows of seeds with their values, None where one is to come; plain twins by seed."""
    folder, number = output_dir / "sweeps" / name, 0
    for row, values in rows.items():
        for seed, value in enumerate(values):
            key = f"{row}{seed}"
            made = Trial(number, [f"nu={row}", f"seed={seed}"], status=ledger.QUEUED if value is None else ledger.DONE)
            made.address = {"output_dir": str(output_dir), "key": key, "evals": {}, "group": row, "keep": keep}
            made.address |= {"uses": [key, f"plain{seed}"]}
            if value is not None:
                made.metrics = {"acc": value}
                for one in (key, f"plain{seed}"):
                    if results.read(str(output_dir), one) is None:
                        trained(output_dir, one, keep)
            ledger.save(folder, made)
            number += 1
    ledger.write_json(folder / "sweep.json", {"n_trials": number, "objectives": {"acc": "maximize"}, "sampler": "grid"})
    return folder


def there(output_dir: Path) -> list[str]:
    return sorted(path.parent.name for path in output_dir.glob("trials/*/unlearned.safetensors"))


def test_best_keeps_the_winning_row_with_its_twins_and_rows_that_may_still_win(tmp_path: Path):
    folder = swept(tmp_path, {"a": [0.5, 0.6], "b": [0.9, 0.1], "c": [0.95, None], "d": [0.1, 0.2]})
    assert keeping.release(folder) == 40  # b's mean is below a's; c leads, and may still lose
    assert there(tmp_path) == ["a0", "a1", "c0", "plain0", "plain1"]
    last = ledger.trials(folder)[5]
    last.status, last.metrics = ledger.DONE, {"acc": 0.01}
    trained(tmp_path, "c1")
    ledger.save(folder, last)
    assert keeping.release(folder) == 20
    assert there(tmp_path) == ["a0", "a1", "plain0", "plain1"]


def test_none_keeps_what_a_trial_to_come_evaluates_too_and_no_more(tmp_path: Path):
    folder = swept(tmp_path, {"a": [0.5, 0.6], "b": [0.7, None]}, "none")
    assert keeping.release(folder) == 40
    assert there(tmp_path) == ["plain1"]  # the twin of the seed to come, not its sibling
    last = ledger.trials(folder)[3]
    last.status, last.reason = ledger.FAILED, "not finite"
    ledger.save(folder, last)
    assert keeping.release(folder) == 10
    assert there(tmp_path) == []


def test_what_is_not_this_sweep_s_alone_to_delete_stays(tmp_path: Path):
    folder = swept(tmp_path, {"a": [0.5, 0.6, 0.7, 0.8]}, "none")
    trained(tmp_path, "a0", "all")  # made by a run that keeps all
    results.claim(str(tmp_path), "a1")  # exported, or asked for by itself
    swept(tmp_path, {"z": [0.1, None]}, "all", "other")
    other = ledger.trials(tmp_path / "sweeps" / "other")[0]
    assert other.address is not None
    other.address["uses"] = ["z0", "a2"]
    ledger.save(tmp_path / "sweeps" / "other", other)
    with results.single_flight(str(tmp_path), "a3"):  # somebody evaluates it now
        keeping.release(folder)
    assert there(tmp_path) == ["a0", "a1", "a2", "a3", "plain1", "z0"]
    keeping.release(folder)
    assert "a3" not in there(tmp_path)


def test_all_deletes_nothing(tmp_path: Path):
    assert keeping.release(swept(tmp_path, {"a": [0.5], "b": [0.7]}, "all")) == 0
    assert there(tmp_path) == ["a0", "b0", "plain0"]


def test_plan_tells_the_disk_of_each_choice(tmp_path: Path):
    """Two rows of three seeds, no tensors yet: 6 trials and 3 twins; of a row 3 and its 3 twins beside one in work."""
    none: list[float | None] = [None] * 3
    folder = swept(tmp_path, {"a": none, "b": none})
    # all: 6 + 3; best: row a with its twins, and then b's three until its last seed; none: twins wait for row b
    assert plan.disk(ledger.trials(folder), 6, 10.0) == {"all": 90, "best": 90, "none": 40}
    folder = swept(tmp_path / "more", {"a": none, "b": none, "c": none, "d": none})
    assert plan.disk(ledger.trials(folder), 12, 10.0) == {"all": 150, "best": 90, "none": 40}


# The real program


def settings_of(folder: Path, *overrides: str) -> Settings:
    common = ["method=rmu", "noise=none", "train.steps=2", "wandb=disabled", "eval.limit=4", "model.retrained=null"]
    return config.check(run.compose([*common, f"output_dir={folder}", *overrides], None))


def worked(settings: Settings) -> trial.Arm:
    row = trial.arm("plain", settings)
    trial.work(row, lambda *_: None)
    return row


def dropped(row: trial.Arm) -> bytes:
    """What the file of tensors held, before it was not kept."""
    path = results.delta_path(row.settings.output_dir, row.key)
    content = path.read_bytes()
    assert results.drop(row.settings.output_dir, row.key) == len(content) == (row.trained or {})["delta_bytes"]
    assert not path.exists()
    return content


def test_no_key_depends_on_keep(tmp_path: Path):
    addresses = [lookup.address_of(settings_of(tmp_path, f"keep={keep}")) for keep in ("all", "best", "none")]
    assert len({(one["key"], *one["evals"].values()) for one in addresses}) == 1
    with pytest.raises(ValueError, match=r"keep=bets: did you mean 'best'\? allowed: all, best, none"):
        settings_of(tmp_path, "keep=bets")
    with_noise = lookup.address_of(settings_of(tmp_path, "noise=rna"))
    assert with_noise["uses"] == [with_noise["key"], addresses[0]["key"]]


@pytest.mark.whole
def test_more_tasks_train_what_was_not_kept_again_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    row = worked(settings_of(tmp_path, "keep=none", "train_only=true"))
    record = results.path_of(str(tmp_path), row.key)
    before = dropped(row), record.read_bytes(), record.stat().st_mtime_ns
    again = trial.arm("plain", settings_of(tmp_path, "keep=none"))
    assert (again.lost, again.trains) == (True, True)
    trial.work(again, lambda *_: None)
    path = results.delta_path(str(tmp_path), row.key)
    assert (path.read_bytes(), record.read_bytes(), record.stat().st_mtime_ns) == before
    assert "plain: its trained tensors were not kept: trained again\n" in capsys.readouterr().err
    assert again.complete
    assert not [one for one in results.evaluations(str(tmp_path), row.key) if "warnings" in one]
    results.drop(str(tmp_path), row.key)
    assert not trial.arm("plain", settings_of(tmp_path)).trains  # complete: the tensors are not missed


@pytest.mark.whole
def test_tensors_that_come_back_otherwise_are_told_and_the_record_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    row = worked(settings_of(tmp_path, "keep=none", "train_only=true"))
    dropped(row)
    record = results.path_of(str(tmp_path), row.key)
    plain: dict[str, Any] = json.loads(record.read_text())
    record.write_text(json.dumps(plain | {"delta_sha256": "of another machine"}))
    worked(settings_of(tmp_path))
    assert "warning: its tensors were trained again and are not to the bit those on " in capsys.readouterr().err
    assert json.loads(record.read_text())["delta_sha256"] == "of another machine"
    evaluated = results.evaluations(str(tmp_path), row.key)
    assert evaluated
    assert all("not to the bit" in one["warnings"][0] for one in evaluated)


@pytest.mark.slow
def test_export_trains_again_what_was_not_kept_and_refuses_where_that_is_another_training(tmp_path: Path):
    out = tmp_path / "out"
    row = worked(settings_of(out, "keep=best", "train_only=true", "retain=representation", "noise=rna", "noise.nu=0.1"))
    content = dropped(row)
    export.export(row.key, tmp_path / "model", str(out))
    assert results.delta_path(str(out), row.key).read_bytes() == content
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert results.drop(str(out), row.key) == 0  # it is somebody's now
    results.delta_path(str(out), row.key).unlink()
    record = results.path_of(str(out), row.key)
    plain: dict[str, Any] = json.loads(record.read_text())
    plain["config"]["train"]["lr"] *= 2
    record.write_text(json.dumps(plain))
    with pytest.raises(ValueError, match=r"what they were trained from has changed since \(train\)"):
        export.export(row.key, tmp_path / "other", str(out))


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["best", "none"])
def test_a_sweep_keeps_the_winner_alone_and_its_command_finds_all_done(keep: str, tmp_path: Path):
    short = ("method=rmu", "train.steps=2", "eval.limit=4", "wandb=disabled", "model.retrained=null", f"keep={keep}")
    words = ("hydra.sweeper.study_name=s", "noise.nu=0.01,0.5", "seed=0,1", f"output_dir={tmp_path}", *short)
    pool = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=1")
    assert "4 done, 0 failed" in run_sweep(*words, *pool)
    trials = ledger.trials(tmp_path / "sweeps" / "s")
    groups = sorted({frozenset(keeping.uses(one)) for one in trials}, key=sorted)
    assert len({key for group in groups for key in group}) == 6  # the twins are of two trials each
    left = set(there(tmp_path))
    if keep == "none":
        assert left == set()
    else:
        rows = [
            set().union(*(keeping.uses(one) for one in trials if cell in one.cell))
            for cell in ("noise.nu=0.01", "noise.nu=0.5")
        ]
        assert left in rows
    records = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "results").iterdir()}
    assert "4 of 4 trials are done already" in run_sweep(*words)
    assert records == {file.name: file.stat().st_mtime_ns for file in (tmp_path / "results").iterdir()}
