"""Noise as a fraction of a layer's root mean square, and regions that scale with depth."""

import copy

import pytest
import torch
from torch.testing import assert_close

from rna import run
from rna.corpora import data
from rna.corpora.cache import Cache
from rna.decoder import model
from rna.demo import build
from rna.settings import config
from rna.unlearning import train
from tests import tiny

FACTOR = 4.0


def settings(*overrides: str):
    return config.check(run.compose(["train.steps=4", "wandb=disabled", *overrides], None))


@pytest.fixture(scope="module")
def rescaled(demo):
    """The demo's base with a residual stream four times as large, and the same outputs."""
    decoder, _ = demo
    other = copy.deepcopy(decoder.model)
    assert build.rescale(other, build.TARGET_RMS / FACTOR) == FACTOR
    return model.split(other)


def test_the_root_mean_square_is_that_of_real_tokens():
    decoder = tiny.decoder()
    documents = [[5, 6, 7, 8], [9, 10], *([[11, 12, 13]] * 20)]
    found = model.root_mean_squares(decoder, documents, [1, 3], 0)
    for layer in (1, 3):
        rows = [
            decoder.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer + 1][0]
            for ids in documents
        ]
        assert found[layer] == pytest.approx(torch.cat(rows).square().mean().sqrt().item(), rel=1e-5)


@pytest.mark.slow
def test_relative_noise_has_the_layers_own_scale(demo, rescaled):
    decoder, tokenizer = demo
    chosen = settings("noise=relative", "noise.nu=0.5", "noise.layers=[1,2]")
    corpora = data.load(chosen, tokenizer, Cache(None, 0))
    retain = next(iter(train.feeds(chosen, corpora, tokenizer.pad_token_id).retain.values()))
    std, std_rescaled = (train.prepare(chosen, one, retain).noise.std for one in (decoder, rescaled))  # pyright: ignore
    own = model.root_mean_squares(decoder, corpora.retain.documents[:256], [2], tokenizer.pad_token_id)[2]
    assert std[2] == pytest.approx(0.5 * own)
    assert std_rescaled == {layer: FACTOR * value for layer, value in std.items()}
    assert std[1] != std[2]
    noise = train.prepare(chosen, decoder, retain).noise
    drawn = noise(1, torch.zeros(200, 20, 20)).std().item()
    assert drawn == pytest.approx(std[1], rel=0.02)


@pytest.mark.whole
def test_the_same_fraction_is_the_same_trial_at_any_scale(demo, rescaled):
    """Losses to the bit, tensors up to the factor: AdamW's step does not scale by itself, so its rate is scaled."""
    decoder, tokenizer = demo
    found = []
    for one, factor in ((decoder, 1.0), (rescaled, FACTOR)):
        chosen = settings("noise=relative", "retain=kl", f"train.lr={3e-5 * factor}", f"train.eps={1e-8 / factor}")
        feeds = train.feeds(chosen, data.load(chosen, tokenizer, Cache(None, 0)), tokenizer.pad_token_id)
        losses = []
        deltas = train.train(chosen, one, feeds, lambda _, report, losses=losses: losses.append(report["train/loss"]))
        found.append((losses, deltas))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    for name, tensor in found[0][1].items():
        assert_close(found[1][1][name], FACTOR * tensor, rtol=1e-3, atol=1e-5)


def test_relative_noise_is_a_trial_of_its_own():
    from rna.store import results

    relative, absolute = settings("noise=relative", "noise.nu=0.014"), settings("noise.nu=0.014")
    keys = {results.train_key(results.train_identity(one)) for one in (relative, absolute)}
    assert len(keys) == 2
    assert settings("noise=relative").noise.nu == 0.2  # never the model's tuned value, which is in other units


def test_relative_noise_reads_the_stream_alone():
    with pytest.raises(ValueError, match="noise=relative: measures the residual stream"):
        settings("method=rmu", "noise=relative", "layer.site=mlp")


@pytest.mark.parametrize(
    ("depth", "early", "middle", "late"),
    [
        (32, [5, 6, 7], [14, 15, 16], [28, 29, 30]),  # the paper's own
        (80, [12, 13, 14, 15, 16, 17, 18, 19], list(range(35, 43)), list(range(70, 78))),
        (4, [0], [1], [3]),
        (2, [0], [0], [1]),
    ],
)
def test_regions_scale_with_depth(depth, early, middle, late):
    assert [config.region(name, depth) for name in ("early", "middle", "late")] == [early, middle, late]


@pytest.mark.parametrize(
    ("preset", "layers"), [("early", [0]), ("middle", [1]), ("late", [3]), ("all_layers", [0, 1, 2, 3])]
)
def test_presets_name_the_regions(preset, layers):
    found = settings(f"noise={preset}").noise
    assert (found.name, found.layers) == ("rna", layers)


def test_a_region_that_rm_never_reads_is_refused():
    with pytest.raises(ValueError, match="noise above it has no effect"):
        settings("method=rmu", "noise=late")
    with pytest.raises(ValueError, match="did you mean 'early'"):
        settings("noise.layers=erly")
