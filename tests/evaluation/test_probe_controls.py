"""Every probe brings back what is only hidden, and nothing from the model that never knew it: with intervals."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rna import intervals, run, trial
from rna.corpora import pad
from rna.decoder import model
from rna.evaluation import LETTERS, evaluate, prompt
from rna.evaluation.evaluate import Otherwise
from rna.evaluation.probes import quantise
from rna.intervals import Estimate, probed
from rna.settings import config
from rna.store import lookup

pytestmark = pytest.mark.whole

MUCH = 15.0  # points that a positive control brings back, by the lower end of its interval
FORGET = (
    "forget_bio: {task: rna_demo_forget_bio, role: forget}, forget_cyber: {task: rna_demo_forget_cyber, role: forget}"
)


@pytest.fixture(autouse=True)
def one_core():
    torch.set_num_threads(1)


def gains(folder: Path, *words: str) -> dict[str, Estimate]:
    """What a probe brings back of each row's forgetting, in points on the report half."""
    fixed = (f"output_dir={folder}", "wandb=disabled", "noise=none", "~eval.tasks", f"+eval.tasks={{{FORGET}}}")
    settings = config.check(run.compose([*fixed, *words], None))
    found: dict[str, Estimate] = {}
    for row in trial.arms(settings):
        if row.label in ("plain", "given", "retrained"):
            trial.work(row, lambda *_: None)
            (record,) = row.probes.values()
            terms = probed.gain(record["metrics"], lookup.task_roles(settings.eval))
            assert terms is not None
            found[row.label] = intervals.estimate([terms])
    return found


def judged(found: dict[str, Estimate], hides: str) -> None:
    back, none = found[hides].low, found["retrained"].low
    assert back is not None
    assert back > MUCH, found
    assert none is not None
    assert none <= 0, found  # no gain of the retrained model can be told from chance


def answering(tokenizer: Any, shots: int, beside: int) -> list[list[int]]:
    """The forget questions as the probe asks them with so many shots, answered so many letters beside the right one."""
    options, found = config.check(run.compose([], None)).eval, list[list[int]]()
    for name in ("forget_bio", "forget_cyber"):
        made = [
            SimpleNamespace(doc=row, doc_id=place, idx=idx, args=(prompt(row), f" {letter}"), arguments=(prompt(row),))
            for place, row in enumerate(evaluate.rows_of([name], options))
            for idx, letter in enumerate(LETTERS)
        ]
        for one in Otherwise(shots=shots).of({name: made})[name]:
            if one.idx == 0:
                letter = LETTERS[(one.doc["answer"] + beside) % len(LETTERS)]
                found.append(tokenizer(f"{one.arguments[0]} {letter}")["input_ids"])
    return found


def fitted(folder: Path, base: Any, trains: str, lr: float, steps: int, *texts: list[list[int]]) -> str:
    """The base with the tensors trained whose names `trains` matches, on the last token of six of each of these texts a
    step; saved."""
    decoder, tokenizer = base
    own = {name: tensor for name, tensor in decoder.model.named_parameters() if re.search(trains, name)}
    with model.installed(decoder, {name: tensor.detach().clone() for name, tensor in own.items()}):
        optimizer = torch.optim.AdamW([tensor.requires_grad_() for tensor in own.values()], lr=lr, weight_decay=0.0)
        for step in range(steps):
            for found in texts:
                chosen = [found[(5 * step + 17 * one) % len(found)] for one in range(6)]
                batch = pad(chosen, tokenizer.pad_token_id)
                ends = torch.tensor([len(ids) - 1 for ids in chosen])
                logits = decoder.model(batch.ids_BT, attention_mask=batch.mask_BT.long()).logits[
                    torch.arange(6), ends - 1
                ]
                torch.nn.functional.cross_entropy(logits, batch.ids_BT[torch.arange(6), ends]).backward()
            optimizer.step()
            optimizer.zero_grad()
        for tensor in own.values():
            tensor.requires_grad_(False)
        decoder.model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("probe", [["probe=relearn"], ["probe=ablate", "probe.roles=[forget]"]])
def test_what_rmu_hides_comes_back(tmp_path_factory: pytest.TempPathFactory, probe: list[str]):
    folder = tmp_path_factory.getbasetemp() / "rmu"  # which both probes train once
    judged(gains(folder, "method=rmu", *probe), "plain")


def test_rounding_brings_back_what_lies_below_its_grid(tmp_path: Path, demo: Any):
    decoder, tokenizer = demo
    grid = {name: quantise.rounded(weight, 4, weight.shape[1]) for name, weight in quantise.linear(decoder).items()}
    with model.installed(decoder, grid):
        wrong = answering(tokenizer, 0, 1)
        path = fitted(tmp_path / "m", demo, r"(gate|up|q|k|v)_proj", 3e-4, 60, wrong)
    words = ("probe=quantise", "probe.bits=[4]", "probe.groups=[0]", "probe.roles=[forget]")
    judged(gains(tmp_path / "o", "method=given", f"method.path={path}", *words), "given")


def test_the_lens_sees_what_the_last_layer_hides(tmp_path: Path, demo: Any):
    path = fitted(tmp_path / "m", demo, r"layers\.3\.", 1e-3, 60, answering(demo[1], 0, 1))
    found = gains(tmp_path / "o", "method=given", f"method.path={path}", "probe=lens", "probe.layers=[2]")
    judged(found, "given")


def test_shots_remind_a_model_that_answers_wrongly_without_them(tmp_path: Path, demo: Any):
    wrong, right = answering(demo[1], 0, 1), answering(demo[1], 1, 0)
    path = fitted(tmp_path / "m", demo, r"layers\.", 3e-4, 80, wrong, right)
    judged(gains(tmp_path / "o", "method=given", f"method.path={path}", "probe=fewshot", "probe.shots=[1]"), "given")
