"""A loaded model and texts in Python: what the command line makes of them, to the bit, and the model as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import rna
from rna import export, trial
from rna.decoder import model as decoders
from rna.settings import BUILTIN, compose, config
from rna.store import results
from tests import tiny

FEW = {"steps": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def demo_model() -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(BUILTIN / "base")
    return AutoModelForCausalLM.from_pretrained(folder, dtype="float32"), AutoTokenizer.from_pretrained(folder)


def read(name: str) -> list[str]:
    lines = (BUILTIN / f"{name}.jsonl").read_text().splitlines()
    return [json.loads(line)["text"] for line in lines]


FORGET, RETAIN = read("forget_bio")[:40], read("retain")[:40]


def unlearn(given: tuple[Any, Any], **more: Any) -> "rna.Unlearned":
    arguments: dict[str, Any] = {"forget": FORGET, "retain": RETAIN, "train": FEW, "show": False, "unlearn_layer": 2}
    return rna.unlearn(*given, **(arguments | more))


@pytest.mark.whole
@pytest.mark.parametrize(
    "words", [["method=npo", "retain=kl", "noise.nu=0.03", "seed=5"], ["method=rmu", "defence=soft"]]
)
def test_on_the_demo_the_tensors_are_those_of_the_command_line(demo_model: Any, words: list[str], tmp_path: Path):
    common = [*words, "train.steps=3", "train_only=true", "baseline=skip", "wandb=disabled"]
    row = trial.arm("own", config.check(compose([*common, f"output_dir={tmp_path}"], None)))
    trial.work(row, lambda *_: None)
    theirs = decoders.load_deltas(results.delta_path(str(tmp_path), row.key))
    said = dict(word.split("=") for word in words)
    seed = int(said.pop("seed", 0))
    done = rna.unlearn(
        *demo_model,
        forget={"bio": read("forget_bio"), "cyber": read("forget_cyber")},
        retain=read("retain"),
        method=said.pop("method"),
        seed=seed,
        show=False,
        overrides=["model=demo", "data=demo", "train.steps=3", *(f"{key}={value}" for key, value in said.items())],
    )
    assert set(done.deltas) == set(theirs)
    assert all(torch.equal(done.deltas[name], tensor) for name, tensor in theirs.items())
    assert row.trained is not None
    unstable = "train/tokens_per_second"
    curves = [[{**report, unstable: 0} for report in curve] for curve in (done.curve, row.trained["curve"])]
    assert curves[0] == curves[1]


def test_the_given_model_stays_as_it_was_and_the_unlearned_one_is_a_copy(demo_model: Any):
    given, _ = demo_model
    given.train()
    given.lm_head.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    drawn = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        with torch.no_grad():
            done = unlearn(demo_model)
        assert given.training
        assert all(module.training for module in given.modules())
        wants = {name for name, tensor in given.named_parameters() if not tensor.requires_grad}
        assert wants == {"lm_head.weight"}
    finally:
        given.eval().requires_grad_(True)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.state_dict().items())
    changed = {name for name, tensor in done.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(done.deltas) == {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1, 2)}
    assert done.model is done.model
    assert done.model is not given


def test_in_place_it_is_the_given_one():
    given = tiny.decoder(vocab_size=536, layers=4, max_position_embeddings=512).model
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(BUILTIN / "base"))
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    done = unlearn((given, tokenizer), in_place=True, method="graddiff")
    assert done.model is given
    changed = {name for name, tensor in given.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(done.deltas)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("Qwen2", {"tie_word_embeddings": True}), ("Gemma2", {}), ("Llama", {"dtype": torch.bfloat16})],
)
def test_tied_weights_and_other_dtypes(demo_model: Any, architecture: str, options: dict[str, Any]):
    given = tiny.decoder(architecture, vocab_size=536, layers=4, max_position_embeddings=512, **options).model
    done = unlearn((given, demo_model[1]), method="rmu", layer="all_tensors", **{"method.coefficient": 2.0})
    assert {name.split(".")[2] for name in done.deltas} == {"0", "1", "2"}
    assert {tensor.dtype for tensor in done.deltas.values()} == {options.get("dtype", torch.float32)}
    made: Any = done.model
    if options.get("tie_word_embeddings"):
        assert made.lm_head.weight is made.model.embed_tokens.weight


def test_steps_are_told_and_counted(demo_model: Any):
    told: list[tuple[int, dict[str, float]]] = []
    done = unlearn(demo_model, on_step=lambda step, report: told.append((step, report)), overrides=["noise=none"])
    assert [step for step, _ in told] == [1, 2]
    assert [report for _, report in told] == done.curve
    assert done.settings.noise.name == "none"
    assert done.settings.data.holdout == 0
    assert list(done.settings.alpha) == ["text"]
    assert repr(done) == f"Unlearned({done.key}: {len(done.deltas)} tensors, 2 steps, 0 warnings)"


def test_what_cannot_work_is_said_and_handed_over(demo_model: Any):
    done = unlearn(demo_model, method="rmu", **{"method.coefficient": 1e4})
    assert any("method.coefficient=10000" in line for line in done.warnings)


def test_it_stops_at_a_target(demo_model: Any):
    done = unlearn(
        demo_model,
        train={"steps": 30, "batch_size": 2, "lr": 1e-2, "until": {"eval/forget/nll": 1.0}},
        eval={"interim_every": 1, "interim_limit": 4},
    )
    assert done.record["until"]["reached"]
    assert len(done.curve) == done.record["until"]["step"] < 30


def test_with_a_folder_it_is_a_trial_like_others(demo_model: Any, tmp_path: Path):
    steps: list[int] = []
    again: list[int] = []
    done = unlearn(demo_model, output_dir=tmp_path, on_step=lambda step, _: steps.append(step))
    same = unlearn(demo_model, output_dir=tmp_path, on_step=lambda step, _: again.append(step))
    assert (steps, again) == ([1, 2], [])
    assert same.key == done.key
    assert all(torch.equal(same.deltas[name], tensor) for name, tensor in done.deltas.items())
    other = unlearn(demo_model, output_dir=tmp_path, seed=1)
    assert other.key != done.key
    rows = rna.trials(str(tmp_path))
    assert {row["key"] for row in rows} == {done.key, other.key}
    assert rows[0]["arm"] == "rna"

    given, tokenizer = demo_model
    loaded = rna.load(done.key[:8], tmp_path, model=given, tokenizer=tokenizer)[0]
    assert loaded is not given
    assert all(torch.equal(dict(loaded.named_parameters())[name], tensor) for name, tensor in done.deltas.items())
    with pytest.raises(ValueError, match=f"KEY={done.key}: trained on a model that was given in Python"):
        rna.load(done.key, tmp_path)
    with pytest.raises(ValueError, match=f"model: not the one that trial {done.key} was trained on"):
        rna.load(done.key, tmp_path, model=done.model, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="a model that was given in Python, which no path leads to"):
        export.export(done.key, tmp_path / "exported", str(tmp_path))


def test_without_one_nothing_is_left(demo_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    unlearn(demo_model)
    assert list(tmp_path.iterdir()) == []


def test_a_trial_of_the_command_line_is_loaded(tmp_path: Path):
    words = ["method=rmu", "train.steps=1", "train_only=true", "noise=none", "wandb=disabled", f"output_dir={tmp_path}"]
    row = trial.arm("plain", config.check(compose(words, None)))
    trial.work(row, lambda *_: None)
    whole, tokenizer = rna.load(row.key[:6], tmp_path, tokenizer=True, device="cpu")
    assert whole.config.model_type == "mistral"
    assert not whole.training
    assert all(tensor.requires_grad for tensor in whole.parameters())
    theirs = decoders.load_deltas(results.delta_path(str(tmp_path), row.key))
    own = dict(whole.named_parameters())
    assert all(torch.equal(own[name], tensor) for name, tensor in theirs.items())
    assert whole(**tokenizer("marsh fevers", return_tensors="pt")).logits.isfinite().all()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a string": ({"forget": "marsh fevers"}, "forget='marsh fevers': must be texts, a list of strings"),
    "nothing to forget": ({"forget": []}, "forget: has no text that is not blank"),
    "blank": ({"retain": [" ", ""]}, "retain: has no text that is not blank"),
    "no topic": ({"forget": {}}, "forget={}: at least one topic"),
    "an odd topic": ({"forget": {"a b": FORGET}}, "forget: topic 'a b': must be a word"),
    "too few": (
        {"forget": FORGET[:1]},
        "forget: has 1 documents of two tokens or more to train on, fewer than one batch",
    ),
    "too few of a topic": ({"forget": {"bio": FORGET, "cyber": FORGET[:1]}}, "forget['cyber']: has 1 documents"),
    "too few to keep": ({"retain": RETAIN[:1]}, "retain: has 1 documents"),
    "an unknown method": ({"method": "nop"}, "method=nop: unknown option; did you mean 'npo'?"),
    "one that trains nothing": ({"method": "none", "noise": "none"}, "method=none: "),
    "a layer outside": ({"unlearn_layer": 9}, "layer 9 is outside the model; allowed: 0 to 3"),
    "a key": ({"overrides": ["train.stepz=3"]}, "train.stepz=3: unknown key in train; did you mean 'steps'?"),
    "an option": ({"trian": {"steps": 3}}, "trian.steps"),
    "the model's path": ({"model.path": "x"}, "model.path: is the given model's own; leave it out"),
    "the texts' path": ({"overrides": ["data.retain.path=x"]}, "data.retain.path: the texts are those of forget and"),
    "a loss that does not fit": ({"retain_loss": "representation"}, "retain_loss=representation: has no meaning with"),
}


@pytest.mark.parametrize(("more", "said"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_that_names_the_argument(demo_model: Any, more: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=r"^[a-z]") as refused:
        unlearn(demo_model, **more)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "/tmp" not in str(refused.value)


def test_other_models_are_refused(demo_model: Any):
    given, tokenizer = demo_model
    with pytest.raises(ValueError, match="model=str: must be a causal language model of transformers"):
        unlearn(("name", tokenizer))
    with pytest.raises(ValueError, match="tokenizer=NoneType: must be a tokenizer of transformers"):
        unlearn((given, None))
    small = tiny.decoder(layers=4).model
    with pytest.raises(ValueError, match="tokenizer: makes ids beyond the model's 61 embeddings"):
        unlearn((small, tokenizer))
    with pytest.raises(ValueError, match="model: its weights lie on the meta device"):
        unlearn((tiny.decoder(layers=4).model.to("meta"), tokenizer))
    with pytest.raises(ValueError, match="model: float16 on a CPU"):
        unlearn((tiny.decoder(layers=4, dtype=torch.float16).model, tokenizer))
    broken = tiny.decoder(vocab_size=536, layers=4).model
    with torch.no_grad():
        next(broken.parameters())[0, 0] = torch.nan
    with pytest.raises(ValueError, match="model: its weights hold values that are not finite"):
        unlearn((broken, tokenizer))


def test_a_loss_that_is_not_finite_says_so_without_a_record_that_is_gone(demo_model: Any):
    with pytest.raises(rna.ends.TrialFailed, match="is not finite at step") as failed:
        unlearn(demo_model, **{"retain.alpha.default": 1e39})
    assert "recorded in" not in str(failed.value)


def test_what_there_is_is_told():
    assert {"Unlearned", "load", "trials", "unlearn", "__version__"} <= set(dir(rna))
    with pytest.raises(AttributeError, match="module 'rna' has no attribute 'lode'"):
        _ = rna.lode  # pyright: ignore[reportAttributeAccessIssue]
