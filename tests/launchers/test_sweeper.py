"""The sweeper on a toy app: Hydra's own grammar, samplers, objectives, retries, and one line for each mistake."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra_plugins.rna_optuna_sweeper import _said, _sampling, _storage, _work
from hydra_plugins.rna_optuna_sweeper import space as search_space
from hydra_plugins.rna_optuna_sweeper._said import Said
from hydra_plugins.rna_optuna_sweeper._work import InWork, Work

from rna.sweep import Trial, ledger
from tests.launchers.running import STORE, environment, noted, start, study, sweep, trials

POOL = ("hydra/launcher=gpu_pool", "hydra.launcher.processes=2")


def parsed(*overrides: str) -> search_space.Space:
    return search_space.parse(OverridesParser.create().parse_overrides(list(overrides)))


@pytest.mark.parametrize(
    "overrides",
    [
        ("a=1,2", "b=x"),
        ("a=1,2", "b=range(0,3)", "c=range(1,0,-0.5)"),
        ("+a=choice(1,true,b)", "e=1,null", "~c", "++d=[1,2],[3,4]"),
        ("a='x,y',z", "b={k: 1},{k: 2}", 'c="q r",s'),
        ("a=1,2", "a=3,4,5"),
        ("a=sort(3,1,2)", "b=sort(range(3),reverse=true)"),
        ("a@pkg=1,2", "db/x=one,two"),
        (r"a=with\ space,\,comma", "b=float(1,2)", "c=1e-5,.5"),
    ],
)
def test_a_grid_has_the_cells_of_hydras_own_sweeper_in_its_order(overrides: tuple[str, ...]):
    (theirs,) = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(overrides)), None)
    found = parsed(*overrides)
    ours = [sorted([*found.fixed, *cell]) for cell in found.cells()]
    assert ours == [sorted(item.removesuffix("=null") if item[0] == "~" else item for item in job) for job in theirs]
    for cell in found.cells():
        params = found.params(cell)
        assert [axis.override(params[axis.name]) for axis in found.axes] == cell
        for axis in found.axes:
            assert axis.distribution()._contains(axis.distribution().to_internal_repr(params[axis.name]))


def test_values_that_python_takes_for_equal_are_different_cells():
    space = parsed("a=1,true,1.0", "b=1,1,2")
    assert [list(axis.natives) for axis in space.axes] == [["1", "True", "1.0"], [1, 2]]


def test_intervals_are_floats_or_integers_and_may_be_logarithmic():
    axes = {
        axis.name: axis
        for axis in parsed("a=interval(0,1.5)", "b=int(interval(1,9))", "c=tag(log,interval(1e-5,1))").axes
    }
    assert (axes["a"].distribution().low, axes["a"].distribution().high) == (0.0, 1.5)
    assert isinstance(axes["b"].distribution(), optuna.distributions.IntDistribution)
    assert axes["c"].distribution().log
    assert (axes["a"].override(1e-05), axes["b"].override(3)) == ("a=1e-05", "b=3")


@pytest.mark.whole
def test_a_returned_value_is_optimised_on_hydras_own_launcher_and_one_bad_cell_stops_nothing(tmp_path: Path):
    printed = sweep(tmp_path, "+x=0.1,0.2,0.3", "+y=0,1", "+fail=0.3", code=1)
    assert "best: #2 +x=0.2 +y=0: value=0.01" in printed
    assert "#5 +x=0.3 +y=1 failed: error: a bad cell" in printed
    assert [state for _, state, _, _ in study(tmp_path)] == ["COMPLETE"] * 4 + ["FAIL"] * 2
    assert study(tmp_path)[2] == (2, "COMPLETE", {"x": 0.2, "y": 0}, [pytest.approx(0.01)])
    again = sweep(tmp_path, "+x=0.1,0.2,0.3", "+y=0,1", "+fail=0.3", code=1)
    assert "4 of 6 trials are done already" in again
    assert len(noted(tmp_path)) == 6


@pytest.mark.whole
def test_a_job_that_leaves_the_program_is_a_failed_trial_on_hydras_own_launcher(tmp_path: Path):
    printed = sweep(tmp_path, "+x=1,2", "+leave=1", code=1)
    assert "#0 +x=1 failed: error: its process ended with exit code 3" in printed
    assert "1 done, 1 failed" in printed


@pytest.mark.slow
def test_all_trials_failing_is_said_and_ends(tmp_path: Path):
    printed = sweep(tmp_path, "+x=1,2", "+fail=all", code=1)
    assert "0 done, 2 failed" in printed


@pytest.mark.whole
def test_tpe_repeats_nothing_goes_on_where_it_was_and_follows_its_objectives(tmp_path: Path):
    common = ("+x=interval(0,1)", "+y=0,1", "hydra.sweeper.sampler=tpe", *STORE)
    more = ("hydra.sweeper.objectives={loss: minimize, x: maximize}", "hydra.sweeper.constraints=['x <= 0.8']")
    sweep(tmp_path, *common, *more, "hydra.sweeper.n_trials=6")
    first = study(tmp_path)
    sweep(tmp_path, *common, *more, "hydra.sweeper.n_trials=12")
    both = study(tmp_path)
    assert both[:6] == first
    assert len(both) == 12
    assert len({str(params) for _, _, params, _ in both}) == 12
    done = trials(tmp_path)
    assert all(trial.attributes["constraints:x <= 0.8"] == pytest.approx(trial.metrics["x"] - 0.8) for trial in done)
    assert all(trial.values == [trial.metrics["loss"], trial.metrics["x"]] for trial in done)


@pytest.mark.whole
@pytest.mark.parametrize("sampler", ["random", pytest.param("nsga2", marks=pytest.mark.slow)])
def test_a_discrete_space_is_drawn_without_repeats_until_it_is_empty(tmp_path: Path, sampler: str):
    printed = sweep(tmp_path, "+x=1,2,3", "+y=0,1", f"hydra.sweeper.sampler={sampler}", "hydra.sweeper.n_trials=9")
    assert "every combination has been drawn: 6 trials" in printed
    assert len({tuple(trial.cell) for trial in trials(tmp_path)}) == 6


def test_random_draws_depend_on_seed_and_number_alone():
    space = parsed("a=interval(0,1)", "b=1,2,3")
    whole = _sampling.brain("random", 7, space, ["minimize"], [])
    first = [whole.draw(number, set()) for number in range(4)]
    later = _sampling.brain("random", 7, space, ["minimize"], first[:2])
    assert [later.draw(number, set()).params for number in (2, 3)] == [trial.params for trial in first[2:]]
    assert _sampling.brain("random", 8, space, ["minimize"], []).draw(0, set()).params != first[0].params


@pytest.mark.slow
def test_a_killed_trial_is_tried_again_and_a_hung_one_is_found(tmp_path: Path):
    printed = sweep(tmp_path, *POOL, *STORE, "+x=1,2,3", "+hang=2", "+once=true", "hydra.sweeper.stall.training=2")
    assert "exit code 9" in printed
    assert "+x=2: hung" in printed
    assert [trial.status for trial in trials(tmp_path)] == ["done"] * 3
    assert len([words for words in noted(tmp_path) if words[0] == "recorded"]) == 3


def test_silence_is_a_hang_only_where_and_when_a_phase_says_so(tmp_path: Path):
    """Training may be silent for a minute here, an evaluation for hours; a job that its cluster does not run says
    nothing. What counts is when this process heard of it: trial 1's clock is an hour slow, 5's has stopped."""
    phases = {0: ("training", 30), 1: ("training", 30), 2: ("evaluating", 90), 3: ("training", 90), 4: (None, 90)}
    phases |= {5: ("training", 90), 6: (None, 30)}
    made = {number: ledger.Trial(number, [], status=ledger.RUNNING, token="t") for number in phases}

    def say(number: int, now: float) -> None:
        told = {"phase": phases[number][0], "done": 0, "total": 1, "time": now - 3600 * (number == 1)}
        ledger.write_json(ledger.beat_path(tmp_path, made[number]), told)

    for number, (phase, _) in phases.items():
        if phase:
            say(number, 1000.0)
    stopped: list[int] = []
    work = Work(
        launcher=SimpleNamespace(stop=stopped.append, waits=lambda number: number == 3),
        folder=tmp_path,
        composer=None,
        mirror=None,
        referee=None,
        stall={"starting": 60.0, "training": 60.0, "evaluating": 7200.0},
        said=Said(tmp_path),
        adopted=[InWork(trial, since=0.0) for trial in made.values()],
    )
    work.end_hung()
    assert stopped == []
    for number, (_, silent) in phases.items():
        work.running[number].heard -= silent
    say(0, 1001.0)
    work.end_hung()
    assert stopped == [4, 5]
    work.end_hung()
    assert stopped == [4, 5]  # told once


def test_however_many_trials_are_in_work_so_many_looks_a_second_are_shared_in_turn(monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    monkeypatch.setattr(_work.time, "monotonic", lambda: clock[0])
    pace, looks = _work.Pace(15.0, at=100.0), Counter[int]()
    for _ in range(5 * 120):  # two minutes of polls
        clock[0] += 0.2
        looks.update(pace.turn(range(1000)))
    assert 15 * 119 <= looks.total() <= 15 * 121
    assert set(looks) == set(range(1000))
    assert max(looks.values()) == 2
    clock[0] += 3600.0  # after an hour asleep, no hour's worth at once
    assert len(pace.turn(range(1000))) == 15
    assert pace.turn([1, 2]) == []
    clock[0] += 0.2
    assert pace.turn([1, 2]) == [1, 2]


@pytest.mark.slow
def test_a_slow_trial_holds_nobody_back(tmp_path: Path):
    sweep(tmp_path, *POOL, "+x=1,2,3,4", "+hang=1", "hydra.sweeper.stall.training=4", "+sleep=0.1")
    order = [words[1] for words in noted(tmp_path)]
    assert sorted(order) == ["x1", "x1", "x2", "x3", "x4"]
    assert order[-1] == "x1"  # found hung, and tried again after all others


@pytest.mark.whole
def test_a_second_sweeper_says_so_in_one_line_and_leaves(tmp_path: Path):
    first = start(tmp_path, *POOL, "+x=1,2", "+sleep=20")
    try:
        while not noted(tmp_path):
            time.sleep(0.1)
        printed = sweep(tmp_path, *POOL, "+x=1,2", "+sleep=20", code=2)
        assert re.fullmatch(
            rf"error: sweep toy: process {first.pid} on .* works on it already; nothing was started\n", printed
        )
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130
    assert "stopped by SIGINT; the same command goes on where this one was" in (tmp_path / "printed.log").read_text()


@pytest.mark.whole
def test_a_torn_journal_is_mended_and_half_a_record_computed_again(tmp_path: Path):
    arguments = ("+x=1,2,3,4", *STORE)
    sweep(tmp_path, *arguments)
    undisturbed = study(tmp_path)
    journal = tmp_path / "sweeps" / "toy" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    journal.write_bytes(b"".join(lines[:middle]) + lines[middle][:20] + b"".join(lines[middle + 1 :]) + b'{"op_co')
    half = tmp_path / "record" / "x3.json"
    half.write_text(half.read_text()[:9])
    (tmp_path / "sweeps" / "toy" / "trials" / "1.json").write_text('{"number": 1, "ce')
    printed = sweep(tmp_path, *arguments)
    assert "torn lines in its journal" in printed
    assert sorted(study(tmp_path)) == sorted(undisturbed)
    assert [words[1] for words in noted(tmp_path) if words[0] == "begin"] == ["x1", "x2", "x3", "x4", "x3"]


def test_salvage_keeps_a_line_appended_to_a_torn_one(tmp_path: Path):
    journal = tmp_path / "journal.log"
    whole = [
        json.dumps({"op_code": number, "worker_id": "w", "x": {"op_code": 1}}, separators=(",", ":"))
        for number in (0, 4, 6)
    ]
    journal.write_text(f"{whole[0]}\n{whole[1][:17]}{whole[1]}\n{whole[2]}\n{whole[0][:8]}")
    assert _storage.salvage(journal) == 2
    assert journal.read_text().splitlines() == whole
    assert _storage.salvage(journal) == 0


@pytest.mark.slow
def test_a_lock_left_by_a_killed_process_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where the study's folder was given as a relative path."""
    monkeypatch.chdir(tmp_path)
    _storage.open_storage(None, Path("study"))
    lock = _storage.lock_of(Path("study/journal.log"))
    lock.acquire()
    started = time.monotonic()
    _storage.open_storage(None, Path("study"))
    assert 2 < time.monotonic() - started < 20
    assert not Path("study/journal.log.lock").is_symlink()


@pytest.mark.whole
def test_a_changed_configuration_is_said_and_never_mixed(tmp_path: Path):
    arguments = ("+x=1,2", *STORE)
    sweep(tmp_path, *arguments, "+version=a")
    printed = sweep(tmp_path, *arguments, "+version=b")
    assert "configuration or code has changed since this sweep began: 2 of 2 trials are other ones now" in printed
    recorded = [words[1] for words in noted(tmp_path) if words[0] == "recorded"]
    assert recorded == ["x1_versiona", "x2_versiona", "x1_versionb", "x2_versionb"]
    assert (tmp_path / "record" / "x1_versiona.json").exists()


def test_a_late_owner_cannot_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trial = ledger.Trial(0, ["x=1"], status=ledger.RUNNING, token="first")
    ledger.save(tmp_path, trial)
    monkeypatch.setenv(ledger.OWNER, ledger.owner_value(tmp_path, trial))
    ledger.beat("training", 1, 2)
    assert ledger.last_beat(tmp_path, trial)["pid"] == os.getpid()
    trial.token = "second"
    ledger.save(tmp_path, trial)
    with pytest.raises(ledger.OwnerReplaced):
        ledger.check_owner()
    from rna import progress
    from rna.store import results

    with pytest.raises(ledger.OwnerReplaced):
        results.write(str(tmp_path), "key", {"a": 1}, progress.listener().commit)
    assert not list((tmp_path / "results").iterdir())


@pytest.mark.whole
def test_a_trial_that_was_given_away_stops_and_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The real trial, with what `rna.run` tells a sweep by."""
    from rna import progress, run
    from rna import trial as trials_of
    from rna.settings import config

    mine = ledger.Trial(0, ["x=1"], status=ledger.RUNNING, token="first")
    ledger.save(tmp_path, mine)
    monkeypatch.setenv(ledger.OWNER, ledger.owner_value(tmp_path, mine))
    common = ["method=rmu", "train.steps=3", "train_only=true", "wandb=disabled", f"output_dir={tmp_path / 'o'}"]
    row = trials_of.arm("plain", config.check(run.compose(common, None)))
    mine.token = "second"

    def given_away(phase: str, _done: int, _total: int) -> None:
        if phase == "training":
            ledger.save(tmp_path, mine)

    with pytest.raises(ledger.OwnerReplaced):
        trials_of.work(row, given_away, listener=progress.listener())
    assert not list((tmp_path / "o").glob("results/*"))


@pytest.mark.slow
def test_a_full_disk_loses_nothing(tmp_path: Path):
    """The ledger's disk is full from its ninth write on: the sweep says so, and goes on once there is room."""
    (tmp_path / "sitecustomize.py").write_text(
        "import errno, os\n"
        "real, count = os.fsync, [0]\n"
        "def fsync(descriptor):\n"
        "    count[0] += 1\n"
        "    if count[0] > 40 and os.environ.get('FULL'):\n"
        "        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return real(descriptor)\n"
        "os.fsync = fsync\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{environment()['PYTHONPATH']}"}
    arguments = ("+x=1,2,3,4,5,6,7,8", *STORE)
    printed = sweep(tmp_path, *arguments, code=1, FULL="1", **path)
    assert "No space left on device; nothing that was written is lost" in printed
    assert 0 < len([words for words in noted(tmp_path) if words[0] == "recorded"]) < 8
    sweep(tmp_path, *arguments)
    assert sorted(words[1] for words in noted(tmp_path) if words[0] == "recorded") == [f"x{n}" for n in range(1, 9)]
    assert [state for _, state, _, _ in study(tmp_path)] == ["COMPLETE"] * 8


@pytest.mark.whole
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("+x=1,2", "hydra.sweeper.sampler=tpee"), "hydra.sweeper.sampler=tpee: did you mean 'tpe'? allowed: grid,"),
        (("+x=interval(0,1)",), "+x=interval(0,1): a grid needs values it can count"),
        (("+x=range(0,0)",), "+x=range(0,0): nothing to choose from"),
        (("+x=interval(0,1)", "hydra.sweeper.sampler=random"), "hydra.sweeper.n_trials=None: random needs"),
        (
            ("+x=1,2", *STORE, "hydra.sweeper.objectives={los: minimize}"),
            "objectives=los: no record has this metric; did you mean 'loss'?",
        ),
        (("+x=1,2", "hydra.sweeper.objectives={a: maximise}"), "objectives.a=maximise: did you mean 'maximize'?"),
        (
            ("+x=1,2", *STORE, "hydra.sweeper.constraints=['loss < 1']"),
            "constraints=loss < 1: allowed: METRIC <= NUMBER",
        ),
        (
            ("+x=1,2", "hydra.sweeper.storage=postgresql://me:secret@127.0.0.1:9/x"),
            "storage=postgresql://me:***@127.0.0.1:9/x: cannot be reached",
        ),
        (("+x=1,2", "hydra.sweeper.storage=nonsense"), "hydra.sweeper.storage=nonsense: not a storage"),
        (("+x=1,2", "hydra.sweeper.n_jobs=2"), "hydra.sweeper.n_jobs=2: BasicLauncher runs one trial at a time"),
        (("+x=1,2", "hydra/launcher=gpu_pool", "hydra.launcher.gpus=9"), "hydra.launcher.gpus=9: more than there are"),
        (("+x=refused", *STORE), "x=refused: must be a number"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_started(tmp_path: Path, arguments: tuple[str, ...], said: str):
    printed = sweep(tmp_path, *arguments, code=2, CUDA_VISIBLE_DEVICES="")
    assert said in printed
    assert len(printed.splitlines()) == 1
    assert noted(tmp_path) == []


@pytest.mark.whole
def test_a_studys_name_belongs_to_its_search_space(tmp_path: Path):
    sweep(tmp_path, "+x=1,2")
    printed = sweep(tmp_path, "+x=1,2", "+y=1,2", code=2)
    assert "hydra.sweeper.study_name=toy: this study has another search space (+y differ)" in printed
    printed = sweep(tmp_path, "+x=1,2", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=2", code=2)
    assert "hydra.sweeper.study_name=toy: this study has another search space (sampler differ)" in printed


@pytest.mark.whole
def test_after_the_timeout_nothing_is_started(tmp_path: Path):
    assert "0 done, 0 failed, 2 left: the same command goes on" in sweep(tmp_path, "+x=1,2", "hydra.sweeper.timeout=0")
    assert noted(tmp_path) == []


def test_help_stays_instant():
    """The plugins import neither optuna nor torch until a sweep begins."""
    probe = "import sys; from hydra.core.plugins import Plugins; Plugins.instance(); "
    probe += "print(sorted({'optuna', 'torch', 'rna'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.whole
def test_a_finished_cell_is_one_line_and_its_own_words_are_in_its_log(tmp_path: Path):
    printed = sweep(tmp_path, "+x=0.1,0.2,0.3", "hydra/launcher=basic")
    said = [line for line in printed.splitlines() if line.startswith("toy: cell ")]
    assert [line.split(",")[0] for line in said] == [
        f"toy: cell {place + 1} of 3 done: #{place} +x={x}" for place, x in enumerate((0.1, 0.2, 0.3))
    ]
    assert "working on" not in printed
    logs = [Path(str(trial.log)).read_text() for trial in trials(tmp_path)]
    assert [log.count("working on x0.") for log in logs] == [1, 1, 1]


@pytest.mark.whole
def test_with_verbose_a_cells_own_words_are_shown(tmp_path: Path):
    printed = sweep(tmp_path, "+x=0.1,0.2", "hydra/launcher=basic", "hydra.verbose=true")
    assert printed.count("working on x0.") == 2
    assert [trial.log for trial in trials(tmp_path)] == [None, None]


def test_a_log_says_how_far_a_sweep_is_and_the_time_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two of six cells over at 90 s each, two at a time: four left take 180 s."""
    stream = io.StringIO()
    said = Said(tmp_path / "mine", stream=stream)
    monkeypatch.setattr(_said, "TOLD", -1.0)
    counts = Counter({ledger.DONE: 1, ledger.FAILED: 1})
    running = [Trial(number, [f"x={number}"]) for number in (2, 3)]
    said.took = [80.0, 100.0]
    said.progress(counts, running, 6)
    running[0].metrics = {"eval/forget/acc": 0.3, "eval/perturbed/acc": 0.615, "eval/retain/nll": 2.5}
    running[0].seconds = 61.0
    counts[ledger.DONE] += 1
    said.ended(running[0], counts)
    assert stream.getvalue().splitlines() == [
        "mine: 2 of 6 cells over (1 failed), 2 running, about 3 min left [#2] [#3]",
        "mine: cell 3 of 6 done: #2 x=2, 61 s, forget 30.0 %, retain 2.500 nats, perturbed 61.5 %",
    ]
