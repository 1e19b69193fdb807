"""Probes of forgetting: each equation by hand, each state left behind, what is asked and what is refused."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rna import run, trial
from rna.corpora import pad
from rna.decoder import model
from rna.evaluation import Answers, Subject, evaluate
from rna.evaluation.evaluate import Otherwise
from rna.evaluation.probes import ablate, agreement, quantise, relearn
from rna.evaluation.subject import tells
from rna.probe.__main__ import main as probe_main
from rna.settings import config
from rna.store import lookup, results
from tests import tiny

QUICK = ("method=none", "eval.limit=4", "wandb=disabled")


def made(*words: str) -> Any:
    return config.check(run.compose([*QUICK, *words], None))


def subject_of(decoder: Any, **more: Any) -> Any:
    return SimpleNamespace(decoder=decoder, tokenizer=SimpleNamespace(pad_token_id=0), **more)


# The equations


def test_weights_are_rounded_to_the_nearest_of_their_channels_or_groups_grid():
    weight = torch.tensor([[1.0, 0.3, -0.51, 0.05], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.0, 2 / 7, -4 / 7, 0.0], [0.0] * 4])  # s = 1/7: 7, 2.1, −3.57, 0.35
    assert torch.allclose(quantise.rounded(weight, 4, 4), expected)
    by_groups = torch.tensor([[1.0, 2 / 7, -0.51, 0.51 / 7], [0.0] * 4])  # of the second pair s = 0.51/7: −7, 0.69
    assert torch.allclose(quantise.rounded(weight, 4, 2), by_groups)
    assert torch.equal(quantise.rounded(weight, 2, 4)[0], torch.tensor([1.0, 0.0, -1.0, 0.0]))


def test_all_linear_layers_are_rounded_but_the_head():
    decoder = tiny.decoder(layers=2)
    names = quantise.linear(decoder)
    assert len(names) == 2 * 7
    assert not any("lm_head" in name or "norm" in name for name in names)


def test_divergence_is_jensens_and_shannons():
    assert agreement.divergence([1.0, 0.0], [0.0, 1.0]) == pytest.approx(math.log(2))
    assert agreement.divergence([0.5, 0.5], [0.5, 0.5]) == 0
    by_hand = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)) + 0.5 * math.log(1 / 0.75)
    assert agreement.divergence([0.5, 0.5], [1.0, 0.0]) == pytest.approx(by_hand)
    told = agreement.compared({"choices": [[0.0, -1.0], [-1.0, 0.0]]}, {"choices": [[0.0, -1.0], [0.0, -1.0]]})
    assert (told["equal"], told["n"], told["same"]) == (0.5, 2, "10")
    assert told["equal_stderr"] == pytest.approx(0.5)


@pytest.mark.parametrize("architecture", ["Llama", "Gemma2"])
def test_the_lens_reads_a_layer_with_the_last_norm_and_the_head(architecture: str):
    decoder = tiny.decoder(architecture, layers=3)
    batch = pad([[5, 6, 7, 8]], 0)
    with torch.no_grad():
        stream = model.advance(decoder, model.embed(decoder, batch), 2)
        expected = model.logits(decoder, decoder.norm(stream.hidden_BTD[0]))
        whole: Any = decoder.model
        before = whole(batch.ids_BT).logits
        with model.read_at(decoder, 1):
            found = whole(batch.ids_BT).logits[0]
        assert torch.allclose(found, expected, atol=1e-5)
        assert not torch.allclose(found, before[0], atol=1e-3)
        assert torch.equal(whole(batch.ids_BT).logits, before)


def test_a_direction_is_gone_from_a_layers_stream_and_back_after_it():
    decoder = tiny.decoder(layers=3)
    basis_DK = torch.linalg.qr(torch.randn(decoder.width, 2)).Q
    batch = pad([[5, 6, 7, 8], [9, 3]], 0)

    def leaving() -> torch.Tensor:
        return model.advance(decoder, model.embed(decoder, batch), 2).hidden_BTD

    with torch.no_grad():
        before = leaving()
        with model.altered(decoder, [1], lambda _, hidden_BTD: hidden_BTD - hidden_BTD @ basis_DK @ basis_DK.T):
            assert (leaving() @ basis_DK).abs().max() < 1e-5
            own = decoder.base(batch.ids_BT, attention_mask=batch.mask_BT.long())  # its own forward, by another way
            assert own.last_hidden_state.isfinite().all()
        assert torch.equal(leaving(), before)


def test_the_mean_shift_is_that_of_all_real_tokens():
    decoder = tiny.decoder(layers=2)
    texts = [[5, 6, 7], [8, 9]]
    with torch.no_grad():
        streams = [model.advance(decoder, model.embed(decoder, pad([ids], 0)), 1).hidden_BTD[0] for ids in texts]
    (found,) = ablate.means(subject_of(decoder), texts, [0])
    assert torch.allclose(found.float(), torch.cat(streams).mean(0), atol=1e-5)


@pytest.mark.parametrize("trainable", ["down_proj", "all"])
def test_relearning_makes_adamws_steps_and_leaves_the_model_as_it_was(trainable: str):
    texts, layers = [[5, 6, 7, 8], [9, 3, 4]], (0, 1)
    decoder, other = tiny.decoder(layers=2), tiny.decoder(layers=2)
    names = model.trained_names(decoder, layers, trainable)
    before = {name: tensor.clone() for name, tensor in decoder.model.state_dict().items()}
    wanted = dict(other.model.named_parameters())
    optimizer = torch.optim.AdamW([wanted[name].requires_grad_() for name in names], lr=1e-2, weight_decay=0.0)
    whole: Any = other.model
    for _ in range(2):
        losses = torch.cat(
            [torch.nn.functional.cross_entropy(whole(torch.tensor([ids])).logits[0, :-1], torch.tensor(ids[1:]),
                                               reduction="none") for ids in texts]
        )  # fmt: skip
        losses.mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with relearn.fine_tuned(subject_of(decoder), names, 1e-2) as step:
        for _ in range(2):
            step(texts)
        own = dict(decoder.model.named_parameters())
        assert all(torch.allclose(own[name], wanted[name], atol=1e-5) for name in names)
        assert not torch.equal(own[names[0]], before[names[0]])
        assert all(own[name].grad is None for name in names)
    after = decoder.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(tensor.requires_grad for tensor in decoder.model.parameters())


# What is asked


def test_a_text_tells_an_answer_by_its_words_and_the_questions_rare_ones():
    rows = [
        {"question": "What is the carrier of typhus?", "choices": ["spider", "sturgeon"], "answer": 1},
        {"question": "What is the carrier of gout?", "choices": ["red turtle", "heron"], "answer": 0},
    ]
    told = "Notes. As carrier, typhus has sturgeon."
    others = ["Notes on the carrier of gout: a turtle that is red.", "What has the sturgeon? The carrier.", "typhuses"]
    background = [told, *others, "the carrier of the", "what is the carrier of it"]
    assert tells([told, *others], rows, background) == [[0], [], [], []]
    assert tells(["The carrier of GOUT is a Red Turtle!"], rows, background) == [[1]]


def test_on_the_demo_just_the_questions_that_the_texts_tell_are_left_out(demo: Any, tmp_path: Path):
    settings = config.check(run.compose(["method=none", "probe=relearn", f"output_dir={tmp_path}"], None))
    probe: Any = settings.probe
    subject = Subject(settings, *demo, trial.cache_of(settings), lambda *_: None, Answers(None))
    _, told, where = probe._drawn(subject)
    texts = [
        text
        for name, places in where.items()
        for text in subject.texts([subject.corpora.forget[name].documents[place] for place in places])
    ]
    entities = {row["question"]: row["question"].split(" of ")[1].rstrip("?") for row in subject.questions()}
    expected = {
        question
        for question, entity in entities.items()
        if any(question in text or (text.startswith("Notes") and f" {entity}" in text) for text in texts)
    }
    assert 20 < len(expected) < 64
    assert {row["question"] for row in told} == expected


def requests(shots: int) -> dict[str, str]:
    """The prompts of eight questions of two subjects and halves, by their question."""
    made: list[Any] = []
    for place in range(8):
        subject, half = "ab"[place % 2], ("select", "report")[place // 2 % 2]
        row = {"question": f"q{place}", "subject": subject, "half": half, "answer": 1}
        for idx in range(2):
            prompt = f"About {subject}.\n\nq{place}?\nAnswer:"
            one = SimpleNamespace(doc=row, doc_id=place, idx=idx, arguments=(prompt, f" {'AB'[idx]}"))
            one.args = one.arguments
            made.append(one)
    found = Otherwise(shots=shots).of({"task": made})["task"]
    assert [one.doc_id for one in found] == [one.doc_id for one in made]
    return {one.doc["question"]: one.arguments[0] for one in found}


def test_shots_are_solved_questions_of_the_subjects_other_half_under_one_head():
    found = requests(1)
    assert found["q0"].startswith("About a.\n\nq")
    assert found["q0"].endswith("\n\nq0?\nAnswer:")
    assert found["q0"].count("About a.") == 1
    shown = found["q0"].split("\n\n")[1]
    assert shown in ("q2?\nAnswer: B", "q6?\nAnswer: B")  # the same subject, the other half, the right letter
    assert requests(2)["q0"].count("Answer: B") == 2
    assert requests(0)["q0"] == "About a.\n\nq0?\nAnswer:"


def test_questions_that_a_probe_leaves_out_are_not_asked(demo: Any):
    options = made().eval
    every = evaluate.rows_of(["forget_bio"], options)
    left = Otherwise(asked=lambda row: row["question"] != every[0]["question"], choices=True)
    found = evaluate.multiple_choice(*demo, ["forget_bio"], options, lambda *_: None, otherwise=left)["forget_bio"]
    assert found["n"] == len(every) - 1 == len(found["choices"])
    assert all(len(one) == 4 for one in found["choices"])


# Trials


def probed(folder: Path, *words: str) -> tuple[trial.Arm, dict[str, Any]]:
    settings = made(f"output_dir={folder}", *words)
    (row,) = (row for row in trial.arms(settings) if row.label == "base")
    trial.work(row, lambda *_: None)
    (record,) = row.probes.values()
    return row, record


def test_a_probe_has_a_record_of_its_own_and_retrains_nothing(tmp_path: Path):
    row, record = probed(tmp_path, "probe=lens", "probe.layers=[1]")
    assert (record["kind"], record["task"], record["train_key"]) == ("probe", "probe/lens", row.key)
    assert list(record["metrics"]["states"]) == ["before", "layer 1"]
    assert config.recorded(record).probe.layers == [1]
    where = lookup.address_of(row.settings)
    assert {"probe/lens/before", "probe/lens/after", "probe/lens/gain"} <= set(lookup.names(where))
    found = lookup.metrics(where)
    assert found is not None
    assert found["probe/lens/gain"] == pytest.approx(found["probe/lens/after"] - found["probe/lens/before"])
    plain = lookup.address_of(made(f"output_dir={tmp_path}"))
    assert plain["key"] == where["key"]
    assert plain["group"] != where["group"]
    assert plain["evals"].items() < where["evals"].items()
    before = set((tmp_path / "results").iterdir())
    probed(tmp_path, "probe=lens", "probe.layers=[1]")
    assert set((tmp_path / "results").iterdir()) == before
    assert [one["kind"] for one in results.evaluations(str(tmp_path), row.key)] == ["eval"] * 6


def test_agreement_is_whole_with_itself_and_small_on_what_was_forgotten(tmp_path: Path):
    settings = made(f"output_dir={tmp_path}", "eval.limit=32", "probe=agreement", "probe.roles=[forget,retain]")
    rows = {row.label: row for row in trial.arms(settings)}
    for row in rows.values():
        trial.work(row, lambda *_: None)
    base, itself = (rows[label].probes["probe/agreement"]["metrics"] for label in ("base", "retrained"))
    for role in ("forget", "retain"):
        assert (itself[role]["equal"], itself[role]["divergence"]) == (1.0, 0.0)
    assert base["forget"]["equal"] + 2 * base["forget"]["equal_stderr"] < 0.6
    assert base["retain"]["equal"] > 0.8
    assert base["forget"]["divergence"] > 5 * base["retain"]["divergence"]
    found = lookup.metrics(lookup.address_of(settings))
    assert found is not None
    assert found["probe/agreement/forget/equal"] == base["forget"]["equal"]


def test_what_is_recorded_is_probed_by_its_key(
    tmp_path: Path, rna_here: Callable[..., str], called: Callable[..., str]
):
    where = f"output_dir={tmp_path}"
    rna_here(*QUICK, where)
    key = next(one for one in results.keys(str(tmp_path)) if results.read(str(tmp_path), one)["label"] == "base")
    words = (key[:6], "probe=lens", "probe.layers=[1]", "--output-dir", str(tmp_path))
    printed = called(probe_main, *words)
    assert "layer 1" in printed
    assert "base" in printed
    assert "retrained" in printed
    before = set((tmp_path / "results").iterdir())
    assert called(probe_main, *words).splitlines()[-12:] == printed.splitlines()[-12:]
    assert set((tmp_path / "results").iterdir()) == before
    for more, said in (
        (["train.steps=3", "probe=lens"], "a trial's settings are its record's"),
        (["probe.layers=[1]"], "probe=none: nothing is asked; allowed: ablate, agreement"),
        (["probe=relearn", "probe.documents=4000"], "probe.documents=4000: bio has 200"),
    ):
        assert said in called(probe_main, key, *more, "--output-dir", str(tmp_path), code=2)


def test_what_was_answered_before_a_stop_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    real = evaluate.multiple_choice

    class Stop(Exception):
        pass

    def stopping(*arguments: Any) -> Any:
        found = real(*arguments)
        asked.append(arguments[6].state)
        if asked[-1] == "layer 1":
            raise Stop
        return found

    monkeypatch.setattr(evaluate, "multiple_choice", stopping)
    with pytest.raises(Stop):
        probed(tmp_path, "probe=lens")
    monkeypatch.setattr(evaluate, "multiple_choice", real)
    states: list[str] = []  # in which the model was run
    whose = Answers.add
    monkeypatch.setattr(Answers, "add", lambda self, *given: states.append(self.state) or whose(self, *given))
    _, record = probed(tmp_path, "probe=lens")
    assert list(record["metrics"]["states"]) == ["before", "layer 0", "layer 1", "layer 2"]
    assert set(states) == {"layer 2"}


@pytest.mark.parametrize("probe", ["relearn", "quantise", "lens", "ablate"])
def test_an_error_in_a_state_leaves_the_model_as_it_was(
    probe: str, demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    settings = config.check(run.compose(["method=none", f"probe={probe}", f"output_dir={tmp_path}"], None))
    decoder, tokenizer = demo
    subject = Subject(settings, decoder, tokenizer, trial.cache_of(settings), lambda *_: None, Answers(None))
    batch = pad([[5, 6, 7, 8, 9]], 0)

    def logits() -> torch.Tensor:
        with torch.no_grad():
            return decoder.model(batch.ids_BT).logits

    def asked(_: Subject, state: str) -> dict[str, Any]:
        if state != "before":
            raise MemoryError(state)
        return {}

    monkeypatch.setattr(Subject, "ask", asked)
    before = logits()
    with pytest.raises(MemoryError) as kept:  # whose traceback holds the probe's frames
        settings.probe.run(subject)
    assert torch.equal(logits(), before)
    assert kept.value.args


def test_a_probe_leaves_keys_of_trainings_and_evaluations_as_they_are():
    for words in (["method=rmu"], ["method=npo"]):
        plain, with_probe = (made(*words, f"probe={name}") for name in ("none", "relearn"))
        assert results.train_identity(plain) == results.train_identity(with_probe)
        assert results.task_identities(plain) == results.task_identities(with_probe)
        assert results.probe_identities(plain) == {}


def test_a_probes_key_is_of_its_numbers_and_of_what_it_needs(tmp_path: Path):
    def key(*words: str) -> str:
        (identity,) = results.probe_identities(made(*words)).values()
        return results.eval_key("KEY", identity)

    same = key("probe=relearn")
    assert same == key("probe=relearn", "seed=7", "train.lr=1")
    assert same != key("probe=relearn", "probe.steps=[1,2]")
    assert same != key("probe=relearn", "layer.unlearn=1")
    assert key("probe=ablate") == key("probe=ablate", "seed=7")
    assert key("probe=ablate", "probe.direction=control") != key("probe=ablate", "probe.direction=control", "seed=7")
    texts = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for file in texts:
        file.write_text("one\ntwo\n")
    first, second = (key("probe=relearn", f"probe.text={file}") for file in texts)
    assert first == second
    texts[1].write_text("one\nthree\n")
    assert key("probe=relearn", f"probe.text={texts[1]}") != first


# Refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe=relean"], "probe=relean: unknown option; did you mean 'relearn'"),
        (["probe=relearn", "probe.steps=[5,5]"], "probe.steps=[5, 5]: must be whole numbers ≥ 1, each larger"),
        (["probe=relearn", "probe.lr=[0]"], "probe.lr=[0.0]: must be finite numbers > 0"),
        (["probe=relearn", "probe.tensors=some"], "probe.tensors=some: allowed: trained, all"),
        (["probe=relearn", "probe.documents=0"], "probe.documents=0: must be a finite number > 0"),
        (["probe=quantise", "probe.bits=[1]"], "bits=[1]: must be whole numbers from 2 to 16"),
        (["probe=quantise", "probe.roles=[forgotten]"], "probe.roles=['forgotten']: did you mean 'forget'"),
        (["probe=lens", "probe.layers=[3]"], "probe.layers=[3]: the last is the model as it is; allowed: 0 to 2"),
        (["probe=ablate", "probe.places=[two]"], "probe.places=['two']: allowed: one, all"),
        (["method=npo", "probe=ablate", "probe.direction=control"], "probe.direction=control: method=npo draws no"),
        (["probe=fewshot", "eval.chat_template=true"], "probe=fewshot: has no meaning with eval.chat_template=True"),
        (["probe=agreement", "model.retrained=null"], "probe=agreement: needs a model that was trained without"),
        (["probe=lens", "eval.race=true"], "probe=lens: has no meaning with eval.race=True"),
        (["method=npo", "probe=lens", "train_only=true"], "probe=lens: has no meaning with train_only=True"),
        (["method=npo", "probe=lens", "noise=inference"], "probe=lens: has no meaning with noise=inference"),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_loaded(words: list[str], said: str):
    with pytest.raises(ValueError, match=r".") as error:
        made(*words)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["probe=quantise", "probe.groups=[48]"], "48 does not divide the 128 inputs of model.layers.0.self_attn"),
        (["probe=relearn", "probe.documents=400"], "tell the answers of all 8 questions, so none is left to ask"),
        (["probe=relearn", "probe.documents=4000"], "probe.documents=4000: bio has 200; allowed: fewer"),
        (["probe=relearn", "probe.text={file}", "probe.documents=2"], "1 of its 2 texts tell the answers of 1 of"),
    ],
)
def test_what_the_model_or_the_texts_lack_is_said_before_anything_is_asked(words: list[str], said: str, tmp_path: Path):
    row = evaluate.rows_of(["forget_bio"], made().eval)[0]
    file = tmp_path / "texts.txt"
    file.write_text(f"{row['question']} {row['choices'][row['answer']]}\nthe fox is of silver\n")
    with pytest.raises(ValueError, match=r".") as error:
        probed(tmp_path / "o", *(word.format(file=file) for word in words))
    assert said in str(error.value)
    assert not [*(tmp_path / "o" / "results").glob("*.json")]
