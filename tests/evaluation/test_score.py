"""Scoring answers: contexts that begin alike go through the model once, and every likelihood stays what it was."""

import random
from typing import Any

import pytest
import torch

from rna import run
from rna.evaluation import evaluate, score
from rna.settings import config
from rna.settings.seeding import seed_of
from rna.unlearning.noise import Normals, Smoothing
from tests import tiny


def contexts(count: int = 12, *, seed: int = 0) -> list[tuple[int, ...]]:
    """Ragged contexts in families that begin alike."""
    source = random.Random(seed)

    def words(length: int) -> list[int]:
        return [source.randrange(1, tiny.VOCABULARY) for _ in range(length)]

    found: list[tuple[int, ...]] = []
    while len(found) < count:
        beginning = words(source.randrange(6, 14))
        found += [tuple(beginning + words(source.randrange(1, 6))) for _ in range(source.randrange(1, 4))]
    return found[:count]


def plainly(decoder: Any, context: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return decoder.model(torch.tensor([context])).logits[0, -1].float().log_softmax(-1)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_likelihoods_are_those_of_each_context_alone(architecture: str):
    decoder = tiny.decoder(architecture)
    asked = contexts()
    assert score.can_share(decoder, 20)
    assert any(len(pack.contexts) > 1 for pack in score.packs(asked, 0.001))
    found = score.score(decoder, asked, {context: {3, 7} for context in asked}, None, lambda *_: None)
    for context in asked:
        expected = plainly(decoder, context)
        for token in (3, 7):
            value, likeliest = found[context, token]
            assert value == pytest.approx(expected[token].item(), abs=2e-4)
            assert likeliest == (expected.argmax().item() == token)


def test_a_window_shorter_than_the_contexts_keeps_them_apart():
    decoder = tiny.decoder("Mistral", sliding_window=4)
    asked = contexts()
    assert not score.can_share(decoder, max(map(len, asked)))
    found = score.score(decoder, asked, {context: {3} for context in asked}, 2, lambda *_: None)
    for context in asked:
        assert found[context, 3][0] == pytest.approx(plainly(decoder, context)[3].item(), abs=2e-4)


def test_packs_hold_every_context_once_and_leave_each_a_token_of_its_own():
    asked = contexts(60)
    made = score.packs([*asked, *asked], 0.001)
    assert sorted(context for pack in made for context in pack.contexts) == sorted(set(asked))
    for pack in made:
        nodes = {context[:length] for context in pack.contexts for length in range(1, len(context) + 1)}
        assert pack.length == len(nodes)
        assert all(alike < len(context) for alike, context in zip(pack.alike, pack.contexts, strict=True))
    assert [pack.length for pack in made] == sorted((pack.length for pack in made), reverse=True)
    assert sum(pack.length for pack in made) < sum(map(len, set(asked)))
    assert all(len(pack.contexts) == 1 for pack in score.packs(asked, None))


def test_one_context_may_be_the_beginning_of_another():
    decoder = tiny.decoder()
    asked = [(5, 6, 7, 8, 9), (5, 6, 7, 8), (5, 6, 7, 8, 9, 10, 11)]
    found = score.score(decoder, asked, {context: {3} for context in asked}, None, lambda *_: None)
    for context in asked:
        assert found[context, 3][0] == pytest.approx(plainly(decoder, context)[3].item(), abs=2e-4)


def smoothed_plainly(decoder: Any, context: tuple[int, ...], smoothing: Smoothing) -> torch.Tensor:
    """Each draw through the whole model, the noise put in by a hook: the mean of the probabilities, in logs."""
    source = Normals(seed_of(smoothing.seed, "inference", str(context)))

    def add(_module: Any, _inputs: Any, hidden: torch.Tensor) -> torch.Tensor:
        return hidden + smoothing.std * source(1, hidden[0].numel(), hidden.device).view(hidden.shape)

    hooks = [decoder.layers[layer].register_forward_hook(add) for layer in smoothing.layers]
    try:
        return torch.stack([plainly(decoder, context).exp() for _ in range(smoothing.samples)]).mean(0).log()
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(("architecture", "layers"), [("Mistral", (2,)), ("Gemma2", (1, 3)), ("Qwen3", (4,))])
def test_noise_at_inference_averages_the_probabilities_over_its_draws(architecture: str, layers: tuple[int, ...]):
    decoder, asked = tiny.decoder(architecture), contexts(6)
    smoothing = Smoothing(0.5, layers, 3, seed=1)
    found = score.score(decoder, asked, {context: {3} for context in asked}, None, lambda *_: None, smoothing)
    for context in asked:
        expected = smoothed_plainly(decoder, context, smoothing)
        value, likeliest = found[context, 3]
        assert value == pytest.approx(expected[3].item(), abs=2e-4)
        assert likeliest == (expected.argmax().item() == 3)
        assert value != pytest.approx(plainly(decoder, context)[3].item(), abs=1e-3)


def test_a_contexts_draws_depend_on_no_other_context_and_on_no_batch():
    decoder, asked = tiny.decoder(), contexts(8)
    smoothing = Smoothing(0.5, (1,), 4, seed=0)

    def found(some: list[tuple[int, ...]], size: int | None, smoothing: Smoothing = smoothing):
        return score.score(decoder, some, {context: {3} for context in some}, size, lambda *_: None, smoothing)

    whole = found(asked, None)
    for context in asked:
        assert found([context], 1)[context, 3][0] == pytest.approx(whole[context, 3][0], abs=1e-5)
    other = found(asked, None, Smoothing(0.5, (1,), 4, seed=1))
    assert all(abs(other[key][0] - whole[key][0]) > 1e-4 for key in whole)


def test_noise_at_inference_of_no_strength_is_none():
    decoder, asked = tiny.decoder(), contexts()
    wanted = {context: {3} for context in asked}
    plain = score.score(decoder, asked, wanted, None, lambda *_: None)
    silent = score.score(decoder, asked, wanted, None, lambda *_: None, Smoothing(0.0, (2,), 5, seed=0))
    assert {key: value for key, (value, _) in silent.items()} == pytest.approx(
        {key: value for key, (value, _) in plain.items()}, abs=2e-4
    )


def test_longer_answers_are_not_smoothed(demo: Any):
    from lm_eval.api.instance import Instance

    asked = [Instance("loglikelihood", {}, ("the river", " geography of the"), 0)]
    with pytest.raises(ValueError, match="noise=inference: averages answers of one token"):
        score.harness(*demo, None, lambda *_: None, Smoothing(0.1, (2,), 2, seed=0)).loglikelihood(asked)


def test_what_does_not_fit_is_tried_in_halves(monkeypatch: pytest.MonkeyPatch):
    decoder, asked, sizes = tiny.decoder(), contexts(40), []
    whole = score.last_log_probs

    def narrow(decoder: Any, chosen: Any) -> Any:
        sizes.append(len(chosen))
        if len(chosen) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(decoder, chosen)

    monkeypatch.setattr(score, "last_log_probs", narrow)
    found = score.score(decoder, asked, {context: {3} for context in asked}, None, lambda *_: None)
    assert len(found) == len(set(asked))
    assert sizes[0] > 3
    assert min(sizes) >= 1


def test_accuracies_and_likelihoods_are_lm_evals_own(demo: Any):
    """The same questions by lm-eval's own Hugging Face model: each answer's likelihood, each question's verdict."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    from rna.demo import world
    from rna.evaluation import questions

    decoder, tokenizer = demo
    rows = world.questions(0)[:24]
    asked = [
        Instance("loglikelihood", row, (questions.prompt(row), f" {letter}"), index)
        for index, (row, letter) in enumerate((row, letter) for row in rows for letter in "ABCD")
    ]
    plain = HFLM(pretrained=decoder.model, tokenizer=tokenizer, batch_size=8).loglikelihood(asked, disable_tqdm=True)
    ours = score.harness(decoder, tokenizer, None, lambda *_: None).loglikelihood(asked)
    for (value, greedy), (expected, likeliest) in zip(ours, plain, strict=True):
        assert value == pytest.approx(expected, abs=1e-3)
        assert greedy == likeliest


def test_longer_continuations_go_lm_evals_way(demo: Any):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    decoder, tokenizer = demo
    pairs = [("the river", " geography of the"), ("the river", " A"), ("marsh fevers are", " in the river")]
    asked = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(pairs)]
    plain = HFLM(pretrained=decoder.model, tokenizer=tokenizer, batch_size=2).loglikelihood(asked, disable_tqdm=True)
    ours = score.harness(decoder, tokenizer, 2, lambda *_: None).loglikelihood(asked)
    for (value, _), (expected, _) in zip(ours, plain, strict=True):
        assert value == pytest.approx(expected, abs=1e-3)


def test_prompts_longer_than_the_models_context_are_counted(demo: Any, monkeypatch: pytest.MonkeyPatch):
    decoder, tokenizer = demo
    settings = config.check(run.compose(["eval.limit=16"], None))
    whole = evaluate.multiple_choice(decoder, tokenizer, ["retain"], settings.eval, lambda *_: None)["retain"]
    assert whole["truncated"] == 0
    monkeypatch.setattr(decoder.model.config, "max_position_embeddings", 24)
    cut = evaluate.multiple_choice(decoder, tokenizer, ["retain"], settings.eval, lambda *_: None)["retain"]
    assert cut["truncated"] == 16
    assert cut["acc"] < whole["acc"]
