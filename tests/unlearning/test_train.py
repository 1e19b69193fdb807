"""The loop: what moves, what does not, and what stops it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run
from rna.corpora import data
from rna.corpora.documents import Documents
from rna.decoder import model
from rna.settings import config
from rna.settings.fields import Settings
from rna.unlearning import losses, train
from rna.unlearning.step import direction
from tests import tiny

METHODS = [
    *(("rmu", "representation"), ("adaptive_rmu", "representation"), ("rsv", "representation")),
    *((method, retain) for method in ("npo", "simnpo", "dpo") for retain in ("mse", "kl")),
]
FEW = ("rmu", "npo", "dpo")  # a family each: steered, with a reference, with refusals; the others are for the night
SOME = [pytest.param(*pair, marks=() if pair[0] in FEW and pair[1] != "mse" else pytest.mark.slow) for pair in METHODS]


def settings(*overrides: str) -> Settings:
    return config.check(run.compose(["train.steps=4", "train.lr=0.01", *overrides], None))


def corpora() -> data.Corpora:
    def corpus(name: str, seed: int) -> data.Corpus:
        lengths = (9, 5, 7, 4, 8, 6)
        rows = [row[:size] for row, size in zip(tiny.batch(seed, lengths).ids_BT, lengths, strict=True)]
        documents = Documents(torch.cat(rows).int(), torch.tensor(lengths))
        return data.Corpus(name, documents, documents[:0], 0)

    return data.Corpora(
        {"bio": corpus("forget/bio", 1), "cyber": corpus("forget/cyber", 2)}, corpus("retain", 3), corpus("refusals", 4)
    )


def unlearn(made: Settings, decoder: model.Decoder | None = None) -> tuple[model.Deltas, list[dict[str, float]]]:
    curve: list[dict[str, float]] = []
    decoder = decoder or tiny.decoder(layers=4)
    read = corpora()
    if made.method.name != "dpo":
        read = data.Corpora(read.forget, read.retain, None)
    return train.train(made, decoder, train.feeds(made, read, 0), lambda _step, report: curve.append(report)), curve


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain_loss"), METHODS)
def test_only_the_chosen_tensors_change_and_the_model_not_at_all(method: str, retain_loss: str):
    decoder = tiny.decoder(layers=4)
    before = {name: tensor.clone() for name, tensor in decoder.model.named_parameters()}
    deltas, curve = unlearn(settings(f"method={method}", f"retain={retain_loss}"), decoder)
    assert sorted(deltas) == [f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1, 2)]
    assert all(not torch.equal(tensor, before[name]) for name, tensor in deltas.items())
    for name, tensor in decoder.model.named_parameters():
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None
    assert len(curve) == 4
    assert {"train/forget_loss", "train/retain_loss", "train/grad_norm", "train/forget_norm"} <= set(curve[0])


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain_loss"), SOME)
def test_same_seed_same_tensors_and_another_seed_others(method: str, retain_loss: str):
    common = (f"method={method}", f"retain={retain_loss}", "noise.nu=0.1")
    first, _ = unlearn(settings(*common))
    torch.rand(3)  # the global generator is nobody's business
    again, _ = unlearn(settings(*common))
    other, _ = unlearn(settings(*common, "seed=1"))
    for name in first:
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain_loss"), SOME)
def test_no_strength_is_no_noise_bit_for_bit(method: str, retain_loss: str):
    common = (f"method={method}", f"retain={retain_loss}")
    zero, _ = unlearn(settings(*common, "noise.nu=0"))
    none, _ = unlearn(settings(*common, "noise=none"))
    some, _ = unlearn(settings(*common, "noise.nu=0.5"))
    for name in zero:
        assert torch.equal(zero[name], none[name])
        assert not torch.equal(zero[name], some[name])


def test_a_seed_changes_direction_noise_refusals_and_order_each_by_its_own_name():
    decoder = tiny.decoder(layers=4)
    one, two = (train.prepare(settings("method=rmu", f"seed={seed}"), decoder) for seed in (0, 1))
    drawn = [
        direction(made.seed, topic, losses.control_vector, 16, torch.float32)
        for made, topic in ((one, "bio"), (two, "bio"), (one, "cyber"))
    ]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert one.noise is not None
    assert two.noise is not None
    zeros = torch.zeros(1, 2, 16)
    assert not torch.equal(one.noise(2, zeros), two.noise(2, zeros))
    feeds = [train.feeds(settings("method=dpo", f"seed={seed}"), corpora(), 0) for seed in (0, 1)]
    for pick in (lambda feed: feed.retain["bio"], lambda feed: feed.refusal, lambda feed: feed.forget["bio"]):
        first, second = ([next(pick(feed)).ids_BT.tolist() for _ in range(3)] for feed in feeds)
        assert first != second


def test_topics_alternate_and_each_has_its_own_alpha():
    made = settings("method=rmu", "retain.alpha.bio=2", "retain.alpha.cyber=3")
    assert made.alpha == {"bio": 2.0, "cyber": 3.0}
    _, curve = unlearn(made)
    weights = [(row["train/loss"] - row["train/forget_loss"]) / row["train/retain_loss"] for row in curve[1:]]
    assert weights == pytest.approx([3.0, 2.0, 3.0], rel=1e-4)


def test_a_loss_that_is_not_finite_stops_before_the_step():
    decoder = tiny.decoder(layers=4)
    with torch.no_grad():
        decoder.layers[1].mlp.up_proj.weight[0, 0] = float("nan")  # pyright: ignore
    with pytest.raises(train.NotFinite, match=r"forget_loss .* not finite at step 1"):
        unlearn(settings("method=rmu"), decoder)


def test_a_gradient_that_is_not_finite_stops_before_the_step(monkeypatch: pytest.MonkeyPatch):
    stepped: list[int] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda _self: stepped.append(1))
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))
    with pytest.raises(train.NotFinite, match="grad_norm"):
        unlearn(settings("method=rmu"))
    assert not stepped


def test_bfloat16_models_train_on_float32_copies_and_end_rounded():
    """A step of 1e-4 is lost on most bfloat16 weights near 0.3, but float32 copies add such steps up."""
    decoder = tiny.decoder(layers=4, dtype=torch.bfloat16)
    deltas, _ = unlearn(settings("method=rmu", "train.lr=1e-4", "train.steps=20"), decoder)
    own: dict[str, Any] = dict(decoder.model.named_parameters())
    for name, tensor in deltas.items():
        assert tensor.dtype == torch.bfloat16
        moved = (tensor != own[name]).float().mean()
        assert moved > 0.5


def test_deltas_survive_the_disk(tmp_path: Path):
    deltas, _ = unlearn(settings("method=rmu"))
    model.save_deltas(deltas, tmp_path / "a" / "unlearned.safetensors")
    back = model.load_deltas(tmp_path / "a" / "unlearned.safetensors")
    assert all(torch.equal(deltas[name], back[name]) for name in deltas)
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["unlearned.safetensors"]
