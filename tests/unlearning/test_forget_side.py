"""What is done where the forget loss is: sharpness-aware gradients, and weights of rare tokens."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rna.decoder import model
from rna.unlearning import losses, rare, sam, train
from rna.unlearning.checkpoint import Checkpoint
from rna.unlearning.step import Step
from tests import tiny
from tests.decoder.test_staged import trial
from tests.unlearning.test_checkpoint import STEPS, Killed, assert_equal, unlearn
from tests.unlearning.test_checkpoint import settings as resumed
from tests.unlearning.test_train import settings


def test_uphill_is_a_step_of_length_rho_along_all_gradients_together():
    policy = {name: torch.tensor(values).requires_grad_() for name, values in (("a", [1.0, 1.0]), ("b", [7.0]))}
    policy["a"].grad, policy["b"].grad = torch.tensor([2.0, 3.0]), torch.tensor([-6.0])  # of norm 7
    with sam.uphill(policy, 3.5):
        assert policy["a"].tolist() == [2.0, 2.5]
        assert policy["b"].tolist() == [4.0]
        assert policy["a"].grad is None
        (policy["a"] ** 2).sum().backward()
    assert policy["a"].tolist() == [1.0, 1.0]
    assert policy["b"].tolist() == [7.0]
    assert policy["a"].grad is not None
    assert policy["a"].grad.tolist() == [4.0, 5.0]
    with pytest.raises(KeyError), sam.uphill(policy, 1.0):
        raise KeyError
    assert policy["a"].tolist() == [1.0, 1.0]


def test_the_forget_gradient_is_taken_uphill_and_the_retain_gradient_where_the_policy_is():
    decoder = tiny.decoder()
    names = model.trained_names(decoder, (1, 2), "down_proj")
    parts = [(tiny.batch(1), tiny.batch(2)), (tiny.batch(3), tiny.batch(4))]  # two micro-batches, half each
    policy, made, rho, alpha = model.masters(decoder, names), trial("npo", "kl", ()), 0.05, 3.0

    def slopes(name: str) -> list[Tensor]:
        for tensor in policy.values():
            tensor.grad = None
        for forget, retain in parts:
            (dict(Step(decoder, policy, made, "bio", forget, retain, None))[name] / 2).backward()
        return [policy[one].grad for one in names]  # pyright: ignore[reportReturnType]

    own, retained, here = slopes("forget"), slopes("retain"), [policy[name].detach().clone() for name in names]
    size = torch.cat([slope.flatten() for slope in own]).norm()
    with torch.no_grad():
        for name, slope in zip(names, own, strict=True):
            policy[name] += rho * slope / size
    there = slopes("forget")
    with torch.no_grad():
        for name, tensor in zip(names, here, strict=True):
            policy[name].copy_(tensor)
            policy[name].grad = None
    steps = [Step(decoder, policy, made, "bio", forget, retain, None) for forget, retain in parts]
    backward = train.Backward(made, 1, alpha, 1.0)
    backward.sharpness_aware([(step, [0.5, 0.5]) for step in steps], policy, rho)
    for place, name in enumerate(names):
        wanted = there[place] + alpha * retained[place]
        torch.testing.assert_close(policy[name].grad, wanted, rtol=1e-4, atol=1e-6)
        assert not torch.allclose(there[place], own[place], rtol=1e-3, atol=1e-6)
        assert torch.equal(policy[name], here[place])
    value = sum(dict(Step(decoder, policy, made, "bio", *pair, None))["forget"].item() for pair in parts) / 2
    assert backward.values["forget"] == pytest.approx(value, rel=1e-5)  # where the policy is, not uphill


def test_a_token_counts_by_how_much_more_frequent_it_is_in_forget_texts():
    forget, retain = rare.frequencies([[[1, 5, 5, 6]], [[1, 6]]]), rare.frequencies([[[1, 6, 7]]])
    assert forget == Counter({1: 2, 5: 2, 6: 2})
    assert rare.weights(forget, retain).tolist() == pytest.approx([1, 0.5, 1, 1, 1, 1, 0.5, 0])


@pytest.mark.parametrize("packed", [False, True])
def test_weighted_log_probs_and_distances_are_weighted_means(packed: bool):
    decoder, batch = tiny.decoder(), tiny.batch(1)
    weights_BT = torch.rand(batch.ids_BT.shape, generator=torch.Generator().manual_seed(0))
    weighted = replace(batch, weights_BT=weights_BT)
    weighted = weighted.packed(0.0) if packed else weighted
    policy = model.masters(decoder, model.trained_names(decoder, (1, 2), "down_proj"))
    step = Step(decoder, policy, trial("npo", "kl", ()), "bio", weighted, batch, None)
    logits_BTV = decoder.model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT.long()).logits.log_softmax(-1)
    for mean in (True, False):
        found_B = step.log_probs("forget", mean=mean)
        torch.testing.assert_close(
            step.reference_log_probs("forget", mean=mean), found_B.detach(), rtol=1e-4, atol=1e-5
        )
        for row, size in enumerate((9, 5, 7)):
            ids, weight = batch.ids_BT[row, 1:size], weights_BT[row, 1:size]
            value = (weight * logits_BTV[row, : size - 1].gather(1, ids[:, None])[:, 0]).sum()
            assert found_B[row].item() == pytest.approx((value / weight.sum() if mean else value).item(), rel=1e-4)
    hidden_ND, target_D = step.hidden("forget"), torch.ones(16)
    weight_N = weights_BT[batch.mask_BT]
    wanted = (weight_N[:, None] * (hidden_ND - 1) ** 2).sum() / weight_N.sum() / 16
    assert step.distance(hidden_ND, target_D).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_weighted_mean_by_hand():
    hidden, target = torch.tensor([[1.0, 3.0], [0.0, 2.0]]), torch.tensor([0.0, 1.0])
    # of the tokens (1 + 4)/2 and (0 + 1)/2
    found = losses.weighted_representation_mse(hidden, target, torch.tensor([3.0, 1.0]))
    assert found.item() == pytest.approx((3 * 2.5 + 0.5) / 4)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("rmu", "forget_weights=rare"),
        ("npo", "optimizer=sam"),
        pytest.param("dpo", "forget_weights=rare", marks=pytest.mark.slow),
        pytest.param("dpo", "optimizer=sam", marks=pytest.mark.slow),
    ],
)
def test_a_training_differs_and_resumes_to_the_bit(method: str, option: str, tmp_path: Path):
    common = (f"method={method}", "train.grad_accumulation=2", "train.batch_size=2")
    made = resumed(*common, option)
    whole, plain = unlearn(made), unlearn(resumed(*common))
    assert all(not torch.equal(whole[0][name], plain[0][name]) for name in plain[0])
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, STEPS - 2)
    assert_equal(unlearn(made, checkpoint), whole)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["optimizer=sam", "variant=official"], "optimizer=sam: has no meaning with variant=official; allowed: adamw"),
        (["forget_weights=rare", "variant=official"], "forget_weights=rare: has no meaning with variant=official"),
        (["optimizer=sam", "optimizer.rho=0"], "optimizer.rho=0.0: must be a finite number > 0"),
    ],
)
def test_what_makes_no_sense_is_refused(overrides: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        settings("method=rmu", *overrides)
