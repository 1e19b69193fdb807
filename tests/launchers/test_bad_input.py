"""What a user gets wrong about a sweep: one line with the key, the value and what is allowed, and nothing starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from hydra_plugins.rna_optuna_sweeper import _checks, _storage, space

from tests.launchers.running import environment, noted, sweep


@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("+x=1", "hydra.sweeper.study_name=../x"),
            "hydra.sweeper.study_name=../x: must be the name of a folder, without / and no leading .",
        ),
        (("+x=1", "hydra.sweeper.timeout=-1"), "hydra.sweeper.timeout=-1: must be a number of seconds ≥ 0, or null"),
        (
            ("+x=1", "hydra.sweeper.store=tests.nosuch"),
            "hydra.sweeper.store=tests.nosuch: no such module; allowed: null",
        ),
        (
            ("+x=interval(0,1)", "hydra.sweeper.sampler=tpe", "hydra.sweeper.n_trials=0"),
            "hydra.sweeper.n_trials=0: tpe needs a whole number ≥ 1",
        ),
        (("+x=1", "hydra.sweeper.sampler=nsga2", "hydra.sweeper.n_trials=2"), "nsga2: nothing is swept"),
    ],
)
def test_it_is_one_line_and_nothing_is_started(tmp_path: Path, arguments: tuple[str, ...], said: str):
    printed = sweep(tmp_path, *arguments, code=2)
    assert said in printed
    assert len(printed.splitlines()) == 1
    assert noted(tmp_path) == []
    assert not (tmp_path / "x").exists()


@pytest.mark.whole
def test_no_sbatch_on_the_machine(tmp_path: Path):
    printed = sweep(tmp_path, "hydra/launcher=slurm", "+x=1", code=2, PATH=str(tmp_path))
    assert printed == "error: hydra/launcher=slurm: no sbatch on this machine; allowed here: basic, gpu_pool\n"
    assert noted(tmp_path) == []


@pytest.mark.whole
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("-m", "seed=0,1", "hydra/launcher=gpu_pool", "hydra.launcher.trials_per_gpu=two"),
            "hydra.launcher.trials_per_gpu=two: Value 'two' of type 'str' could not be converted to Integer",
        ),
        (("-m", "sweep=noise_scal"), "sweep=noise_scal: no such sweep; did you mean 'noise_scale'? allowed: beta, "),
        (
            ("sweep=noise_scale",),
            "sweep=noise_scale: a sweep of many trials; give -m: python -m rna.run -m sweep=noise",
        ),
        (("-m", "sweep=beta,mine"), "sweep=beta,mine: allowed: one of beta, "),
        (("--config-dir", "own", "sweep=mine"), "sweep=mine: a sweep of many trials; give -m"),
        (("--config-dir", "own", "-m", "sweep=min"), "sweep=min: no such sweep; did you mean 'mine'?"),
        (("-m", "seed=0,x"), "seed=x: must be a whole number"),
        (("-m", "train.steps=1,2", "method=npo,npoo"), "method=npoo: In 'config': Could not find 'method/npoo' Avail"),
        (("-m", "noise.nu=0.01,-1", "seed=0,1"), "noise.nu=-1.0: must be"),
    ],
)
def test_rna_refuses_it_before_a_trial_is_written(tmp_path: Path, words: tuple[str, ...], said: str):
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    (tmp_path / "own" / "sweep" / "mine.yaml").write_text("seed: 1\n")
    done = subprocess.run(
        [sys.executable, "-m", "rna.run", *words, "output_dir=out"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out/**/trials/*"))


def test_of_many_names_the_nearest_are_listed():
    names = [f"eval/{task}/acc" for task in ("forget", "retain", *(f"subject_{number}" for number in range(60)))]
    said = space.nearest("eval/forgt/acc", names)
    assert said.startswith("did you mean 'eval/forget/acc'? allowed: eval/forget/acc, eval/retain/acc, ")
    assert said.endswith(" and 50 more")
    assert space.nearest("grit", _checks.SAMPLERS) == "did you mean 'grid'? allowed: grid, random, tpe, nsga2"


def test_a_missing_driver_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    said = r"postgresql://me:\*\*\*@h/d: its driver is not installed; .* \(pip install 'rna-unlearning\[postgr"
    with pytest.raises(ValueError, match=said):
        _storage.open_storage("postgresql://me:secret@h/d", tmp_path)
