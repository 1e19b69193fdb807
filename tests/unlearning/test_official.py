"""The variant `official`: each point in which the authors' released code differs, on a tiny input."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from rna import run
from rna.corpora import data
from rna.corpora.batch import Batch, pad
from rna.corpora.cache import Cache
from rna.decoder import model
from rna.settings import config
from rna.settings.fields import BUILTIN, Settings
from rna.settings.seeding import generator
from rna.unlearning import losses, train
from rna.unlearning.noise import GaussianNoise, Normals
from rna.unlearning.released import ReleasedAdamW
from rna.unlearning.step import Setup, Step
from tests import released, tiny
from tests.setups import setup
from tests.unlearning import test_train

DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19]]
OPTIONS = {
    "rmu": {"coefficient": 6.5},
    "adaptive_rmu": {"beta": 3.0},
    "npo": {"beta": 0.1, "log_prob": "mean"},
    "simnpo": {"beta": 0.1, "gamma": 0.7},
    "dpo": {"beta": 0.1, "log_prob": "mean"},
}
BEHIND = tiny.VOCABULARY - 1  # the pad token


def trial(method: str, retain_loss: str, *, official: bool = True, nu: float = 0.0) -> Setup:
    noise = GaussianNoise(nu, (2,), Normals(0), official) if nu else None
    direction = losses.control_vector(16, generator(0, "direction"))
    return setup(method, retain_loss, OPTIONS[method], noise, {"bio": direction}, official=official)


def policy(decoder: model.Decoder) -> model.Deltas:
    made = model.masters(decoder, model.trained_names(decoder, (1, 2), "down_proj"))
    with torch.no_grad():
        for index, tensor in enumerate(made.values()):
            tensor += 0.1 * torch.randn(tensor.shape, generator=generator(index, "drift"))
    return made


def step(method: str, retain_loss: str, *, official: bool = True) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """The losses, and the gradient of the forget loss."""
    decoder = tiny.decoder()
    deltas = policy(decoder)
    batch = pad(DOCUMENTS, BEHIND, official=official)
    values, gradients = {}, {}
    made = trial(method, retain_loss, official=official)
    for name, loss in Step(decoder, deltas, made, "bio", batch, batch, batch):
        values[name] = loss.item()
        if name == "forget":
            grads = torch.autograd.grad(loss, list(deltas.values()))
            gradients = dict(zip(deltas, grads, strict=True))
    return values, gradients


def plain_logits(decoder: model.Decoder, deltas: model.Deltas, batch: Batch, *, masked: bool) -> torch.Tensor:
    with model.installed(decoder, deltas), torch.no_grad():
        mask = released.attention(batch.mask_BT.long(), torch.float32) if masked else None
        return decoder.model(input_ids=batch.ids_BT, attention_mask=mask).logits


def mean_log_prob(logits_BTV: torch.Tensor, ids_BT: torch.Tensor) -> torch.Tensor:
    """Minus the mean cross entropy of all next tokens of the batch, padding included."""
    return -torch.nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())


def test_padding_is_on_the_left_and_counts():
    batch = pad(DOCUMENTS, BEHIND, official=True)
    assert batch.ids_BT.tolist()[1] == [BEHIND] * 4 + [12, 13, 14]
    assert batch.mask_BT.tolist()[1] == [False] * 4 + [True] * 3
    assert batch.tokens == 21
    assert pad(DOCUMENTS, BEHIND).tokens == 15


def test_log_probs_are_one_scalar_over_the_whole_batch_and_the_reference_sees_no_mask():
    decoder = tiny.decoder()
    batch = pad(DOCUMENTS, BEHIND, official=True)
    log_prob = mean_log_prob(plain_logits(decoder, policy(decoder), batch, masked=True), batch.ids_BT)
    reference = mean_log_prob(plain_logits(decoder, {}, batch, masked=False), batch.ids_BT)
    masked = mean_log_prob(plain_logits(decoder, {}, batch, masked=True), batch.ids_BT)
    assert abs(reference - masked) > 1e-3
    expected = -(2 / 0.1) * logsigmoid(-0.1 * (log_prob - reference))
    assert step("npo", "kl")[0]["forget"] == pytest.approx(expected.item(), rel=1e-5)
    assert step("npo", "kl", official=False)[0]["forget"] != pytest.approx(expected.item(), rel=1e-3)


def test_dpo_is_npo_in_value_and_gradient_and_the_papers_is_not():
    (npo, npo_gradient), (dpo, dpo_gradient) = step("npo", "mse"), step("dpo", "mse")
    assert npo == dpo
    assert all(torch.equal(npo_gradient[name], dpo_gradient[name]) for name in npo_gradient)
    (npo, npo_gradient), (dpo, dpo_gradient) = (step(method, "mse", official=False) for method in ("npo", "dpo"))
    assert npo["forget"] != pytest.approx(dpo["forget"], rel=1e-3)
    assert not any(torch.allclose(npo_gradient[name], dpo_gradient[name], rtol=1e-2) for name in npo_gradient)


def test_simnpo_has_no_margin():
    decoder = tiny.decoder()
    batch = pad(DOCUMENTS, BEHIND, official=True)
    log_prob = mean_log_prob(plain_logits(decoder, policy(decoder), batch, masked=True), batch.ids_BT)
    expected = -(2 / 0.1) * logsigmoid(-0.1 * log_prob)
    assert step("simnpo", "kl")[0]["forget"] == pytest.approx(expected.item(), rel=1e-5)


def test_adaptive_rmu_takes_its_coefficient_once_from_the_policy():
    decoder = tiny.decoder()
    deltas, made = policy(decoder), trial("adaptive_rmu", "representation")
    batch = pad(DOCUMENTS, BEHIND, official=True)
    other = pad(DOCUMENTS[::-1], 3, official=True)
    with torch.no_grad():
        stream = model.stream_at(decoder, model.embed(decoder, batch), 2, policy=deltas)
    expected = 3.0 * stream.norm(dim=-1).mean()  # over padding, too
    for forget in (batch, other):
        dict(Step(decoder, deltas, made, "bio", forget, batch, None))
        assert made.kept["bio"] == pytest.approx(expected.item(), rel=1e-5)


def test_its_coefficient_survives_an_interruption(tmp_path: Path):
    from rna.unlearning.checkpoint import Checkpoint
    from tests.unlearning.test_checkpoint import Killed, assert_equal, settings, unlearn

    made = settings("method=adaptive_rmu", "variant=official")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "k")
    with pytest.raises(Killed):
        unlearn(made, checkpoint, 5)
    assert_equal(unlearn(made, checkpoint), unlearn(made))


@pytest.mark.parametrize(("method", "retain_loss"), [("rmu", "representation"), ("npo", "mse"), ("npo", "kl")])
def test_retain_means_include_padding(method: str, retain_loss: str):
    """With a batch without padding the two variants agree, with a ragged one they do not (bfloat16 aside)."""
    decoder = tiny.decoder()

    def retain(documents: list[list[int]], *, official: bool) -> float:
        batch = pad(documents, BEHIND, official=official)
        made = trial(method, retain_loss, official=official)
        return dict(Step(decoder, policy(decoder), made, "bio", batch, batch, batch))["retain"].item()

    even = [document[:3] for document in DOCUMENTS]
    assert retain(even, official=True) == pytest.approx(retain(even, official=False), rel=0.1)
    assert retain(DOCUMENTS, official=True) != pytest.approx(retain(DOCUMENTS, official=False), rel=0.05)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_may_see_nothing_sees_everything(attention: str, dtype: torch.dtype):
    """Padding in front would see nothing: kernels answer with zeros, uniform attention or NaN. Here it sees all tokens,
    as in transformers 4.46 on a GPU, on every device; what real tokens see stays as it was."""
    decoder = tiny.decoder(dtype=dtype, attn_implementation=attention)
    batch = pad(DOCUMENTS, BEHIND, official=True)
    ours = model.advance(decoder, model.embed(decoder, batch), 5).hidden_BTD
    assert ours.isfinite().all()
    mask = released.attention(batch.mask_BT.long(), dtype)
    with torch.no_grad():
        theirs = decoder.base(input_ids=batch.ids_BT, attention_mask=mask).last_hidden_state
    close = {"rtol": 2**-6, "atol": 2**-6} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(decoder.norm(ours), theirs, **close)
    unruled = model.embed(decoder, Batch(batch.ids_BT, batch.mask_BT))
    other = model.advance(decoder, unruled, 5).hidden_BTD
    torch.testing.assert_close(ours[batch.mask_BT], other[batch.mask_BT], **close)
    assert not torch.allclose(ours[~batch.mask_BT], other[~batch.mask_BT], rtol=0.1)


def test_flash_attention_skips_padding_and_is_refused():
    made = run.compose(
        ["variant=official", "model.attn_implementation=flash_attention_2", "model.dtype=bfloat16"], None
    )
    with pytest.raises(
        ValueError, match=r"skips padding, which counts in variant=official; allowed there: sdpa, eager"
    ):
        config.check(made)


def test_adamw_adds_epsilon_before_the_bias_correction():
    """Equal to torch's AdamW with ε/√(1 − β₂ᵗ) at step t; with ε itself a small gradient steps much further."""
    lr, eps = 1e-3, 1e-6
    for size in (1e-5, 1e-6):
        tensors = [torch.zeros(3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        ours = ReleasedAdamW([tensors[0]], lr=lr, eps=eps)
        same, other = (torch.optim.AdamW([one], lr=lr, eps=eps, weight_decay=0.0) for one in tensors[1:])
        for step in range(1, 6):
            same.param_groups[0]["eps"] = eps / (1 - 0.999**step) ** 0.5
            for tensor, optimizer in zip(tensors, (ours, same, other), strict=True):
                tensor.grad = size * torch.tensor([1.0, -2.0, 0.5 * step], dtype=torch.float64)
                optimizer.step()
            torch.testing.assert_close(tensors[0], tensors[1], rtol=1e-9, atol=0)
            if step == 1:
                ratio = (tensors[2] / tensors[0])[0].item()
                assert ratio == pytest.approx({1e-5: 3.78, 1e-6: 16.3}[size], rel=0.01)


def test_topics_share_their_retain_batches():
    """Steps 2k and 2k+1 take retain batch k; the default goes on through the retain set."""
    corpora = test_train.corpora()
    taken = {}
    for variant in ("official", "paper"):
        made = test_train.settings("method=rmu", f"variant={variant}", "data.order=file", "train.batch_size=2")
        feeds = train.feeds(made, corpora, 0)
        steps = [next(feeds.retain[topic]) for topic in ("bio", "cyber", "bio", "cyber")]
        taken[variant] = [
            [ids[mask].tolist() for ids, mask in zip(one.ids_BT, one.mask_BT, strict=True)] for one in steps
        ]
    documents = list(corpora.retain.documents)
    assert taken["official"] == [documents[:2], documents[:2], documents[2:4], documents[2:4]]
    assert taken["paper"] == [documents[:2], documents[2:4], documents[4:6], documents[:2]]


def texts(tmp_path: Path, method: str, topic: str) -> list[str]:
    """What a topic's file gives: lines with odd ends, short and blank ones."""
    rows = ['{"text": "  a longer text  "}', '{"text": "four"}', '{"text": "    "}', '{"text": ""}']
    (tmp_path / "f.jsonl").write_bytes("\n".join([*rows, ""]).encode())
    made = settings(f"method={method}", f"data.topics.{topic}.path={tmp_path / 'f.jsonl'}")
    return list(data.read_texts(made.data.topics[topic], "k"))


def test_texts_are_stripped_cut_and_left_out_as_by_the_released_loaders(tmp_path: Path):
    assert texts(tmp_path, "rsv", "bio") == ["a longer text"]
    assert texts(tmp_path, "rmu", "bio") == ["  a longer text  "]  # a minimum of more than four characters
    assert texts(tmp_path, "npo", "bio") == ["  a longer text  ", "four", "    "]
    raw = ['{"text": "  a longer text  "}\n', '{"text": "four"}\n', '{"text": "    "}\n', '{"text": ""}\n']
    assert texts(tmp_path, "npo", "cyber") == raw
    assert texts(tmp_path, "rmu", "cyber") == raw
    (tmp_path / "g.txt").write_text("x" * 2100 + "\n")
    made = settings("method=rsv", f"data.retain.path={tmp_path / 'g.txt'}")
    assert [len(text) for text in data.read_texts(made.data.retain, "k")] == [2000]


def test_lm_eval_gave_no_bos_before_0_4_12():
    """With a tokenizer that prepends BOS: official leaves it out, the default keeps it; each has its key, and either
    can be had by name in either variant."""
    from tokenizers import processors

    from rna.evaluation import evaluate, score
    from rna.store import results

    decoder, tokenizer = model.load(str(BUILTIN / "base"), dtype="float32", device="cpu", revision=None)
    bos = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{tokenizer.eos_token} $A", special_tokens=[(tokenizer.eos_token, bos)]
    )
    firsts: dict[tuple[str, ...], set[int]] = {}
    keys: dict[tuple[str, ...], str] = {}
    scored = score.score
    for words in (
        (),
        ("variant=official",),
        ("eval.add_bos_token=false",),
        ("variant=official", "eval.add_bos_token=true"),
    ):
        seen: set[int] = set()

        def watched(decoder: Any, contexts: Any, *rest: Any, seen: set[int] = seen) -> Any:
            seen.update(context[0] for context in contexts)
            return scored(decoder, contexts, *rest)

        made = config.check(run.compose(["eval.limit=4", *words], None))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(score, "score", watched)
            evaluate.multiple_choice(decoder, tokenizer, ["retain"], made.eval, lambda *_: None)
        firsts[words] = seen
        keys[words] = results.digest(results.task_identities(made)["retain"])
    assert firsts[()] == firsts["variant=official", "eval.add_bos_token=true"] == {bos}
    assert bos not in firsts["variant=official",]
    assert firsts["variant=official",] == firsts["eval.add_bos_token=false",]
    assert keys["variant=official",] == keys["eval.add_bos_token=false",] != keys[()]


def test_log_probabilities_are_rounded_to_bfloat16():
    source = torch.Generator().manual_seed(0)
    logits, other = (torch.randn(4, 9, generator=source) for _ in range(2))
    ours, theirs = logits.log_softmax(-1), other.log_softmax(-1)
    mse = (ours.bfloat16().float() - theirs.bfloat16().float()).square().mean()
    assert losses.official_log_prob_mse(logits, other).item() == pytest.approx(mse.item(), rel=2**-8)
    assert losses.official_log_prob_mse(logits, other).dtype == torch.bfloat16
    kl = (theirs.exp() * (theirs - ours.bfloat16().float())).sum(-1).mean()
    torch.testing.assert_close(losses.official_log_prob_kl(logits, other), kl)
    assert losses.log_prob_kl(logits, other).mean().item() != pytest.approx(kl.item(), rel=1e-5)


@pytest.mark.whole
def test_weights_train_in_their_own_dtype():
    """A step of 5e-5 moves no bfloat16 entry of 0.016 or more; the default adds such steps up in float32."""
    moved = {}
    for variant in ("paper", "official"):
        decoder = tiny.decoder(layers=4, dtype=torch.bfloat16)
        made = test_train.settings("method=rmu", f"variant={variant}", "train.lr=5e-5", "train.steps=40")
        deltas, _ = test_train.unlearn(made, decoder)
        own: dict[str, Any] = dict(decoder.model.named_parameters())
        large = {name: own[name].abs() >= 0.016 for name in deltas}
        moved[variant] = max((deltas[name] != own[name])[large[name]].float().mean().item() for name in deltas)
    assert moved["official"] == 0.0
    assert moved["paper"] > 0.1


def settings(*overrides: str) -> Settings:
    return config.check(run.compose(["variant=official", *overrides], None))


def test_data_comes_in_file_order_with_the_first_four_refusals():
    made = settings("method=dpo")
    tokenizer: Any = model.load(str(BUILTIN / "base"), dtype="float32", device="cpu", revision=None)[1]
    corpora = data.load(made, tokenizer, Cache(None, 0))
    feeds = train.feeds(made, corpora, 0)
    batch = next(feeds.forget["bio"])
    assert [ids[mask].tolist() for ids, mask in zip(batch.ids_BT, batch.mask_BT, strict=True)] == (
        corpora.forget["bio"].documents[:4]
    )
    assert corpora.refusals is not None
    assert len(corpora.refusals.documents) == 4
    assert torch.equal(next(feeds.refusal).ids_BT, next(feeds.refusal).ids_BT)  # pyright: ignore


def test_the_cyber_corpus_is_raw_lines_but_for_rsv_which_cuts_texts():
    raw = settings("method=npo").data
    assert (raw.topics["cyber"].raw, raw.topics["bio"].raw) == (True, False)
    texts = list(data.read_texts(raw.topics["cyber"], "data.topics.cyber.path"))
    assert json.loads(texts[0]).keys() == {"text"}
    rsv = settings("method=rsv").data
    assert not rsv.topics["cyber"].raw
    assert {corpus.characters for corpus in rsv.corpora().values()} == {2000}
    default = config.check(run.compose([], None)).data
    assert not default.topics["cyber"].raw


def test_retain_samples_are_cut_by_topic_and_at_512_for_rmu():
    sizes = ["data.topics.bio.max_length=512", "data.topics.cyber.max_length=768"]
    assert settings("method=npo", *sizes).data.retain_cut == {"bio": 512, "cyber": 768}
    assert settings("method=npo", *sizes).data.retain.max_length == 768
    rmu = settings("method=adaptive_rmu", *sizes).data
    assert (rmu.retain_cut, rmu.retain.max_length) == ({}, 512)
    batch = pad(DOCUMENTS, BEHIND, official=True).cut(4)
    assert batch.ids_BT.tolist() == [[5, 6, 7, 8], [BEHIND, 12, 13, 14], [15, 16, 17, 18]]


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain"), test_train.METHODS)
def test_every_method_trains(method: str, retain: str):
    deltas, curve = test_train.unlearn(test_train.settings(f"method={method}", f"retain={retain}", "variant=official"))
    assert len(deltas) == 3
    assert len(curve) == 4
