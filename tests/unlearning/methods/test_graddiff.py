"""GradDiff's loss and gradient against whole forwards; what it cannot be asked for."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from rna.decoder import model
from rna.settings.seeding import generator
from rna.unlearning.step import Step
from tests import tiny
from tests.setups import setup


def test_it_is_minus_the_mean_cross_entropy_of_each_sequence():
    """−CE of a sequence is its mean log-probability; sequences count alike, however long."""
    decoder = tiny.decoder()
    policy = model.masters(decoder, model.trained_names(decoder, (1, 2), "down_proj"))
    with torch.no_grad():
        for index, tensor in enumerate(policy.values()):
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator(index, "drift"))
    forget = tiny.batch(1, (4, 11, 6))
    step = Step(decoder, policy, setup("graddiff", "kl", {}), "bio", forget, tiny.batch(2), None)
    name, loss = next(iter(step))
    ours = torch.autograd.grad(loss, list(policy.values()))

    plain = {key: tensor.detach().clone().requires_grad_() for key, tensor in policy.items()}
    logits_BTV = torch.func.functional_call(
        decoder.model, plain, (forget.ids_BT,), {"attention_mask": forget.mask_BT.long()}
    ).logits
    expected = torch.zeros(())
    for row, mask_T in enumerate(forget.mask_BT):
        length = int(mask_T.sum())
        expected = expected - cross_entropy(logits_BTV[row, : length - 1], forget.ids_BT[row, 1:length]) / 3
    theirs = torch.autograd.grad(expected, list(plain.values()))
    assert name == "forget"
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for mine, plainly in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, plainly, rtol=1e-4, atol=1e-7)


def test_there_is_no_official_variant_of_it_and_no_retain_loss_at_a_layer(rna_here: Callable[..., str]):
    said = rna_here("method=graddiff", "variant=official", code=2)
    assert said == "error: variant=official: there is none of method=graddiff; allowed: paper\n"
    said = rna_here("method=graddiff", "retain=representation", code=2)
    assert said.startswith("error: retain_loss=representation: has no meaning with method=graddiff; allowed: kl, mse")
