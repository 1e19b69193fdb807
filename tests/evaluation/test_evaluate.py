"""lm-eval in process, and perplexity against numbers worked out the plain way."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from rna import perturb, run
from rna.corpora import Corpus, Documents
from rna.decoder import model
from rna.evaluation import evaluate, questions, score
from rna.evaluation.evaluate import Clustered
from rna.intervals import t_95
from rna.perturb import mined
from rna.settings import config
from rna.settings.fields import BUILTIN, TaskSettings
from rna.store import results
from tests import folders, tiny
from tests.evaluation import test_questions
from tests.evaluation.test_ngrams import write_mined


def test_the_base_answers_and_a_perturbed_choice_does_not_disturb_it(demo):
    settings = config.check(run.compose(["eval.limit=64"], None))
    seen: list[tuple[int, int]] = []
    names = ["forget_bio", "retain", "perturbed", "neutral"]
    found = evaluate.multiple_choice(*demo, names, settings.eval, lambda done, total: seen.append((done, total)))
    assert list(found) == names
    for name in names:
        accuracy, count = found[name]["acc"], found[name]["n"]
        assert accuracy >= 0.95
        assert found[name]["acc_stderr"] == pytest.approx(math.sqrt(accuracy * (1 - accuracy) / (count - 1)))
    done, total = seen[-1]
    assert done == total
    assert 64 < total <= 256  # what is asked twice is answered once


@pytest.mark.whole
def test_lm_eval_agrees_with_a_plain_argmax_over_letters(demo):
    from rna.demo import build, world

    decoder, tokenizer = demo
    settings = config.check(run.compose([], None))
    found = evaluate.multiple_choice(decoder, tokenizer, ["perturbed"], settings.eval, lambda _done, _total: None)
    rows = [row for row in world.questions(0) if row["subject"] not in world.FORGET_TOPICS.values()]
    rows = perturb.perturb_all(rows, settings.eval.keyword, settings.eval.seed)
    assert found["perturbed"]["acc"] == build.accuracy(decoder.model, tokenizer, rows)


def test_questions_are_perturbed_by_each_group_of_ngrams(demo, tmp_path):
    """Against a plain argmax over letters on the same questions, with n-grams of words the model knows."""
    from rna.demo import build, world

    file = tmp_path / "mined.parquet"
    write_mined(file, words="marsh fevers")
    chosen = ["eval=ngram_similarity", f"eval.ngrams_path={file}", "eval.limit=48"]
    settings = config.check(run.compose(chosen, None))
    names = ["retain", "ngram_2_top", "ngram_2_bottom"]
    found = evaluate.multiple_choice(*demo, names, settings.eval, lambda _done, _total: None)
    assert list(found) == names
    plain = [row for row in world.questions(0) if row["subject"] not in world.FORGET_TOPICS.values()]
    plain = questions.sample([dict(row) for row in plain], 48, settings.eval.seed)
    for group in ("top", "bottom"):
        rows = perturb.perturb_with(plain, mined.read_groups(file)[2, group], settings.eval.seed)
        assert {choice for row in rows for choice in row["choices"] if choice.endswith(("0", "1"))} == {
            f"marsh fevers 2{group}{rank}" for rank in (0, 1)
        }
        assert found[f"ngram_2_{group}"]["acc"] == build.accuracy(*(demo[0].model, demo[1]), rows)
    assert found["retain"]["acc"] == build.accuracy(demo[0].model, demo[1], plain)


def test_token_losses_are_those_of_the_whole_model():
    decoder = tiny.decoder()
    documents = [ids[mask].tolist() for ids, mask in zip(tiny.batch(5).ids_BT, tiny.batch(5).mask_BT, strict=True)]
    found = evaluate.token_losses(decoder, documents, [0, 3, 2], batch_size=2, pad_id=0)
    for ids, start, total, count in zip(documents, (1, 3, 2), found.sums, found.counts, strict=True):
        logits = decoder.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
        assert total == pytest.approx(
            cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").item(), rel=1e-5
        )
        assert count == len(ids) - start


def test_the_forget_set_is_judged_on_its_first_training_documents_topic_by_topic():
    """Two topics of unlike length: a mean of their means; of pairs the answers alone."""
    decoder = tiny.decoder()
    rows = [[5, 9, 7, 30, 4, 8], [11, 3, 40], [6, 6, 6, 6]]
    ids, lengths = torch.tensor([token for row in rows for token in row]), torch.tensor([6, 3, 4])
    texts = Documents(ids, lengths)
    pairs = Documents(ids, lengths, starts=torch.tensor([4, 2, 1]))

    def loss(ids: list[int], start: int) -> float:
        logits = decoder.model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
        return cross_entropy(logits, torch.tensor(ids[start:]), reduction="sum").item()

    forget = {
        "bio": Corpus("forget/bio", texts, texts[:0], 0),
        "cyber": Corpus("forget/cyber", pairs, pairs[:0], 0, answer_only=True),
        "whole": Corpus("forget/whole", pairs, pairs[:0], 0),
    }
    found = {
        topic: evaluate.forget_nll(decoder, {topic: corpus}, 2, batch_size=8, pad_id=0)
        for topic, corpus in forget.items()
    }
    assert found["bio"] == pytest.approx((loss(rows[0], 1) + loss(rows[1], 1)) / 7)  # 5 + 2 tokens that others precede
    assert found["cyber"] == pytest.approx((loss(rows[0], 4) + loss(rows[1], 2)) / 3)
    assert found["whole"] == found["bio"]
    both = evaluate.forget_nll(decoder, {name: forget[name] for name in ("bio", "cyber")}, 2, batch_size=1, pad_id=0)
    assert both == pytest.approx((found["bio"] + found["cyber"]) / 2)
    with torch.no_grad():
        decoder.model.lm_head.weight.fill_(math.nan)
    with pytest.raises(score.NotFinite, match="forget/bio: 2 of 2 log-likelihoods"):
        evaluate.forget_nll(decoder, forget, 2, batch_size=8, pad_id=0)


def test_clustered_mean_and_standard_error_by_hand():
    """Two documents: 2 tokens of total 2, 2 tokens of total 6. Mean 8/4 = 2; residuals −2 and 2; s.e. √(8·2)/4 = 1."""
    metrics = Clustered([2.0, 6.0], [2, 2]).metrics()
    assert metrics["nll"] == 2.0
    assert metrics["nll_stderr"] == pytest.approx(1.0)
    assert metrics["ppl"] == pytest.approx(math.e**2)
    assert metrics["ppl_stderr"] == pytest.approx(math.e**2)


def test_perplexity_judges_the_same_tokens_with_and_without_the_keyword(demo):
    settings = config.check(run.compose(["eval=perplexity", "data.holdout=0.1"], None))
    documents = [[100, 101, 102, 103, 104, 105, 106, 107, 108, 109]] * 3
    seen: list[int] = []
    found = evaluate.perplexity(
        *demo, {"forget_bio": documents, "retain": documents}, settings.eval, lambda done, _total: seen.append(done)
    )
    assert set(found) == {"forget_bio", "retain", "retain_after", "perturbed", "neutral"}
    assert found["forget_bio"] == found["retain"]
    assert found["perturbed"]["asked"] == found["neutral"]["asked"] == found["retain_after"]["asked"]
    assert found["perturbed"]["asked"] != found["retain"]["asked"]
    for one in found.values():
        assert sum(one["losses"]) / sum(one["tokens"]) == pytest.approx(one["nll"], abs=1e-5)
        assert len(one["losses"]) == one["n"]
    assert found["perturbed"]["nll"] != found["neutral"]["nll"]
    plain, start = perturb.insert(documents[0], [], settings.eval.seed, 0)
    with_word, later = perturb.insert(documents[0], [7, 8], settings.eval.seed, 0)
    assert plain[start:] == with_word[later:]


@pytest.mark.slow
def test_tasks_run_from_the_lm_eval_command_line(tmp_path: Path):
    """lm-eval's command line reads its own thousands of task files first."""
    import json
    import subprocess
    import sys

    rows = [test_questions.row(number, subject) for subject in questions.SUBJECTS for number in range(2)]
    mmlu = test_questions.written(tmp_path / "mmlu.jsonl", *rows)
    command = [
        *(str(Path(sys.executable).with_name("lm_eval")), "run", "--model", "hf", "--batch_size", "32"),
        *("--model_args", f"pretrained={BUILTIN / 'base'},dtype=float32", "--device", "cpu"),
        *("--include_path", str(evaluate.TASKS), "--tasks", "rna_demo_forget_bio,rna_demo_retain_mixed,mmlu_perturbed"),
        *("--metadata", json.dumps({"mmlu_path": mmlu, "keyword": "ague"}), "--output_path", str(tmp_path)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.rglob("results_*.json")
    found = json.loads(written.read_text())["results"]
    assert found["rna_demo_forget_bio"]["acc,none"] >= 0.95
    assert found["rna_demo_retain_mixed"]["acc,none"] >= 0.6
    assert {name for name in found if name.startswith("mmlu_perturbed")} == {
        "mmlu_perturbed",
        *(f"mmlu_perturbed_{name}" for name in (*questions.CATEGORIES, *questions.SUBJECTS)),
    }


def test_the_change_of_a_loss_and_its_interval():
    """Three documents of 2, 1 and 1 tokens rise by 1.0, 0.5 and 0.0 in sum: (1 + 0.5 + 0)/4 = 0.375 nats a token.

    Without each in turn: 0.25, 1/3 and 0.5, so a jackknife error of √(2/3 · 0.0324) = 0.147; 16/6 documents by Kish, so
    t at 1.67 degrees of freedom.
    """
    before, after = (
        one.metrics() | one.parts() | {"asked": "a"}
        for one in (Clustered([2.0, 1.0, 3.0], [2, 1, 1]), Clustered([3.0, 1.5, 3.0], [2, 1, 1]))
    )
    found = evaluate.change(before, after)
    assert found["change"] == pytest.approx(0.375)
    half = found["change_high"] - 0.375
    assert (found["change_low"], half) == (pytest.approx(0.375 - half), pytest.approx(0.147 * t_95(5 / 3), rel=2e-3))
    same = evaluate.change(before, before)
    assert (same["change"], same["change_low"], same["change_high"]) == (0.0, 0.0, 0.0)


def test_accuracy_has_lm_evals_standard_error():
    from lm_eval.api.metrics import mean_stderr

    correct = [True, False, True, True, False, True]
    found = evaluate.accuracy(correct)
    assert found is not None
    assert found["acc"] == pytest.approx(4 / 6)
    assert found["acc_stderr"] == pytest.approx(mean_stderr([float(one) for one in correct]))
    assert evaluate.accuracy([]) is None


@pytest.mark.whole
def test_halves_subjects_and_bits_belong_together(demo):
    settings = config.check(run.compose([], None))
    found = evaluate.multiple_choice(*demo, ["perturbed"], settings.eval, lambda *_: None)["perturbed"]
    bits = bin(int(found["correct"], 16))[2:].zfill(found["n"])
    assert bits.count("1") / found["n"] == found["acc"]
    assert sum(part["n"] for part in found["subjects"].values()) == found["n"]
    halves = [found[half] for half in ("select", "report")]
    for part in halves:
        assert f"{int(part['correct'], 16):0{part['n']}b}".count("1") == round(part["acc"] * part["n"])
    assert sum(int(part["correct"], 16).bit_count() for part in halves) == bits.count("1")
    weighted = sum(found[half]["acc"] * found[half]["n"] for half in ("select", "report"))
    assert weighted / found["n"] == pytest.approx(found["acc"])


@pytest.mark.whole
def test_a_question_has_one_name_in_all_of_its_forms_and_draws_one_of_several_keywords(demo):
    """Perturbed, neutral and plain questions are the same; each keyword has its own accuracy, and the draw is fixed."""
    words = ["marsh fevers", "vault breaking", "gout", "ague", "typhus"]
    names = ["retain", "perturbed", "neutral"]
    usual = config.check(run.compose(["eval.limit=64"], None))
    several = config.check(run.compose(["eval.limit=64", f"eval.keywords=[{','.join(words)}]"], None))
    one, many = (evaluate.multiple_choice(*demo, names, made.eval, lambda *_: None) for made in (usual, several))
    for part in (lambda found: found, lambda found: found["select"], lambda found: found["report"]):
        assert len({part(found[name])["asked"] for found in (one, many) for name in names}) == 1
    assert len({one["retain"][half]["asked"] for half in ("select", "report")}) == 2
    found = many["perturbed"]
    assert "drawn" not in one["perturbed"]
    assert "drawn" not in many["neutral"]
    drawn = [int(digit) for digit in found["drawn"]]
    rows = questions.sample(list(_demo_rows()), 64, 0)
    assert drawn == [perturb.draw(0, row, 5, "keyword") for row in rows]
    right = f"{int(found['correct'], 16):064b}"
    for number, word in enumerate(words):
        bits = [bit for bit, one in zip(right, drawn, strict=True) if one == number]
        assert found["keywords"][word]["n"] == len(bits) > 0
        assert found["keywords"][word]["acc"] == bits.count("1") / len(bits)
    assert len(found["select"]["drawn"]) == found["select"]["n"]
    keys = [results.task_identities(made) for made in (usual, several)]
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"perturbed"}
    assert (keys[1]["perturbed"]["keywords"], "keyword" in keys[1]["perturbed"]) == (words, False)


def _demo_rows():
    from rna.demo import world

    return (dict(row) for row in world.questions(0) if row["subject"] not in world.FORGET_TOPICS.values())


def test_a_keyword_among_the_choices_gives_way_to_the_next():
    row = {"question": "q", "subject": "s", "choices": ["Gout", "b", "c", "d"], "answer": 1}
    made = [perturb.perturb_among([row], ["gout", "ague"], seed) for seed in range(8)]
    assert {one["drawn"] for (one,) in made} == {1}
    assert all("ague" in one["choices"] for (one,) in made)
    (kept,) = perturb.perturb_among([row], ["gout"], 0)
    assert kept == {**row, "drawn": 0}


TEMPLATE = (
    "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}"
    "{% if add_generation_prompt %}:{% endif %}"
)


def test_a_chat_template_asks_as_lm_eval_does(demo, monkeypatch: pytest.MonkeyPatch):
    """The same contexts, answers and verdicts as lm-eval's own model with `--apply_chat_template`."""
    from lm_eval.evaluator import evaluate as evaluate_plainly
    from lm_eval.models.huggingface import HFLM

    from rna.evaluation import score

    decoder, tokenizer = demo
    monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
    options = config.check(run.compose(["eval.limit=12", "eval.chat_template=true"], None)).eval
    seen: list[Any] = []
    scored = score.score

    def watched(decoder: Any, contexts: Any, *rest: Any) -> Any:
        seen.extend(contexts)
        return scored(decoder, contexts, *rest)

    monkeypatch.setattr(score, "score", watched)
    ours = evaluate.multiple_choice(decoder, tokenizer, ["retain"], options, lambda *_: None)["retain"]
    names, loaded = evaluate._asked(["retain"], options)
    plain: Any = HFLM(decoder.model, tokenizer=tokenizer)
    found: Any = evaluate_plainly(plain, loaded, apply_chat_template=True)
    samples = sorted(found["samples"][names["retain"]], key=lambda sample: sample["doc_id"])
    asked = {sample["arguments"][0][0] for sample in samples}
    assert all(text.startswith("<user>") and text.endswith(":") for text in asked)
    assert set(seen) == {tuple(plain.tok_encode(text)) for text in asked}
    assert ours["correct"] == f"{int(''.join(str(int(sample['acc'])) for sample in samples), 2):03x}"


@pytest.mark.whole
def test_requests_are_built_once_and_a_template_stays_out_of_those_without():
    options = config.check(run.compose([], None)).eval
    _, loaded = evaluate._asked(["related"], options)
    (task,) = loaded.values()

    def prompts(**changed: bool) -> list[str]:
        harness = SimpleNamespace(apply_chat_template=lambda turns, **_: f"USER: {turns[-1]['content']}")
        return [one.args[0] for one in evaluate._requests(harness, task, replace(options, **changed))]

    assert all(prompt.startswith("USER: ") for prompt in prompts(chat_template=True))
    assert not any(prompt.startswith("USER: ") for prompt in prompts())
    assert evaluate._requests(None, task, options) is evaluate._requests(None, task, options)


def test_a_chat_template_is_part_of_the_evaluations_key_and_a_model_without_one_is_refused(
    tmp_path: Path, rna_here: Callable[..., str]
):
    folder = folders.sound(tmp_path / "m")
    common = ("method=none", "model=local", f"model.path={folder}", "model.unlearn_layer=1", "eval.limit=4")

    def keys(*words: str) -> dict[str, str]:
        made = config.check(run.compose([*common, *words], None))
        return {name: results.digest(one) for name, one in results.task_identities(made).items()}

    said = rna_here(*common, "eval.chat_template=true", f"output_dir={tmp_path / 'o'}", code=2)
    assert said == (
        f"error: model.path={folder}: its tokenizer has no chat template; give one as chat_template.jinja there, or "
        "eval.chat_template=false\n"
    )
    assert rna_here("eval=perplexity", "data.holdout=0.1", "+eval.chat_template=true", code=2).startswith(
        "error: eval.chat_template=True: has no meaning with eval.kind=perplexity"
    )
    plain = keys()
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with_template = keys("eval.chat_template=true")
    assert plain == keys()
    assert not set(with_template.values()) & set(plain.values())
    printed = rna_here(*common, "eval.chat_template=true", f"output_dir={tmp_path / 'o'}", "wandb=disabled")
    assert re.search(r"^ +base", printed, re.M)
    (folder / "chat_template.jinja").write_text(TEMPLATE + "\n")
    assert not set(keys("eval.chat_template=true").values()) & set(with_template.values())


@pytest.fixture
def mmlu(tmp_path: Path) -> str:
    """Twelve questions of two subjects; the right answer of every fourth is "All of the above"."""
    rows = [test_questions.row(number, ("anatomy", "virology")[number % 2]) for number in range(12)]
    for made in rows[::4]:
        made["choices"][made["answer"]] = "All of the above"
    return test_questions.written(tmp_path / "mmlu.jsonl", *rows)


def test_questions_answered_by_all_of_the_above_are_left_out_in_every_role_or_told(demo, mmlu: str, tmp_path: Path):
    write_mined(tmp_path / "mined.parquet")
    words = [f"eval.mmlu_path={mmlu}", "eval.keyword=typhus", f"+eval.ngrams_path={tmp_path / 'mined.parquet'}"]
    words.append("+eval.tasks.ngram={task: rna_mmlu_ngram, role: ngram}")
    options = config.check(run.compose(["eval=mmlu", *words], None)).eval
    names = ["mmlu", "mmlu_perturbed", "mmlu_neutral", "ngram_2_top"]
    kept = evaluate.multiple_choice(*demo, names, options, lambda *_: None)
    options.of_above = "leave_out"
    left = evaluate.multiple_choice(*demo, names, options, lambda *_: None)
    alike = {"acc_with_of_above": "acc", "acc": "acc_without_of_above"}
    for name in names:
        assert (kept[name]["n"], left[name]["n"]) == (12, 9)
        assert kept[name]["of_above"] == left[name]["of_above"] == 3
        assert all(left[name][mine] == kept[name][its] for mine, its in alike.items())
        bits = [f"{int(found[name]['correct'], 16):0{found[name]['n']}b}" for found in (kept, left)]
        assert bits[1] == "".join(bit for number, bit in enumerate(bits[0]) if number % 4)
        assert {subject: part["n"] for subject, part in left[name]["subjects"].items()} == {"anatomy": 3, "virology": 6}
        assert sum(part["n"] for part in left[name]["categories"].values()) == 9
        halves = [[found[name].get(half, {}) for half in ("select", "report")] for found in (kept, left)]
        assert [sum(half.get("n", 0) for half in each) for each in halves] == [12, 9]
        assert sum(half.get("of_above", 0) for half in halves[0]) == 3


def test_without_such_questions_nothing_is_said_of_them(demo, mmlu: str):
    options = config.check(run.compose(["eval.limit=16", "eval.of_above=leave_out"], None)).eval
    found = evaluate.multiple_choice(*demo, ["retain"], options, lambda *_: None)["retain"]
    assert found["n"] == 16
    assert not [name for name in [*found, *found["select"]] if "above" in name]
    options = config.check(run.compose(["eval=mmlu", f"eval.mmlu_path={mmlu}"], None)).eval
    options.tasks = {"virology": TaskSettings("rna_mmlu", "retain", subjects=["virology"])}
    found = evaluate.multiple_choice(*demo, ["virology"], options, lambda *_: None)["virology"]
    assert (found["n"], "of_above" in found) == (6, False)


def test_an_accuracy_stands_beside_the_one_without_or_with_what_speaks_of_choices():
    """2 of 3 right, of which 1 of 1 speaks of others: 1 of 2 without."""
    judged = [(True, True), (True, False), (False, False)]
    kept, left = (evaluate._accuracy_of(judged, leave_out=leave_out) for leave_out in (False, True))
    assert kept is not None
    assert left is not None
    assert (kept["acc"], kept["acc_without_of_above"], kept["n"], kept["of_above"]) == (2 / 3, 1 / 2, 3, 1)
    assert (left["acc"], left["acc_with_of_above"], left["n"], left["of_above"]) == (1 / 2, 2 / 3, 2, 1)
    assert left["acc_stderr"] == pytest.approx(0.5)
    assert evaluate._accuracy_of(judged[:1], leave_out=True) is None
    assert evaluate._accuracy_of(judged[1:], leave_out=True) == evaluate.accuracy([True, False])


def test_several_keywords_are_drawn_and_places_are_kept(demo, tmp_path: Path):
    file = tmp_path / "keywords.txt"
    file.write_text("marsh fevers\n\n vault breaking\n")
    assert perturb.read_keywords(str(file), "x") == ["marsh fevers", "vault breaking"]
    assert perturb.read_keywords(None, "x") == ["x"]
    assert perturb.read_keywords(["gout", 3, " "], "x") == ["gout", "3"]
    file.write_text("marsh fevers\n\n vault breaking\n", encoding="utf-8-sig")
    assert perturb.read_keywords(str(file), "x") == ["marsh fevers", "vault breaking"]
    for bad in (str(tmp_path / "none.txt"), [], "", ["gout", None], ["gout", 1e3], {"a": "b"}, True):
        with pytest.raises(ValueError, match=r"eval\.keywords="):
            perturb.read_keywords(bad, "x")
    options = config.check(run.compose(["eval=perplexity", "data.holdout=0.1", f"eval.keywords={file}"], None)).eval
    documents = {"retain": [list(range(5, 5 + length)) for length in range(8, 30)]}
    seen: dict[str, float] = {}
    for place in ("start", "middle", "random"):
        options.place = place
        found = evaluate.perplexity(*demo, documents, options, lambda *_: None)
        assert found["perturbed"]["change_low"] <= found["perturbed"]["change"] <= found["perturbed"]["change_high"]
        assert found["perturbed"]["n"] == len(documents["retain"]) == len(found["perturbed"]["drawn"])
        by_word = found["perturbed"]["keywords"]
        counts = {word: found["perturbed"]["drawn"].count(str(place)) for place, word in enumerate(by_word)}
        assert {word: one["n"] for word, one in by_word.items()} == counts
        seen[place] = found["retain_after"]["nll"]
    assert len(set(seen.values())) == 3


def test_vllm_gets_an_exported_copy_and_arguments_it_knows(demo, monkeypatch: pytest.MonkeyPatch):
    """vLLM may not be here: the source of lm-eval's class says what it knows, and a stand-in what it gets."""
    import ast
    import sys

    import lm_eval
    from transformers import AutoModelForCausalLM

    source = (Path(lm_eval.__file__).parent / "models" / "vllm_causallms.py").read_text()
    (vllm,) = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == "VLLM"]
    (start,) = [node for node in vllm.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
    known = [argument.arg for argument in (*start.args.args, *start.args.kwonlyargs)]
    given: dict[str, object] = {}

    class Recorder:
        def __init__(self, **options: object) -> None:
            given.update(options)
            self.model = AutoModelForCausalLM.from_pretrained(options["pretrained"])

    monkeypatch.setitem(sys.modules, "lm_eval.models.vllm_causallms", SimpleNamespace(VLLM=Recorder))
    decoder, tokenizer = demo
    options = config.check(run.compose([], None)).eval
    options.backend = "vllm"
    harness = evaluate._harness(decoder, tokenizer, options, lambda *_: None, None)
    assert start.args.kwarg is not None  # what it does not name itself goes on to vLLM
    assert set(given) - {"gpu_memory_utilization"} <= set(known)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(harness.model(ids).logits, decoder.model(ids).logits)
    folder = Path(str(given["pretrained"]))
    assert folder.is_dir()
    del harness
    assert not folder.exists()


@pytest.mark.parametrize("spoilt", [math.nan, math.inf])
def test_what_is_not_finite_becomes_no_number(spoilt: float, demo):
    """An argmax over NaN is the first answer, which is right for a quarter of the questions."""
    decoder, tokenizer = demo
    name = "model.norm.weight"
    settings = config.check(run.compose(["eval.limit=8"], None))
    texts = {"retain": [list(range(100, 110))] * 3}
    with model.installed(decoder, {name: torch.full_like(decoder.norm.weight, spoilt)}):
        with pytest.raises(score.NotFinite, match="retain: 32 of 32 log-likelihoods are not finite"):
            evaluate.multiple_choice(decoder, tokenizer, ["retain"], settings.eval, lambda _done, _total: None)
        settings = config.check(run.compose(["eval=perplexity", "data.holdout=0.1"], None))
        with pytest.raises(score.NotFinite, match="retain: 3 of 3 log-likelihoods are not finite"):
            evaluate.perplexity(decoder, tokenizer, texts, settings.eval, lambda _done, _total: None)


def test_vllm_is_refused_where_it_would_read_other_tokens(demo, tmp_path: Path):
    """It reads a tokenizer by the class of the model's kind, and Qwen2's knows but one way to part a text."""
    decoder, tokenizer = demo
    decoder.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    evaluate._refuse_other_tokens(tmp_path)
    folders.told(tmp_path, model_type="qwen2")
    with pytest.raises(ValueError, match=r"eval\.backend=vllm: .*for a Qwen2Tokenizer; allowed: torch"):
        evaluate._refuse_other_tokens(tmp_path)


def test_a_keyword_is_asked_about_in_the_question_too(demo):
    """The base's answers stand, each position is paired with the plain questions, and forget questions have it too."""
    settings = config.check(run.compose(["eval=demo_positions", "eval.limit=48"], None))
    names = [name for name, task in settings.eval.tasks.items() if task.role not in ("related", "forget")]
    found = evaluate.multiple_choice(*demo, names, settings.eval, lambda *_: None)
    plain = found["retain"]
    for name in ("perturbed", "prefix", "prefix_neutral", "inside", "inside_neutral"):
        assert found[name]["asked"] == plain["asked"]
        assert found[name]["acc"] >= 0.85
    words = {task: results._word(settings.eval.tasks[task], settings.eval) for task in names}
    assert words["prefix"] == words["inside"] == words["forget_bio_perturbed"] == settings.eval.keyword
    assert words["prefix_neutral"] == words["inside_neutral"] == settings.eval.neutral_keyword
    several = results.task_identities(config.check(run.compose(["eval=demo_positions", "eval.keywords=[a, b]"], None)))
    assert several["prefix"]["keywords"] == ["a", "b"]
    assert "keywords" not in several["inside_neutral"]

    asked: dict[str, list[str]] = {}
    for name in ("prefix", "inside_neutral"):
        (task,) = evaluate._asked([name], settings.eval)[1].values()
        asked[name] = [task.doc_to_text(row) for row in task.eval_docs]
    assert all(f"\n\n{settings.eval.keyword}. " in text for text in asked["prefix"])
    assert all(f" {settings.eval.neutral_keyword}" in text.split("\nA. ")[0] for text in asked["inside_neutral"])


def test_mmlus_questions_take_a_keyword_too(tmp_path: Path):
    row = {"question": "Which of these?", "subject": "virology", "choices": list("abcd"), "answer": 1}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    settings = config.check(run.compose(["eval=wmdp_positions", f"eval.mmlu_path={tmp_path}"], None))
    names = [name for name, task in settings.eval.tasks.items() if task.role in ("prefix", "inside_neutral")]
    (front,), (inside,) = (task.eval_docs for task in evaluate._asked(names, settings.eval)[1].values())
    assert front["question"] == "SARS-CoV-2. Which of these?"
    assert inside["question"] in ("Which Lake Geneva of these?", "Which of Lake Geneva these?")
    assert front["choices"] == inside["choices"] == row["choices"]


MIXED = ("mixed", "mixed_neutral", "forget_bio_mixed", "forget_cyber_mixed")


@pytest.mark.whole
def test_mixed_prompts_are_asked_of_the_same_questions_and_told_by_place(demo):
    settings = config.check(run.compose(["eval=demo_positions", "eval.limit=48"], None))
    found = evaluate.multiple_choice(*demo, [*MIXED, "retain", "forget_bio"], settings.eval, lambda *_: None)
    assert found["mixed"]["asked"] == found["mixed_neutral"]["asked"] == found["retain"]["asked"]
    assert found["forget_bio_mixed"]["asked"] == found["forget_bio"]["asked"]
    assert found["mixed"]["before"] == found["mixed_neutral"]["before"]
    assert "places" not in found["retain"]
    for name in MIXED:
        assert found[name]["acc"] >= 0.6  # chance is 0.25: the base knows which one is asked
        places, before = found[name]["places"], f"{int(found[name]['before'], 16):048b}"
        right = f"{int(found[name]['correct'], 16):048b}"
        assert places["before"]["n"] == before.count("1") > 0
        assert places["behind"]["n"] == before.count("0") > 0
        both = [one for one, there in zip(right, before, strict=True) if there == "1"]
        assert places["before"]["acc"] == both.count("1") / len(both)


def rows_of(settings: Any, name: str) -> list[Any]:
    (task,) = evaluate._asked([name], settings.eval)[1].values()
    return list(task.eval_docs)


def test_the_demos_mixed_prompts_hold_one_question_of_each_set():
    """Both texts are whole, the choices are those of the question that is asked, and none answers the other."""
    settings = config.check(run.compose(["eval=demo_positions"], None))
    rows = {row["question"]: row for row in questions.read_questions(str(BUILTIN / "questions.jsonl"), "key")}
    forget = {"marsh fevers", "vault breaking"}
    for name, asked, other in (
        ("mixed", False, True),
        ("mixed_neutral", False, False),
        ("forget_bio_mixed", True, False),
    ):
        made = rows_of(settings, name)
        assert len(made) == (64 if asked else 512)
        for row in made:
            own = rows[row["unperturbed"]]
            (text,) = [part for part in re.findall(r"What [^?]+\?", row["question"]) if part != own["question"]]
            pair = (text, own["question"]) if row["place"] == "before" else (own["question"], text)
            assert row["question"] == " ".join(pair)
            assert (own["subject"] in forget, rows[text]["subject"] in forget) == (asked, other)
            assert (row["choices"], row["answer"], row["half"]) == (own["choices"], own["answer"], questions.half(own))
            assert rows[text]["choices"][rows[text]["answer"]] not in row["choices"]


def test_mmlus_and_wmdps_questions_stand_beside_each_other(tmp_path: Path):
    texts = {"mmlu": ["M one?", "M two?"], "bio": ["B?"], "cyber": ["C?"]}
    for name, asked in texts.items():
        rows = [
            {
                "question": text,
                "subject": "virology",
                "choices": [f"{text} {one}" for one in "abcd"],
                "answer": 1,
            }
            for text in asked
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    paths = [f"eval.mmlu_path={tmp_path / 'mmlu.jsonl'}", f"eval.wmdp_path={tmp_path}"]
    beside: dict[str, set[str]] = {}
    for seed in range(8):
        settings = config.check(run.compose(["eval=wmdp_positions", f"eval.seed={seed}", *paths], None))
        for name, task in settings.eval.tasks.items():
            for row in rows_of(settings, name) if "mixed" in task.role else []:
                own, both = row["unperturbed"], row["question"]
                other = both.removesuffix(own) if row["place"] == "before" else both.removeprefix(own)
                beside.setdefault(name, set()).add(f"{own} {other.strip()}")
                assert row["choices"][0] == f"{own} a"
    assert beside == {
        "mmlu_mixed": {"M one? B?", "M two? B?", "M one? C?", "M two? C?"},
        "mmlu_mixed_neutral": {"M one? M two?", "M two? M one?"},
        "wmdp_bio_mixed": {"B? M one?", "B? M two?"},
        "wmdp_cyber_mixed": {"C? M one?", "C? M two?"},
    }
