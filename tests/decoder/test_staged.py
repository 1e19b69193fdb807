"""The staged step equals the plain one, for every method, retain loss, noise placement and architecture."""

from typing import Any

import pytest
import torch

from rna.corpora.batch import Batch
from rna.decoder import model, packing
from rna.settings.seeding import generator
from rna.unlearning import losses
from rna.unlearning.noise import GaussianNoise, Normals
from rna.unlearning.step import Setup, Step
from tests import oracle, tiny
from tests.setups import setup

RM = {"rmu": {"coefficient": 6.5}, "adaptive_rmu": {"beta": 3.0}, "rsv": {"coefficient": 10.0}}
PO = {
    "npo": {"beta": 0.1, "log_prob": "mean"},
    "simnpo": {"beta": 0.1, "gamma": 0.2},
    "dpo": {"beta": 0.1, "log_prob": "sum"},
}
CASES = [(name, "representation") for name in RM] + [(name, retain) for name in PO for retain in ("mse", "kl")]


def trial(method: str, retain_loss: str, noise_layers: tuple[int, ...] = (2,), site: str = "residual") -> Setup:
    noise = GaussianNoise(0.3, noise_layers, Normals(0)) if noise_layers else None
    direction = losses.control_vector(16, generator(0, "direction"))
    options: dict[str, Any] = (RM | PO)[method]
    return setup(method, retain_loss, options, noise, {"bio": direction}, site=site)


Batches = tuple[Batch, Batch, Batch]
BATCHES: Batches = (tiny.batch(1), tiny.batch(2, (4, 11, 6)), tiny.batch(3, (3, 8, 5)))
PACKED: Batches = (  # in one row, in two rows, in one
    tiny.batch(1).packed(0.0),
    tiny.batch(2, (4, 6, 11)).packed(0.01),
    tiny.batch(3, (3, 8, 5)).packed(0.3, one_row=True),
)


def staged_gradients(
    decoder: model.Decoder,
    names: list[str],
    made: Setup,
    batches: Batches,
    alpha: float,
    *,
    recompute: bool = False,
) -> tuple[dict[str, float], model.Deltas]:
    policy = model.masters(decoder, names)
    with torch.no_grad():  # away from the reference, as after some steps of training
        for index, tensor in enumerate(policy.values()):
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator(index, "drift"))
    values = {}
    for name, loss in Step(decoder, policy, made, "bio", *batches, recompute=recompute):
        values[name] = loss.item()
        (loss if name == "forget" else alpha * loss).backward()
    gradients = {name: tensor.grad for name, tensor in policy.items()}
    torch.optim.AdamW(policy.values(), lr=1e-2, weight_decay=0.0).step()
    return values, gradients | {f"updated {name}": tensor.detach() for name, tensor in policy.items()}


def plain_gradients(
    decoder: model.Decoder, names: list[str], made: Setup, batches: tuple[Batch, Batch, Batch], alpha: float
) -> tuple[dict[str, float], model.Deltas]:
    plain = oracle.Plain.of(decoder.model, names)
    own = dict(plain.policy.named_parameters())
    with torch.no_grad():
        for index, name in enumerate(names):
            own[name] += 0.1 * torch.randn(own[name].shape, generator=generator(index, "drift"))
    forget, retain = oracle.losses(plain, made, "bio", *batches)
    (forget + alpha * retain).backward()
    gradients = {name: own[name].grad for name in names}
    torch.optim.AdamW([own[name] for name in names], lr=1e-2, weight_decay=0.0).step()
    updated = {f"updated {name}": own[name].detach() for name in names}
    return {"forget": forget.item(), "retain": retain.item()}, gradients | updated


def assert_same(
    decoder: model.Decoder,
    make: Any,
    *,
    layers: tuple[int, ...] = (1, 2),
    trainable: str = "down_proj",
    batches: Batches = BATCHES,
    recompute: bool = False,
):
    """Losses, gradients and the tensors after a step of AdamW, which moves each entry by about its sign alone: there
    an entry whose gradient is nothing but rounding may go either way."""
    names = model.trained_names(decoder, layers, trainable)
    staged, staged_tensors = staged_gradients(decoder, names, make(), batches, 5.0, recompute=recompute)
    plain, plain_tensors = plain_gradients(decoder, names, make(), batches, 5.0)
    assert staged == pytest.approx(plain, rel=2e-5)
    for name in names:
        gradient = plain_tensors[name]
        scale = gradient.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(staged_tensors[name], gradient, rtol=2e-4, atol=2e-5 * scale)
        clear = gradient.abs() > 1e-3 * scale
        updated = f"updated {name}"
        torch.testing.assert_close(staged_tensors[updated][clear], plain_tensors[updated][clear], rtol=0, atol=2e-4)


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


@pytest.mark.parametrize(("method", "retain_loss"), CASES)
def test_packed_batches_equal_the_plain_step(method: str, retain_loss: str):
    assert_same(tiny.decoder(), lambda: trial(method, retain_loss), batches=PACKED)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("attention", [None, "eager"])
def test_every_architecture_keeps_packed_documents_apart(architecture: str, attention: str | None):
    decoder = tiny.decoder(architecture, attn_implementation=attention)
    for pair in (("npo", "kl"), ("adaptive_rmu", "representation")):
        assert_same(decoder, lambda pair=pair: trial(*pair), batches=PACKED)
    assert packing.packer(decoder)(tiny.batch(0, (40, 2, 2, 2))).packing is not None


def test_packed_batches_with_noise_anywhere_windows_and_gradient_checkpointing():
    assert_same(tiny.decoder(), lambda: trial("npo", "mse", (0, 2, 3)), batches=PACKED, recompute=True)
    assert_same(tiny.decoder(), lambda: trial("rmu", "representation", (0, 1, 2)), batches=PACKED)
    assert_same(tiny.decoder(), lambda: trial("rsv", "representation", (2,), "mlp"), batches=PACKED)
    assert_same(tiny.decoder("Mistral", sliding_window=3), lambda: trial("npo", "kl"), batches=PACKED)


def test_a_model_that_mixes_packed_documents_reads_them_padded(capsys: pytest.CaptureFixture[str]):
    decoder = tiny.decoder()

    def mixed(_module: object, _inputs: object, hidden_BTD: torch.Tensor) -> torch.Tensor:
        return hidden_BTD.cumsum(1) / hidden_BTD.shape[1]  # as a recurrence would, whatever the positions

    decoder.layers[1].register_forward_hook(mixed)
    assert packing.packer(decoder)(tiny.batch(0, (40, 2, 2, 2))).packing is None
    assert "LlamaForCausalLM does not keep documents in one row apart" in capsys.readouterr().err


def test_tied_embeddings_and_sliding_window():
    assert_same(tiny.decoder("Llama", tie_word_embeddings=True), lambda: trial("npo", "kl"))
    assert_same(tiny.decoder("Mistral", sliding_window=3), lambda: trial("npo", "kl"))


def test_logits_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "CHUNK", {"cpu": 4 * tiny.VOCABULARY})
    assert_same(tiny.decoder("Gemma2"), lambda: trial("npo", "kl"))


def on_the_left(batch: Batch) -> Batch:
    """The same rows with their padding in front."""
    ids_BT, mask_BT = torch.zeros_like(batch.ids_BT), torch.zeros_like(batch.mask_BT)
    for row, mask in enumerate(batch.mask_BT):
        length = int(mask.sum())
        ids_BT[row, -length:] = batch.ids_BT[row, :length]
        mask_BT[row, -length:] = True
    return Batch(ids_BT, mask_BT)


@pytest.mark.parametrize("architecture", ["Llama", "Mistral", "Gemma2", "Phi3"])
def test_padding_on_the_left(architecture: str):
    batches = tuple(map(on_the_left, BATCHES))
    for pair in (("npo", "kl"), ("adaptive_rmu", "representation")):
        assert_same(tiny.decoder(architecture), lambda pair=pair: trial(*pair), batches=batches)  # pyright: ignore


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain_loss"), CASES)
def test_gradient_checkpointing_changes_no_bit(method: str, retain_loss: str):
    assert_same(tiny.decoder(), lambda: trial(method, retain_loss), recompute=True)
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    kept = staged_gradients(decoder, names, trial(method, retain_loss), BATCHES, 5.0)
    again = staged_gradients(decoder, names, trial(method, retain_loss), BATCHES, 5.0, recompute=True)
    assert kept[0] == again[0]
    assert all(torch.equal(kept[1][name], again[1][name]) for name in kept[1])


def test_hooks_of_a_device_map_stay_in_place():
    """accelerate replaces each layer's forward by one that moves its inputs; stepping over layers must leave it."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    plain, hooked = tiny.decoder(), tiny.decoder()
    for layer in hooked.layers:
        add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))
    forwards = [layer.forward for layer in hooked.layers]
    names = model.trained_names(plain, (1, 2), "down_proj")
    for method, retain_loss in CASES:
        made = [staged_gradients(d, names, trial(method, retain_loss), BATCHES, 5.0) for d in (plain, hooked)]
        assert made[0][0] == made[1][0]
        assert all(torch.equal(made[0][1][name], made[1][1][name]) for name in made[0][1])
    assert [layer.forward for layer in hooked.layers] == forwards


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
