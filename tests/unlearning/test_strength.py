"""Scales measured against the model's own hidden states, and warnings of strengths that cannot work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run
from rna.corpora import data
from rna.corpora.cache import Cache
from rna.settings import config
from rna.settings.fields import Settings
from rna.store import results
from rna.unlearning import strength
from tests import tiny


def composed(*overrides: str) -> Settings:
    return config.check(run.compose(list(overrides), None))


@pytest.fixture(scope="module")
def warned(demo: Any) -> Callable[..., list[str]]:
    """What a run of the demo is warned of; its documents are tokenised once."""
    decoder, tokenizer = demo
    config.register_resolvers()
    corpora = data.load(composed(), tokenizer, Cache(None, 0))

    def said(*overrides: str) -> list[str]:
        made = composed(*overrides)
        assert made.data == composed().data
        return strength.warnings(made, decoder, corpora, tokenizer.pad_token_id) + strength.keyword_warnings(made)

    return said


def test_token_norms_are_those_of_the_real_tokens_of_the_models_own_hidden_states():
    decoder, batch = tiny.decoder(), tiny.batch(0)
    documents = [ids[mask].tolist() for ids, mask in zip(batch.ids_BT, batch.mask_BT, strict=True)]
    found = strength.token_norms(decoder, documents, [1, 3], 0)
    own = decoder.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long(), output_hidden_states=True)
    for layer in (1, 3):
        torch.testing.assert_close(found[layer], own.hidden_states[layer + 1][batch.mask_BT].norm(dim=-1))


def test_a_dimensions_root_mean_square_is_the_middle_tokens():
    """Norms of 1, 3 and 500 in 9 dimensions: 3/√9 = 1."""
    assert strength.root_mean_square(torch.tensor([500.0, 3.0, 1.0]), 9) == 1.0


@pytest.mark.whole
@pytest.mark.parametrize("noise", ["rna", "early", "all_layers", "none"])
@pytest.mark.parametrize("method", ["rmu", "adaptive_rmu", "rsv", "npo"])  # the other two have no aim, as npo
def test_no_default_of_the_demo_is_warned_of(method: str, noise: str, warned: Callable[..., list[str]]):
    assert warned(f"method={method}", f"noise={noise}") == []


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (
            ("method=rmu", "method.coefficient=0.1"),
            "0.13 times the norm of the forget tokens at layer 2 (0.772), below 0.25",
        ),
        (("method=rmu", "method.coefficient=100"), "above 100 times"),
        (("method=rsv", "method.coefficient=0.05"), "below 0.1 times"),
        (("method=adaptive_rmu", "method.beta=0.01"), "below 0.25 of the token's own norm"),
        (("noise.nu=5e-4",), "0.73 % of a dimension's root mean square there (0.069), below 1 %"),
        (("noise.nu=0.22",), "above 300 %"),
        (("noise.nu=4e-7", "noise.scale=variance"), "0.92 % of"),
        (("noise=relative", "noise.nu=4"), "400 % of the layers' root mean square, above 300 %"),
        (("eval.keyword=ozone",), "eval.keyword=ozone: nowhere in the forget texts (forget_bio.jsonl, forget_cyber"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(overrides: tuple[str, ...], says: str, warned: Callable[..., list[str]]):
    (line,) = warned(*overrides)
    assert says in line
    assert line.startswith(overrides[-1].partition("=")[0] if "scale" not in overrides[-1] else "noise.nu=4e-07")


def test_noise_on_several_layers_is_warned_of_only_where_it_fits_none(warned: Callable[..., list[str]]):
    """3 times the root mean squares are 0.21 and 0.23."""
    assert warned("noise.nu=0.22", "noise.layers=[2,3]") == []
    (line,) = warned("noise.nu=10", "noise.layers=[2,3]")
    assert "above 300 %" in line


def text(tmp_path: Path, *overrides: str) -> Settings:
    (tmp_path / "forget.txt").write_text("The SARS‐CoV @-@ 2 virus .\nLake Garda is deep.\n")
    paths = [f"data.topics.text.path={tmp_path}/forget.txt", f"data.retain.path={tmp_path}/forget.txt"]
    return composed("data=text", "eval=perplexity", *paths, *overrides)


def test_keywords_are_found_whatever_their_case_and_the_marks_between_their_words(tmp_path: Path):
    assert strength.keyword_warnings(text(tmp_path)) == []
    assert strength.keyword_warnings(text(tmp_path, "eval.keyword=lake garda")) == []
    assert strength.keyword_warnings(text(tmp_path, "eval.keyword=gard")) != []
    (line,) = strength.keyword_warnings(text(tmp_path, "eval.keywords=[virus,anthrax,is deep,smallpox]"))
    assert line.startswith("eval.keywords=anthrax, smallpox: nowhere in the forget texts (forget.txt)")


def test_what_asks_no_keyword_is_not_warned_of_one(tmp_path: Path):
    assert strength.keyword_warnings(text(tmp_path, "eval.keyword=anthrax", "method=none")) == []
    assert strength.keyword_warnings(text(tmp_path, "eval.keyword=anthrax", "train_only=true")) == []


@pytest.mark.whole
def test_warnings_are_printed_before_training_and_kept_in_the_record(tmp_path: Path, rna_here: Callable[..., str]):
    words = ["method=rmu", "method.coefficient=0.01", "eval.keyword=ozone", "train.steps=1", "eval.limit=4"]
    words += ["baseline=skip", "wandb=disabled", f"output_dir={tmp_path}", "model.retrained=null"]
    printed = rna_here(*words)
    (line,) = [line for line in printed.splitlines() if "method.coefficient=0.01:" in line]
    assert line.startswith("with RNA: warning: ")
    assert printed.index(line) < printed.index("with RNA: training 1/1")
    assert "warning: eval.keyword=ozone: nowhere" in printed[: printed.index("loading")]
    key = results.train_key(results.train_identity(composed(*words)))
    record = results.read(str(tmp_path), key)
    assert record is not None
    assert record["warnings"] == [line.removeprefix("with RNA: warning: ")]
    assert "ozone" in record["config"]["notices"][0]
    assert "warning:" not in rna_here(*words)  # nothing is trained
