"""Whole trials, analyses and exports on pretended GPUs: on one, and with a model laid over two.

By default each method with each of its retain losses over two GPUs, and each noise, variant and other layout once;
`slow`: all of them.
"""

import functools
import itertools
import os
import subprocess
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rna import export, run, suggest, trial
from rna.analyze import command as analyze
from rna.analyze import scales
from rna.corpora.cache import Cache, Remembered
from rna.decoder import model
from rna.settings import config
from rna.settings.fields import EvalSettings, Settings
from rna.store import results
from rna.unlearning import losses, train
from tests import pretended, tiny
from tests.corpora import test_pairs
from tests.unlearning.test_train import METHODS

# The unlearn layer, the norm and the head on the second GPU; or the head back on the first, as a tied one is.
SPLIT = {"model.embed_tokens": 0, "model.rotary_emb": 0, "model.layers.0": 0, "model.layers.1": 0} | dict.fromkeys(
    ("model.layers.2", "model.layers.3", "model.norm", "lm_head"), 1
)
DEVICES: dict[str, tuple[int, Any]] = {"one": (1, None), "two": (2, SPLIT), "back": (2, SPLIT | {"lm_head": 0})}
NOISES = ("none", "rna", "relative", "inference")
Case = tuple[str, str, str, str, str]  # method, retain loss, noise, variant, devices
CASES: list[Case] = [
    (*pair, noise, variant, devices)
    for pair, noise, variant, devices in itertools.product(METHODS, NOISES, ("paper", "official"), DEVICES)
]


@pytest.fixture(autouse=True)
def few_documents_tell_a_layers_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "MEASURED", 4)


def parts_of(case: Case) -> set[Any]:
    """What a case is one of: its method with its retain loss, its noise, its variant, its layout."""
    return {case[:2], *enumerate(case[2:])}


def covering(cases: list[Case], first: Case) -> list[Case]:
    """Cases that have each part between them, over two GPUs where another layout is not a part of its own."""
    chosen = [first]
    wanted = set().union(*map(parts_of, cases)) - parts_of(first)
    while wanted:
        chosen.append(max(cases, key=lambda case: (len(parts_of(case) & wanted), case[4] == "two", case[2] == "rna")))
        wanted -= parts_of(chosen[-1])
    return chosen


COMMON = ("train.steps=3", "train.checkpoint_every=1", "data.holdout=0.05", "wandb=disabled")


TRIED = covering(CASES, ("npo", "kl", "rna", "official", "two"))  # whose head alone is far from the ids


def settings(folder: Path, case: Case, *words: str) -> Settings:
    method, retain, noise, variant, devices = case
    chosen = [f"method={method}", f"retain={retain}", f"noise={noise}", f"variant={variant}", f"output_dir={folder}"]
    samples = ["noise.samples=2"] if noise == "inference" else []
    made = config.check(run.compose([*COMMON, *CHOICE, *chosen, *samples, *words], None))
    return replace(made, model=replace(made.model, device_map=DEVICES[devices][1], threads=None))


@functools.cache
def perplexity() -> EvalSettings:
    return config.check(run.compose([*COMMON, *PERPLEXITY], None)).eval


CHOICE = (
    *("eval.limit=3", "eval.batch_size=3", "eval.interim_every=2", "eval.interim_limit=2"),
    *("~eval.tasks.forget_cyber", "~eval.tasks.neutral", "~eval.tasks.related"),
)
PERPLEXITY = ("eval=perplexity", "eval.max_documents=3", "eval.batch_size=2")


class Killed(Exception):
    pass


def killed(phase: str, done: int, _total: int) -> None:
    if (phase, done) == ("training", 2):
        raise Killed


def whole(folder: Path, case: Case, *words: str) -> trial.Arm:
    """Train, be killed, go on from the checkpoint with evaluations on the way, evaluate; and then perplexity."""
    made = settings(folder, case, *words)
    arm = trial.arm("smoothed" if case[2] == "inference" else "with RNA", made)
    with pytest.raises(Killed):
        trial.work(arm, killed)
    assert results.checkpoint_path(str(folder), arm.key).exists()
    trial.work(arm, lambda *_: None)
    assert arm.complete
    assert set(arm.evaluated) == {"forget_bio", "retain", "perturbed"}
    assert arm.trained is not None
    assert "interim/retain/acc" in arm.trained["curve"][1]
    if case[2] == "none":
        judged = trial.arm("with RNA", replace(made, eval=perplexity()))
        assert judged.key == arm.key
        trial.work(judged, lambda *_: None)
        assert judged.complete
    return arm


@pytest.mark.whole
@pytest.mark.parametrize("case", TRIED, ids="-".join)
def test_a_whole_trial(case: Case, tmp_path: Path):
    with pretended.gpus(DEVICES[case[4]][0]):
        whole(tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case not in TRIED], ids="-".join)
def test_every_other_trial(case: Case, tmp_path: Path):
    with pretended.gpus(DEVICES[case[4]][0]):
        whole(tmp_path, case)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("npo", ()),
        ("npo", ("defence=adversarial", "optimizer=sam", "forget_weights=rare")),
        pytest.param("rmu", ("defence=harmful", "defence.every=1", "forget_weights=rare"), marks=pytest.mark.slow),
        pytest.param("rmu", (), marks=pytest.mark.slow),
    ],
)
def test_its_results_are_the_cpus(method: str, words: tuple[str, ...], tmp_path: Path):
    """The same noise, batches and arithmetic on two devices and on none: only chunks differ in size."""
    retain = dict(METHODS)[method]
    found: list[tuple[model.Deltas, dict[str, Any]]] = []
    for devices, count in (("one", 0), ("back", 2)):
        folder = tmp_path / f"{devices}{count}"
        with pretended.gpus(count) if count else nullcontext():
            arm = whole(folder, (method, retain, "rna", "paper", devices), "noise.nu=0.1", *words)
        deltas = model.load_deltas(results.delta_path(str(folder), arm.key))
        found.append((deltas, {name: record["metrics"] for name, record in arm.evaluated.items()}))
    for deltas, metrics in found[1:]:
        assert metrics == found[0][1]
        for name, tensor in deltas.items():
            torch.testing.assert_close(tensor, found[0][0][name], rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A plain trial and one with RNA."""
    folder = tmp_path_factory.mktemp("trials")
    config.register_resolvers()
    rows = [
        trial.arm("plain", settings(folder, ("rmu", "representation", noise, "paper", "one"))) for noise in NOISES[:2]
    ]
    for row in rows:
        trial.work(row, lambda *_: None)
    return folder, [row.key for row in rows]


LONG = ("eq_9", "theorem_5_2")  # what they ask of devices, others ask too
QUICK = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in analyze.WHAT]
SPLIT_ALONE = [pytest.param(name, marks=() if name == "two" else pytest.mark.slow) for name in DEVICES]


@pytest.mark.whole
@pytest.mark.parametrize("devices", SPLIT_ALONE)
@pytest.mark.parametrize("what", [one for one in QUICK if one.values != ("relative_noise",)])
def test_an_analysis(what: str, devices: str, trials: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch):
    """Of the base and two trials; over two GPUs the layers' own devices, not the first one's, are worked on."""
    with pretended.gpus(DEVICES[devices][0]):
        analysed(what, devices, *trials, monkeypatch)


def analysed(what: str, devices: str, folder: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an analysis as its command line does, on few samples, and see its verdict."""
    few = ["--limit", "2", "--samples", "20" if what == "theorem_4_2" else "2", "--output-dir", str(folder)]
    placed = str(DEVICES[devices][1]).replace("'", "").replace(" ", "")
    layer = ["--layer", "1"] if devices == "two" else []  # the stream on the first GPU, the rest on the second
    words = [what, *keys, *few, *layer, *([] if devices == "one" else [f"model.device_map={placed}"])]
    monkeypatch.setattr(sys, "argv", ["rna.analyze", *words])
    analyze.main()
    assert (folder / "reports" / "analyses" / "demo" / what / "verdict.txt").read_text()


@pytest.mark.slow
def test_relative_noise_trains_its_own_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = settings(tmp_path, ("npo", "kl", "none", "paper", "two"), "train.steps=1", "~eval.tasks.forget_bio")
    monkeypatch.setattr(scales, "RATIOS", (0.1,))
    with pretended.gpus(2):
        outcome = scales.relative_noise(made, *trial.load_model(made), 2, tmp_path / "scales", range(2))
    assert "Perturbed retain accuracy" in outcome.verdict


@pytest.mark.whole
@pytest.mark.parametrize("devices", [pytest.param("one", marks=pytest.mark.slow), "two"])
def test_suggestions_are_measured(devices: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any):
    placed = str(DEVICES[devices][1]).replace("'", "").replace(" ", "")
    words = [] if devices == "one" else [f"model.device_map={placed}"]
    monkeypatch.setattr(sys, "argv", ["rna.suggest", "method=rmu", *words, f"--output-dir={tmp_path}"])
    with pretended.gpus(DEVICES[devices][0]):
        suggest.main()
    assert "python -m rna.run method=rmu" in capsys.readouterr().out


@pytest.mark.whole
def test_a_rescaled_model_is_looked_at_where_it_lies(tmp_path: Path):
    """On one GPU no hook moves what enters it, as over two."""
    with pretended.gpus(1):
        decoder, _ = trial.load_model(settings(tmp_path, ("npo", "kl", "none", "paper", "one")))
        assert scales.rescaled(decoder, [[1, 2, 3]]).config.rms_norm_eps > 0


@pytest.mark.whole
@pytest.mark.parametrize("devices", ["one", "two"])
def test_an_export(devices: str, trials: tuple[Path, list[str]], tmp_path: Path):
    folder, keys = trials
    with pretended.gpus(DEVICES[devices][0]):
        export.export(keys[0], tmp_path / "model", str(folder))
    found = load_file(tmp_path / "model" / "model.safetensors")
    for name, tensor in model.load_deltas(results.delta_path(str(folder), keys[0])).items():
        assert torch.equal(found[name], tensor)


@pytest.mark.whole
def test_a_values_slope_meets_its_gradient_where_the_hidden_states_are(tmp_path: Path):
    """The head on the first GPU, what enters it on the second; a backward pass of C++ alone says no places."""
    with pretended.gpus(2):
        decoder, _ = trial.load_model(settings(tmp_path, ("npo", "kl", "none", "paper", "back")))
        hidden_ND = torch.randn(5, decoder.width).to("cuda:1").requires_grad_()
        target_N = torch.arange(5).to("cuda:1")
        values = losses.target_log_probs, losses.target_log_probs_and_slope
        values_N = model.head_values(decoder, hidden_ND, *values, target_N)
        assert values_N.device == torch.device("cuda:0")
        ones_N = pretended.put(torch.ones(5), "cuda:0")
        (slope_ND,) = torch.autograd.grad(values_N, hidden_ND, ones_N)
        assert slope_ND.device == torch.device("cuda:1")


@pytest.mark.whole
def test_a_refusal_behind_its_question_joins_the_step(tmp_path: Path):
    made = test_pairs.corpora(
        tmp_path, *test_pairs.QA, "method=dpo", "train.steps=2", "train_only=true", "wandb=disabled", "baseline=skip"
    )
    with pretended.gpus(1):
        trial.work(arm := trial.arm("plain", made), lambda *_: None)
    assert arm.trained is not None


def test_a_batch_goes_as_a_whole():
    """Its mask, too, which torch would take from a CPU at the price of a wait."""
    with pretended.gpus(1):
        batch = tiny.batch(0).to(torch.device("cuda:0"))
        assert {batch.ids_BT.device, batch.mask_BT.device} == {torch.device("cuda:0")}


@pytest.mark.whole
@pytest.mark.parametrize(
    "method", [pytest.param("adaptive_rmu", marks=pytest.mark.slow), "npo", pytest.param("dpo", marks=pytest.mark.slow)]
)
def test_what_another_trial_remembered_joins_the_step(method: str, tmp_path: Path):
    """The second of two trials that differ in noise alone finds the reference's values on the disk."""
    with pretended.gpus(2):
        for nu in (0.01, 0.02):
            case = (method, dict(METHODS)[method], "rna", "paper", "two")
            made = settings(tmp_path, case, "train_only=true", "eval.interim_every=null", f"noise.nu={nu}")
            trial.work(trial.arm("with RNA", made), lambda *_: None)
    assert len(list((tmp_path / "cache").glob("norms-*" if method == "adaptive_rmu" else "log_probs-*"))) > 0


def test_remembered_values_wait_on_the_cpu():
    """They are those of a whole training, and a GPU has better use for its memory."""
    with pretended.gpus(1):
        kept = Remembered(Cache(Path("unused"), 0), "norms", {})
        kept.recall(0, lambda: torch.ones(3, device="cuda"))
        assert kept.values["0"].device == torch.device("cpu")


@pytest.mark.parametrize("assigned", ["3", ""])
def test_an_assigned_gpu_that_is_not_there_is_a_failure_and_no_slow_cpu(
    assigned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", assigned)
    row = trial.arm("base", config.check(run.compose(["method=none", "eval.limit=2", f"output_dir={tmp_path}"], None)))
    if not assigned:
        assert model.usable("auto") == "cpu"
        return
    with pytest.raises(
        trial.TrialFailed, match=r"model.device=auto: .*CUDA_VISIBLE_DEVICES=3.* cannot be used"
    ) as failed:
        trial.work(row, lambda *_: None)
    assert failed.value.reason == "device"
    assert results.read(str(tmp_path), f"{row.key}.failed1") is not None
    assert not row.evaluated


def test_windows_is_refused_in_one_line():
    command = "import sys; sys.platform = 'win32'; import rna.run"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "error: rna runs on Linux and macOS; on Windows use WSL\n")


@pytest.mark.whole
def test_a_model_is_gone_before_another_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also after it was trained and judged: nothing of an arm holds on to it."""
    made = settings(tmp_path, ("npo", "kl", "none", "paper", "one"))
    trial.work(trial.arm("plain", made), lambda *_: None)
    first = weakref.ref(trial.load_model(made)[0].model)
    assert first() is not None
    there: list[Any] = []
    own = model.load

    def watched(*words: Any, **options: Any) -> Any:
        there.append(first())
        return own(*words, **options)

    monkeypatch.setattr(model, "load", watched)
    trial.load_model(replace(made, model=replace(made.model, path=made.model.retrained or "")))
    assert there == [None]


@pytest.mark.whole
def test_an_arms_peak_memory_is_its_own():
    """A gigabyte that an earlier arm took and gave back is not the next one's."""
    taken = torch.ones(2**28)
    before = trial._peak_memory()["process"]
    del taken
    trial._reset_peak_memory()
    after = trial._peak_memory()["process"]
    if trial._resident_peak() >= before and not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("this machine cannot reset a process's peak")
    assert after < before - 2**29
