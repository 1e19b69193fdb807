"""The staged step equals the plain one, for every method, retain loss, noise placement and architecture."""

from typing import Any

import pytest
import torch

from rna import losses, model
from rna.batch import Batch
from rna.methods import StepLosses, Trial
from rna.noise import GaussianNoise
from rna.seeding import generator
from tests import oracle, tiny

RM = {"rmu": {"coefficient": 6.5}, "adaptive_rmu": {"beta": 3.0}, "rsv": {"coefficient": 10.0}}
PO = {
    "npo": {"beta": 0.1, "log_prob": "mean"},
    "simnpo": {"beta": 0.1, "gamma": 0.2},
    "dpo": {"beta": 0.1, "log_prob": "sum"},
}
CASES = [(name, "representation") for name in RM] + [(name, retain) for name in PO for retain in ("mse", "kl")]


def trial(method: str, retain_loss: str, noise_layers: tuple[int, ...] = (2,), site: str = "residual") -> Trial:
    noise = GaussianNoise(0.3, noise_layers, generator(0, "noise")) if noise_layers else None
    direction = losses.control_vector(16, generator(0, "direction"))
    options: dict[str, Any] = (RM | PO)[method]
    return Trial(method, retain_loss, options, 2, 1, site, noise, {"bio": direction})


def staged_gradients(
    decoder: model.Decoder, names: list[str], made: Trial, batches: tuple[Batch, Batch, Batch], alpha: float
) -> tuple[dict[str, float], model.Deltas]:
    policy = model.masters(decoder, names)
    with torch.no_grad():  # away from the reference, as after some steps of training
        for index, tensor in enumerate(policy.values()):
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator(index, "drift"))
    values = {}
    for name, loss in StepLosses(decoder, policy, made, "bio", *batches):
        values[name] = loss.item()
        (loss if name == "forget" else alpha * loss).backward()
    return values, {name: tensor.grad for name, tensor in policy.items()}


def plain_gradients(
    decoder: model.Decoder, names: list[str], made: Trial, batches: tuple[Batch, Batch, Batch], alpha: float
) -> tuple[dict[str, float], model.Deltas]:
    plain = oracle.Plain.of(decoder.model, names)
    own = dict(plain.policy.named_parameters())
    with torch.no_grad():
        for index, name in enumerate(names):
            own[name] += 0.1 * torch.randn(own[name].shape, generator=generator(index, "drift"))
    forget, retain = oracle.losses(plain, made, "bio", *batches)
    (forget + alpha * retain).backward()
    return {"forget": forget.item(), "retain": retain.item()}, {name: own[name].grad for name in names}


def assert_same(decoder: model.Decoder, make: Any, *, layers: tuple[int, ...] = (1, 2), trainable: str = "down_proj"):
    names = model.trained_names(decoder, layers, trainable)
    batches = (tiny.batch(1), tiny.batch(2, (4, 11, 6)), tiny.batch(3, (3, 8, 5)))
    staged, staged_grads = staged_gradients(decoder, names, make(), batches, 5.0)
    plain, plain_grads = plain_gradients(decoder, names, make(), batches, 5.0)
    assert staged == pytest.approx(plain, rel=2e-5)
    for name in names:
        scale = plain_grads[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(staged_grads[name], plain_grads[name], rtol=2e-4, atol=2e-5 * scale)


@pytest.mark.parametrize(("method", "retain_loss"), CASES)
def test_every_method_equals_the_plain_step(method: str, retain_loss: str):
    assert_same(tiny.decoder(), lambda: trial(method, retain_loss))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize(("method", "retain_loss"), [("adaptive_rmu", "representation"), ("npo", "kl")])
def test_every_architecture_equals_the_plain_step(architecture: str, method: str, retain_loss: str):
    assert_same(tiny.decoder(architecture), lambda: trial(method, retain_loss))


@pytest.mark.parametrize("layers", [(), (0,), (1,), (4,), (0, 2, 3), (0, 1, 2, 3, 4)])
def test_every_noise_placement_equals_the_plain_step(layers: tuple[int, ...]):
    assert_same(tiny.decoder(), lambda: trial("npo", "mse", layers))


@pytest.mark.parametrize("noise_layers", [(0,), (0, 1, 2)])
def test_noise_below_the_unlearn_layer_in_rm(noise_layers: tuple[int, ...]):
    assert_same(tiny.decoder(), lambda: trial("rmu", "representation", noise_layers))


def test_mlp_site_and_all_tensors():
    assert_same(tiny.decoder(), lambda: trial("rmu", "representation", (2,), "mlp"))
    assert_same(tiny.decoder(), lambda: trial("dpo", "kl"), trainable="all")


def test_tied_embeddings_and_sliding_window():
    assert_same(tiny.decoder("Llama", tie_word_embeddings=True), lambda: trial("npo", "kl"))
    assert_same(tiny.decoder("Mistral", sliding_window=3), lambda: trial("npo", "kl"))


def test_logits_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "CHUNK", 4)
    assert_same(tiny.decoder("Gemma2"), lambda: trial("npo", "kl"))


def test_padding_changes_nothing():
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    batches = (tiny.batch(1), tiny.batch(2, (4, 11, 6)), tiny.batch(3))

    def longer(batch: Batch) -> Batch:
        rows = len(batch.ids_BT)
        ids_BT = torch.cat([batch.ids_BT, torch.full((rows, 3), 7)], 1)
        return Batch(ids_BT, torch.cat([batch.mask_BT, torch.zeros(rows, 3, dtype=torch.bool)], 1))

    padded = tuple(map(longer, batches))
    for method, retain_loss in CASES:
        values, gradients = staged_gradients(decoder, names, trial(method, retain_loss, ()), batches, 1.0)
        again, same = staged_gradients(decoder, names, trial(method, retain_loss, ()), padded, 1.0)  # pyright: ignore
        assert values == pytest.approx(again, rel=1e-5)
        torch.testing.assert_close(gradients, same, rtol=1e-4, atol=1e-6)


def test_noise_reaches_the_retain_reference_alone():
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    batches = (tiny.batch(1), tiny.batch(2), tiny.batch(3))
    for method, retain_loss in CASES:
        quiet, _ = staged_gradients(decoder, names, trial(method, retain_loss, ()), batches, 1.0)
        noisy, _ = staged_gradients(decoder, names, trial(method, retain_loss), batches, 1.0)
        assert noisy["forget"] == quiet["forget"]
        assert noisy["retain"] != quiet["retain"]


def test_an_architecture_that_cannot_be_split_is_refused_by_name():
    import transformers

    config = transformers.GPT2Config(n_layer=2, n_embd=8, n_head=2, vocab_size=32)
    with pytest.raises(ValueError, match="GPT2LMHeadModel cannot be split"):
        model.split(transformers.GPT2LMHeadModel(config))


def test_self_check_passes_and_catches_a_forward_that_differs():
    decoder = tiny.decoder()
    model.self_check(decoder, tiny.batch(0))
    decoder.head.register_forward_hook(lambda _m, _i, out: out)
    scaled = model.Decoder(**{**decoder.__dict__, "softcap": 0.5})
    with pytest.raises(ValueError, match="LlamaForCausalLM differs"):
        model.self_check(scaled, tiny.batch(0))


def test_installed_swaps_the_tensors_in_and_out():
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    own = dict(decoder.model.named_parameters())
    before = {name: tensor.clone() for name, tensor in own.items()}
    deltas = {name: own[name] + 1 for name in names}
    with model.installed(decoder, deltas):
        for name, tensor in own.items():
            torch.testing.assert_close(tensor, deltas.get(name, before[name]))
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, before[name])
