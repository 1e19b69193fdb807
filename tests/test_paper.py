"""The paper's setting: every preset's numbers, every model's entry, and whole trials on tiny stand-ins."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rna import run, trial
from rna.settings import config
from rna.settings.fields import CONF, Settings
from rna.store import lookup, results
from tests import shared, tiny
from tests.evaluation.test_questions import row

# arXiv:2501.19202, Appendix A.4: method -> own numbers, α of bio and cyber, ν
PAPER: dict[str, tuple[dict[str, float], tuple[float, float], float]] = {
    "rmu": ({"coefficient": 6.5}, (1200, 1200), 3e-2),
    "adaptive_rmu": ({"beta": 3}, (1200, 1200), 8e-2),
    "rsv": ({"coefficient": 10}, (1200, 1200), 9e-2),
    "npo_kl": ({"beta": 0.1}, (50, 50), 1.4e-2),
    "npo_mse": ({"beta": 0.1}, (5, 20), 1e-2),
    "dpo_kl": ({"beta": 0.1}, (30, 50), 1e-2),
    "dpo_mse": ({"beta": 0.1}, (5, 20), 2e-2),
    "simnpo_kl": ({"beta": 0.1, "gamma": 0}, (20, 50), 1.4e-2),
    "simnpo_mse": ({"beta": 0.1, "gamma": 0}, (5, 10), 1.8e-2),
}
# The released scripts: what differs from the table above, and steps and learning rate.
OFFICIAL_ALPHA = {"simnpo_mse": (10, 5)}
OFFICIAL_TRAIN = {"npo": (150, 2e-5), "simnpo": (50, 2e-5)}
SETTING = ("model=zephyr_7b", "data=wmdp", "eval=wmdp")
MODELS = {  # entry -> architecture, layers, unlearn layer
    "zephyr_7b": ("Mistral", 32, 7),
    "mistral_7b_instruct": ("Mistral", 32, 7),
    "llama3_8b_instruct": ("Llama", 32, 7),
    "qwen2_5_7b_instruct": ("Qwen2", 28, 6),
    "qwen3_8b": ("Qwen3", 36, 8),
    "gemma2_9b_it": ("Gemma2", 42, 9),
    "smollm2_135m": ("Llama", 30, 7),
}


def composed(*overrides: str) -> Settings:
    return config.check(run.compose(list(overrides), None))


def choice(name: str) -> list[str]:
    """A row's method and retain loss as a user chooses them; RM methods bring their own."""
    method, _, retain = name.rpartition("_") if name.endswith(("_kl", "_mse")) else (name, "", "")
    return [f"method={method}", *([f"retain={retain}"] if retain else []), *SETTING]


@pytest.mark.whole
@pytest.mark.parametrize("noise", ["rna", "none"])
@pytest.mark.parametrize("name", PAPER)
def test_the_papers_rows(name: str, noise: str):
    own, alpha, nu = PAPER[name]
    found = composed(f"experiment=paper/{name}", f"noise={noise}")
    assert composed(*choice(name), f"noise={noise}") == found
    assert {key: getattr(found.method, key) for key in own} == own
    assert found.alpha == {"bio": alpha[0], "cyber": alpha[1]}
    assert (found.train.steps, found.train.lr, found.train.batch_size, found.train.eps) == (500, 5e-5, 4, 1e-8)
    assert (found.layer.unlearn, found.layer.trained) == (7, [5, 6, 7])
    assert (found.variant, found.seed) == ("paper", 0)
    assert (found.model.name, found.data.name, found.eval.name) == ("zephyr_7b", "wmdp", "wmdp")
    assert {topic: corpus.max_length for topic, corpus in found.data.topics.items()} == {"bio": 512, "cyber": 768}
    if noise == "rna":
        assert (found.noise.nu, found.noise.scale, found.noise.layers) == (nu, "std", [7])
    else:
        assert vars(found.noise) == {**vars(found.noise), "name": "none", "nu": 0.0, "layers": []}


@pytest.mark.whole
@pytest.mark.parametrize("noise", ["rna", "none"])
@pytest.mark.parametrize("name", PAPER)
def test_the_released_scripts_rows(name: str, noise: str):
    own, alpha, nu = PAPER[name]
    found = composed(f"experiment=official/{name}", f"noise={noise}")
    assert composed(*choice(name), "variant=official", f"noise={noise}") == found
    steps, lr = OFFICIAL_TRAIN.get(name.split("_")[0], (500, 5e-5))
    bio, cyber = OFFICIAL_ALPHA.get(name, alpha)
    assert {key: getattr(found.method, key) for key in own} == own
    assert found.alpha == {"bio": bio, "cyber": cyber}
    assert (found.train.steps, found.train.lr, found.train.batch_size, found.train.eps) == (steps, lr, 4, 1e-6)
    assert (found.variant, found.seed) == ("official", 42)
    assert (found.noise.name, found.noise.nu) == (("rna", nu) if noise == "rna" else ("none", 0.0))
    assert (found.layer.unlearn, found.layer.trained) == (7, [5, 6, 7])
    assert (found.model.name, found.data.name, found.eval.name) == ("zephyr_7b", "wmdp", "wmdp")
    assert (found.data.order, found.data.max_refusals) == ("file", 4)


def test_what_is_said_wins_over_the_released_scripts_numbers():
    said = composed("experiment=official/npo_kl", "seed=0", "train.eps=1e-8", "train.steps=7", "train.lr=0.5")
    assert (said.seed, said.train.eps, said.train.steps, said.train.lr) == (0, 1e-8, 7, 0.5)
    back = composed("experiment=official/simnpo_mse", "variant=paper")
    assert back == composed("experiment=paper/simnpo_mse")


@pytest.mark.whole
def test_the_released_scripts_seed_and_epsilon_hold_on_every_model():
    for model in ("demo", "smollm2_135m"):
        found = composed(f"model={model}", "variant=official")
        assert (found.seed, found.train.eps) == (42, 1e-6)
        plain = composed(f"model={model}")
        assert (plain.seed, plain.train.eps) == (0, 1e-8)


@pytest.mark.whole
def test_a_rows_numbers_go_along_to_another_model_and_with_another_retain_loss():
    other = composed("experiment=official/simnpo_mse", "model=qwen3_8b")
    assert (other.model.name, other.alpha, other.train.steps) == ("qwen3_8b", {"bio": 10.0, "cyber": 5.0}, 50)
    assert composed("experiment=paper/npo_mse", "retain=kl") == composed("experiment=paper/npo_kl")
    assert composed("experiment=paper/rmu", "method=none").method.name == "none"


TEXT = ("data=text", "data.topics.text.path=f.txt", "data.retain.path=r.txt")


@pytest.mark.parametrize(
    ("overrides", "alpha"),
    [
        (["experiment=paper/rmu", "retain.alpha.default=5"], (5, 5)),
        (["experiment=paper/npo_mse", "retain.alpha.bio=7"], (7, 20)),
        (["experiment=paper/npo_mse", "retain.alpha.bio=7", "retain.alpha.default=5"], (7, 5)),
        (["experiment=paper/npo_mse", "retain.alpha.default=0"], (0, 0)),
        (["tuned=demo/npo_kl"], (1, 1)),
        (["tuned=demo/npo_kl", "+tuned.alpha.bio=4"], (4, 1)),
        (["model=smollm2_135m", "data=wmdp"], (1, 1)),
    ],
    ids=str,
)
def test_alpha_is_the_topics_the_defaults_the_tuned_or_one(overrides: list[str], alpha: tuple[float, float]):
    assert composed(*overrides).alpha == {"bio": alpha[0], "cyber": alpha[1]}


@pytest.mark.whole
def test_tuned_weights_for_other_topics_are_no_guess_for_ones_own():
    message = r"^retain\.alpha\.text: .*tuned weights are for bio, cyber .*retain\.alpha\.default=NUMBER$"
    with pytest.raises(ValueError, match=message):
        composed("experiment=paper/npo_kl", *TEXT)
    with pytest.raises(ValueError, match=message):
        composed("model=zephyr_7b", *TEXT)
    assert composed("experiment=paper/npo_kl", *TEXT, "retain.alpha.default=3").alpha == {"text": 3.0}
    assert composed("experiment=paper/npo_kl", *TEXT, "retain.alpha.text=4").alpha == {"text": 4.0}
    assert composed("model=smollm2_135m", *TEXT).alpha == {"text": 1.0}
    assert composed("method=none", "model=zephyr_7b", *TEXT).alpha == {}


@pytest.mark.parametrize("said", ["tuned.alpha.default=abc", "tuned.alpha=abc"])
def test_a_tuned_weight_that_is_no_number_is_refused(said: str):
    with pytest.raises(ValueError, match=rf"^{said}: must be "):
        composed(said)


@pytest.mark.whole
def test_the_readmes_command_at_matched_forgetting_varies_alpha():
    readme = (CONF.parent / "rna" / "report" / "README.md").read_text(encoding="utf-8")
    words = re.findall(r"`python -m rna\.run -m (.*retain\.alpha\.default=\S+ .*)`", readme)[0].split()
    fixed = [word for word in words if "," not in word]
    values = next(word for word in words if word.startswith("retain.alpha")).partition("=")[2].split(",")
    assert len(set(values)) >= 3
    for setting in ((), SETTING):
        found = [composed(*fixed, *setting, f"retain.alpha.default={value}").alpha for value in values]
        assert found == [{"bio": float(value), "cyber": float(value)} for value in values]


@pytest.mark.whole
def test_official_says_what_it_reads_otherwise_than_composed(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = "variant=official: data.order=file in place of random, data.max_refusals=4 in place of null"
    assert composed("variant=official").notices == [line]
    assert composed().notices == []
    assert composed("variant=official", "data.order=file", "+data.max_refusals=4").notices == []
    few = composed("variant=official", "data.order=file", "+data.max_refusals=9")
    assert few.notices == ["variant=official: data.max_refusals=4 in place of 9"]
    told = composed("variant=official")
    silent = replace(told, notices=[])
    assert results.train_identity(told) == results.train_identity(silent)
    assert results.task_identities(told) == results.task_identities(silent)
    assert lookup.address_of(told) == lookup.address_of(silent)
    run.run(composed("variant=official", "method=none", "eval.limit=8", "wandb=disabled", f"output_dir={tmp_path}"))
    assert capsys.readouterr().err.count(line) == 1


def test_each_kind_of_preset_has_the_nine_rows():
    for kind in ("paper", "official"):
        assert {file.stem for file in (CONF / "experiment" / kind).glob("*.yaml")} == set(PAPER)
        for name in PAPER:
            preset = yaml.safe_load((CONF / "experiment" / kind / f"{name}.yaml").read_text())
            assert set(preset) == {"defaults"} | ({"variant"} if kind == "official" else set()), "numbers are in tuned"


def stand_in(folder: Path, architecture: str) -> str:
    """A random four-layer model of the architecture on disk, with a byte-level tokenizer that has no pad token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    words.train_from_iterator(["The following are multiple choice questions (with answers) about rivers."], trainer)
    made: Any = tiny.decoder(architecture, layers=4, vocab_size=300, max_position_embeddings=512).model
    made.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return str(folder)


def local_files(folder: Path) -> list[str]:
    """The overrides that point every source of the paper's setting at local files of its form."""
    folder.mkdir()

    def jsonl(name: str, rows: list[Any]) -> Path:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return folder / name

    texts = [{"text": f"the marsh fevers of the river number {number} are not geography"} for number in range(8)]
    subjects = ("anatomy", "college_biology", "computer_security", "virology")
    for subject in subjects:
        jsonl(f"mmlu/{subject}.jsonl", [row(number, subject) for number in range(5)])
    questions = [{key: value for key, value in row(number).items() if key != "subject"} for number in range(6)]
    jsonl("wmdp/wmdp-bio.jsonl", questions)
    jsonl("wmdp/wmdp-cyber.jsonl", questions[1:])
    return [
        f"data.topics.bio.path={jsonl('bio.jsonl', texts)}",
        f"data.topics.cyber.path={jsonl('cyber.jsonl', texts[::-1])}",
        f"data.retain.path={jsonl('retain.jsonl', texts[2:])}",
        f"eval.mmlu_path={folder / 'mmlu'}",
        f"eval.wmdp_path={folder / 'wmdp'}",
    ]


@pytest.mark.whole
@pytest.mark.parametrize("name", MODELS)
def test_every_model_runs_a_whole_trial_in_the_papers_setting(name: str, tmp_path: Path):
    architecture, layers, unlearn = MODELS[name]
    entry = yaml.safe_load((CONF / "model" / f"{name}.yaml").read_text())
    said = (CONF / "model" / f"{name}.yaml").read_text()
    assert (entry["num_layers"], entry["unlearn_layer"], entry["layer_path"]) == (layers, unlearn, "model.layers")
    assert "/" in entry["path"]
    assert "icence" in said or "Apache" in said
    assert entry["dtype"] == ("float32" if name == "smollm2_135m" else "bfloat16")
    settings = composed(
        f"model={name}",
        "data=wmdp",
        "eval=wmdp",
        "method=rmu",
        "train.steps=2",
        "retain.alpha.default=2",
        "wandb=disabled",
        f"output_dir={tmp_path / 'out'}",
        f"model.path={stand_in(tmp_path / 'model', architecture)}",
        "model.num_layers=4",
        "model.unlearn_layer=2",
        *local_files(tmp_path / "files"),
    )
    arm = trial.arm("with RNA", settings)
    trial.work(arm, lambda *_: None)
    assert arm.complete
    metrics = {task: record["metrics"] for task, record in arm.evaluated.items()}
    counts = {task: found["n"] for task, found in metrics.items()}
    assert counts == {
        "wmdp_bio": 6,
        "wmdp_cyber": 5,
        "mmlu": 20,
        "mmlu_perturbed": 20,
        "mmlu_neutral": 20,
        "college_biology": 5,
        "computer_security": 5,
        "wmdp_bio_perturbed": 6,
        "wmdp_cyber_perturbed": 5,
    }
    assert set(metrics["mmlu"]["categories"]) == {"stem", "other"}
    halves = metrics["mmlu"]["select"]["n"] + metrics["mmlu"]["report"]["n"]
    assert halves == 20
    assert metrics["college_biology"]["acc"] == metrics["mmlu"]["subjects"]["college_biology"]["acc"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=wmdp"], r"data.topics.bio.path=cais/wmdp-bio-forget-corpus: .*huggingface.co/datasets/cais/wmdp-bio"),
        (["eval=wmdp"], r"eval.wmdp_path=cais/wmdp: .*give eval.wmdp_path=FOLDER"),
        (["eval=mmlu"], r"eval.mmlu_path=cais/mmlu: .*give eval.mmlu_path=FOLDER"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_loaded(overrides: list[str], message: str, tmp_path: Path):
    settings = composed(*overrides, f"output_dir={tmp_path}", "retain.alpha.default=1")
    with pytest.raises(ValueError, match=message):
        run.run(settings)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("eval.backend=vllm", "vLLM is not installed"),
        ("eval.backend=tpu", "allowed: torch, vllm"),
        ("eval.replaced=4", "must be 1 to 3"),
        ("eval.policy=best", "allowed: random, first, last"),
        ("eval.split=half", "allowed: all, select, report"),
        ("variant=code", "allowed: paper, official"),
        ("data.order=any", "allowed: random, file"),
    ],
)
def test_options_that_do_not_exist_are_refused(override: str, message: str):
    with pytest.raises(ValueError, match=message):
        composed(override)


@pytest.mark.whole
@shared.needed
def test_real_mmlu_is_asked_plain_perturbed_and_neutral(tmp_path: Path):
    """A random tiny model on a stratified sample of the real questions: 12 subjects, no network."""
    from rna.decoder import model
    from rna.evaluation import evaluate

    path = stand_in(tmp_path / "m", "Llama")
    settings = composed("eval=mmlu", f"eval.mmlu_path={shared.MMLU}", "eval.limit=48")
    loaded = model.load(path, dtype="float32", device="cpu", revision=None)
    found = evaluate.multiple_choice(*loaded, list(settings.eval.tasks), settings.eval, lambda *_: None)
    assert {name: metrics["n"] for name, metrics in found.items() if name.startswith("mmlu")} == {
        "mmlu": 48,
        "mmlu_perturbed": 48,
        "mmlu_neutral": 48,
    }
    assert len(found["mmlu"]["subjects"]) == 12
