"""Every method, retain loss and option, from the command line's words to one finished step."""

import itertools
from pathlib import Path

import pytest
import yaml

from rna import run
from rna.corpora import data
from rna.corpora.cache import Cache
from rna.decoder import model
from rna.settings import config
from rna.settings.fields import BUILTIN, CONF
from rna.unlearning import train
from tests.setups import PO_METHODS, RM_METHODS

PAIRS = [(name, "representation") for name in RM_METHODS] + list(itertools.product(PO_METHODS, ("mse", "kl")))


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain"), PAIRS)
def test_each_method_gets_its_own_tuned_values_and_what_is_said_wins(method: str, retain: str):
    tuned = yaml.safe_load((CONF / "tuned" / "demo" / f"{method}_{retain}.yaml").read_text())
    choice = [f"method={method}"] if retain == "representation" else [f"method={method}", f"retain_loss={retain}"]
    found = config.check(run.compose(choice, None))
    assert found.train.lr == float(tuned["train"]["lr"])
    assert found.train.steps == tuned["train"]["steps"]
    assert found.noise.nu == tuned["tuned"]["nu"]
    assert set(found.alpha.values()) == {tuned["tuned"]["alpha"]["default"]}
    for key, value in tuned.get("method", {}).items():
        assert getattr(found.method, key) == value
    said = config.check(run.compose([*choice, "train.lr=0.5", "noise.nu=0.7", "retain.alpha.default=9"], None))
    assert (said.train.lr, said.noise.nu, set(said.alpha.values())) == (0.5, 0.7, {9.0})


def test_another_model_never_gets_the_demo_values():
    found = config.check(run.compose(["model=smollm2_135m", "method=rmu"], None))
    assert found.train.lr == 5e-5
    assert found.method.coefficient == 6.5


@pytest.mark.whole
@pytest.mark.parametrize(
    "overrides",
    [
        *(pytest.param([f"method={method}", f"retain={retain}"], marks=pytest.mark.slow) for method, retain in PAIRS),
        *([f"layer={layer}"] for layer in ("default", "single", "all_tensors")),
        ["method=rmu", "layer.site=mlp"],
        ["noise=none"],
        ["noise.layers=all"],
        ["noise.layers=[0,3]"],
        ["noise.scale=variance"],
        ["method.log_prob=sum"],
        ["train.max_grad_norm=1.0"],
    ],
    ids=" ".join,
)
def test_every_option_runs_a_step_on_the_demo(overrides: list[str], demo: tuple[model.Decoder, object]):
    decoder, tokenizer = demo
    settings = config.check(run.compose([*overrides, "train.steps=1"], None))
    feeds = train.feeds(settings, data.load(settings, tokenizer, Cache(None, 0)), 0)
    deltas = train.train(settings, decoder, feeds, lambda _step, _report: None)
    assert len(deltas) == {"single": 1, "all_tensors": 27}.get(overrides[0].removeprefix("layer="), 3)


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_any_text_on_any_local_model_with_perplexity(kind: str, tmp_path: Path):
    """The demo's folder stands for a local model; its own words for a text."""
    import json

    import pyarrow
    import pyarrow.parquet

    from rna import trial

    texts = [json.loads(line)["text"] for line in (BUILTIN / "retain.jsonl").read_text().splitlines()][:60]
    texts = [text.replace("\n", " ") for text in texts]
    file = tmp_path / f"corpus.{kind}"
    if kind == "txt":
        file.write_text("\n".join(texts))
    elif kind == "jsonl":
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), file)
    settings = config.check(
        run.compose(
            [
                *("model=local", f"model.path={BUILTIN / 'base'}", "model.unlearn_layer=2", "model.threads=1"),
                *("data=text", f"data.topics.text.path={file}", f"data.retain.path={file}", "eval=perplexity"),
                *("train.steps=2", "wandb=disabled", f"output_dir={tmp_path}/out", "baseline=skip", "noise.nu=0.01"),
            ],
            None,
        )
    )
    rows = trial.arms(settings)
    for row in rows:
        trial.work(row, lambda _phase, _done, _total: None)
    assert [row.label for row in rows] == ["base", "with RNA"]
    for row in rows:
        metrics = row.evaluated["perplexity"]["metrics"]
        assert set(metrics) == {"forget_text", "retain", "retain_after", "perturbed", "neutral"}
        assert all(values["ppl"] > 1 and values["ppl_stderr"] > 0 for values in metrics.values())
    assert rows[0].evaluated["perplexity"]["metrics"]["retain"]["n"] == 6
