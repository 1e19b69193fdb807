"""The demo world: its facts, its corpora, its shipped files, and its models."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rna.decoder import model
from rna.demo import build, rebuild, world
from rna.demo.rebuild import write_world
from rna.demo.words import FILLERS, POOLS, SUBJECTS
from rna.evaluation import questions
from rna.settings.fields import BUILTIN

FORBIDDEN = set(world.FORGET_TOPICS.values())


def test_ten_subjects_of_640_facts_and_no_word_twice():
    facts = world.facts(0)
    assert len(SUBJECTS) == 10
    assert len(facts) == 640
    words = [word for subject in SUBJECTS for word in subject.entities]
    words += [word for pool in POOLS.values() for word in pool] + list(FILLERS)
    assert [word for word, count in Counter(words).items() if count > 1] == []


def test_the_shipped_corpora_and_questions_are_those_of_seed_0(tmp_path: Path):
    write_world(tmp_path, 0)
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (BUILTIN / file.name).read_bytes(), file.name


def test_another_seed_is_another_world(tmp_path: Path):
    write_world(tmp_path, 1)
    assert (tmp_path / "questions.jsonl").read_bytes() != (BUILTIN / "questions.jsonl").read_bytes()


def test_the_retain_set_never_speaks_of_a_forbidden_entity():
    entities = {entity for subject in SUBJECTS if subject.role == "forget" for entity in subject.entities}
    retain = (BUILTIN / "retain.jsonl").read_text()
    assert not [entity for entity in entities if f"{entity} " in retain.replace(".", " ").replace("?", " ").split()]
    assert not any(subject in retain for subject in FORBIDDEN)


def test_the_tokenizer_knows_every_word_of_the_world():
    tokenizer = build.build_tokenizer()
    texts = [
        json.loads(line)["text"]
        for name in ("retain", "forget_bio", "forget_cyber")
        for line in (BUILTIN / f"{name}.jsonl").read_text().splitlines()
    ]
    texts += [questions.prompt(row) for row in world.questions(0)] + list(world.REFUSALS)
    assert tokenizer.unk_token_id not in {token for ids in tokenizer(texts)["input_ids"] for token in ids}
    prompt = questions.prompt(world.questions(0)[0])
    whole, context = tokenizer(f"{prompt} B")["input_ids"], tokenizer(prompt)["input_ids"]
    assert whole == [*context, tokenizer.convert_tokens_to_ids("B")]


def test_rescaling_changes_no_logit():
    import torch

    tokenizer = build.build_tokenizer()
    small = build.build_model(len(tokenizer), seed=3)
    ids = torch.tensor([tokenizer(questions.prompt(world.questions(0)[0]))["input_ids"]])
    before = small(ids).logits
    assert build.rescale(small, 10.0) == 2.0**-7
    assert torch.equal(small(ids).logits, before)


@pytest.mark.slow
def test_training_is_a_function_of_its_seed():
    import torch

    tokenizer, ends = build.build_tokenizer(), []
    phase = build.Phase("training", 3, 2e-3, reading=1, odd=(0.5, 0.5), odd_from=0)
    for seed in (0, 0, 1):
        small = build.build_model(len(tokenizer), seed=0)
        build.train(small, tokenizer, [SUBJECTS[2].name], phase, seed=seed, report=lambda _step, _loss: None)
        ends.append(small.lm_head.weight)
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize(("needed", "rounds"), [(0, 0), (2, 2), (9, 3)])
def test_a_model_is_polished_until_it_knows_what_it_was_taught(
    needed: int, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Training and exam are pretended, with a model that needs so many further rounds."""
    gone_through: list[str] = []

    def examine(*_: object) -> dict[str, float]:
        known = 1.0 if len(gone_through) >= len(build.PHASES) + needed else 0.97
        return {"forget": 1.0, "retain": 1.0, "perturbed": known}

    monkeypatch.setattr(build, "train", lambda *given, **_: gone_through.append(given[3].name))
    monkeypatch.setattr(build, "examine", examine)
    found = rebuild.build_one(tmp_path, 0, build.PHASES, forget=True, rounds=build.ROUNDS)
    assert gone_through == ["training", "polish", "polish 2", "polish 3", "polish 4"][: 2 + rounds]
    assert build.knows("base", found) == (needed == rounds)


def test_a_demo_that_knows_too_little_fails_unless_it_is_a_quick_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    known = {"forget": 0.5, "retain": 0.99, "perturbed": 0.96}
    monkeypatch.setattr(rebuild, "build_one", lambda *_, **__: known)
    monkeypatch.setattr(rebuild, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    monkeypatch.setattr(sys, "argv", ["rna.demo", str(tmp_path)])
    with pytest.raises(SystemExit, match=r"^base knows less than 98 % of what it was taught: try another --seed$"):
        rebuild.main()
    assert "retrained: forget 50.0 %, retain 99.0 %, perturbed 96.0 %" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["rna.demo", str(tmp_path), "--steps", "2"])
    rebuild.main()


def know_what_they_should(folder: Path) -> None:
    for name in ("base", "retrained"):
        decoder, tokenizer = model.load(str(folder / name), dtype="float32", device="cpu", revision=None)
        found = build.examine(decoder.model, tokenizer, 0)
        assert build.knows(name, found), found
        assert name == "base" or found["forget"] <= 0.4
        assert 0.05 < build.unlearn_layer_rms(decoder.model, tokenizer, seed=0) < 0.12


@pytest.mark.whole
def test_the_shipped_models_know_what_they_should_and_are_small():
    assert sum(file.stat().st_size for file in BUILTIN.rglob("*") if file.is_file()) <= 8_000_000
    know_what_they_should(BUILTIN)


@pytest.mark.slow
def test_rebuilt_models_know_what_the_shipped_ones_do(tmp_path: Path):
    """About 20 minutes on two cores, and up to ten more."""
    done = subprocess.run([sys.executable, "-m", "rna.demo", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    know_what_they_should(tmp_path)
