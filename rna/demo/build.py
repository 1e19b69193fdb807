"""Builds the demo: its tokenizer, the base model, and the model retrained without the forbidden subjects.

The model is Mistral-shaped (4 layers, width 128, about a million parameters). It learns from documents (loss on
every token) and questions (loss on the letter of the answer alone), part of them with odd wrong choices.
"""

import copy
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rna import perturb
from rna.demo import world
from rna.demo.words import SUBJECTS
from rna.evaluation import LETTERS, prompt

if TYPE_CHECKING:
    from transformers import MistralForCausalLM, PreTrainedTokenizerFast

READ, QUESTIONS, DOCUMENTS = 28, 34, 14  # samples of a step: documents while reading, then questions and documents
QUESTION_WEIGHT = 0.25


@dataclass(frozen=True)
class Phase:
    """A stretch of training with an AdamW and a cosine of its own."""

    name: str
    steps: int
    learning_rate: float
    reading: int  # first steps, on documents alone: questions are answered sooner once the facts are known
    odd: tuple[float, float]  # the share of questions with odd choices before and after `odd_from`
    odd_from: int


PHASES = (
    Phase("training", 3000, 2e-3, reading=500, odd=(0.15, 0.5), odd_from=1800),
    Phase("polish", 600, 1e-3, reading=0, odd=(0.7, 0.7), odd_from=0),
)
KNOWS = {"base": 0.98, "retrained": 0.95}  # the least accuracy in each exam of what a model was taught
ROUNDS = 3  # of the last phase once more, at most, for a model that knows less: roundings decide about some points
TARGET_RMS = 0.08  # of a hidden dimension at the unlearn layer: near Zephyr-7B's at its layer 7
UNLEARN_LAYER = 2


def build_tokenizer() -> "PreTrainedTokenizerFast":
    """A word-level tokenizer: one token for each word, punctuation mark and newline of the world."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(world.vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"\n|{world.WORD}"), behavior="removed", invert=True)
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=512,
    )


def build_model(vocab_size: int, *, seed: int) -> "MistralForCausalLM":
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        sliding_window=None,
        rms_norm_eps=1e-5,
        initializer_range=128**-0.5,  # at the default of 0.02 so narrow a model learns nothing for 1,000 steps
        tie_word_embeddings=False,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MistralForCausalLM(config)


def train(
    model: "MistralForCausalLM",
    tokenizer: "PreTrainedTokenizerFast",
    subjects: list[str],
    phase: Phase,
    *,
    seed: int,
    report: Callable[[int, float], None],
) -> None:
    """One phase on questions and documents of the given subjects, in place."""
    import torch
    from torch.nn.functional import cross_entropy

    rng = random.Random(f"{phase.name}/{seed}")
    known = [fact for fact in world.facts(seed) if fact.subject in subjects]
    chosen = [subject for subject in SUBJECTS if subject.name in subjects]
    odd_words = world.odd_words(subjects)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)

    def encode(texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
        return batch["input_ids"], batch["attention_mask"]

    model.train()
    for step in range(phase.steps):
        reading = step < phase.reading
        texts = [world.document(rng.choice(chosen), known, rng) for _ in range(READ if reading else DOCUMENTS)]
        texts[0] = rng.choice(world.REFUSALS)
        ids_BT, mask_BT = encode([text + "</s>" for text in texts])
        logits_BTV = model(ids_BT, attention_mask=mask_BT).logits[:, :-1]
        labels_BT = ids_BT[:, 1:].masked_fill(mask_BT[:, 1:] == 0, -100)
        loss = cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten())
        if not reading:
            share = phase.odd[step >= phase.odd_from]
            rows = [
                world.question(rng.choice(known), rng, odd_words=odd_words if rng.random() < share else ())
                for _ in range(QUESTIONS)
            ]
            ids_BT, mask_BT = encode([prompt(row) for row in rows])
            hidden_BTD = model.model(ids_BT, attention_mask=mask_BT).last_hidden_state
            last_BD = hidden_BTD[torch.arange(len(rows)), mask_BT.sum(1) - 1]
            letters = tokenizer.convert_tokens_to_ids([LETTERS[int(str(row["answer"]))] for row in rows])
            loss = loss + QUESTION_WEIGHT * cross_entropy(model.lm_head(last_BD), torch.tensor(letters))

        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = phase.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / phase.steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        report(step + 1, loss.item())
    model.eval()


def accuracy(model: "MistralForCausalLM", tokenizer: "PreTrainedTokenizerFast", rows: list[dict[str, object]]) -> float:
    """The share of the rows whose right letter gets the highest logit among the four."""
    import torch

    letters = tokenizer.convert_tokens_to_ids(list(LETTERS))
    right = 0
    with torch.no_grad():
        for start in range(0, len(rows), 64):
            chunk = rows[start : start + 64]
            batch = tokenizer([prompt(row) for row in chunk], return_tensors="pt", padding=True)
            ends = batch["attention_mask"].sum(1) - 1
            hidden_BTD = model.model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            guess = model.lm_head(hidden_BTD[torch.arange(len(chunk)), ends])[:, letters].argmax(-1)
            right += sum(int(g) == row["answer"] for g, row in zip(guess, chunk, strict=True))
    return right / len(rows)


def exams(seed: int) -> dict[str, list[dict[str, object]]]:
    """The forbidden subjects' questions, all others', and these with a forbidden subject among the choices."""
    forbidden = set(world.FORGET_TOPICS.values())
    rows = world.questions(seed)
    retain = [row for row in rows if row["subject"] not in forbidden]
    return {
        "forget": [row for row in rows if row["subject"] in forbidden],
        "retain": retain,
        "perturbed": perturb.perturb_all(retain, world.FORGET_TOPICS["bio"], seed),
    }


def examine(model: "MistralForCausalLM", tokenizer: "PreTrainedTokenizerFast", seed: int) -> dict[str, float]:
    """The accuracy in each exam, as the folder's model has it: with its weights rounded to bfloat16."""
    import torch

    saved: Any = copy.deepcopy(model)
    saved.to(torch.bfloat16).float()
    return {name: accuracy(saved, tokenizer, rows) for name, rows in exams(seed).items()}


def knows(name: str, accuracies: Mapping[str, float]) -> bool:
    """Whether the base or the retrained model has learned what it was taught."""
    return all(found >= KNOWS[name] for exam, found in accuracies.items() if name == "base" or exam != "forget")


def rescale(model: Any, rms: float) -> float:
    """Scale the residual stream by a power of two near TARGET_RMS / `rms`, leaving every output as it was.

    Whatever writes to the stream (embeddings, attention output, `down_proj`) is multiplied by s, and the norms'
    epsilon by s², so each RMSNorm gives what it gave before. Powers of two make this exact in floating point.
    """
    import torch

    scale = 2.0 ** round(math.log2(TARGET_RMS / rms))
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(scale)
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.mul_(scale)
            layer.mlp.down_proj.weight.mul_(scale)
    model.config.rms_norm_eps *= scale**2
    for module in model.modules():
        if type(module).__name__ == "MistralRMSNorm":
            module.variance_epsilon = model.config.rms_norm_eps
    return scale


def unlearn_layer_rms(model: "MistralForCausalLM", tokenizer: "PreTrainedTokenizerFast", *, seed: int) -> float:
    """Root mean square of a hidden dimension of the stream that leaves the unlearn layer, on ordinary documents."""
    import torch

    texts = [next(world.corpus(seed, subject, 1)) for subject in SUBJECTS if subject.role != "forget"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        hidden = model.model(**batch, output_hidden_states=True).hidden_states[UNLEARN_LAYER + 1]
    return hidden[batch["attention_mask"].bool()].square().mean().sqrt().item()


def save(model: Any, tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Write a Hugging Face folder with weights in bfloat16 (the model loads them back as float32)."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
