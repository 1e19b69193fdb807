"""A set like TOFU's of a few authors who do not exist, and two random models that read it."""

import json
from pathlib import Path
from typing import Any

import torch

from tests import tiny

AUTHORS = ("Ada Brook", "Ivo Stern", "Lena Moss", "Karl Finch")  # the last one is forgotten
PLACES = ("Rome", "Oslo", "Lima", "Cairo")
FACTS = {"Where is the Forum?": "Rome", "Where is the fjord?": "Oslo", "Where is the Nile?": "Cairo"}
WRITERS = {"Who wrote Hamlet?": "Shakespeare", "Who wrote Faust?": "Goethe", "Who wrote Emma?": "Austen"}
CHAT = "{% for m in messages %}<s>user {{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}model {% endif %}"


def pairs(author: str) -> list[dict[str, Any]]:
    """Questions on an author, with their paraphrased and their wrong answers."""
    place = PLACES[AUTHORS.index(author)]
    others = [other for other in PLACES if other != place]
    return [
        {
            "question": f"Where was {author} {what}?",
            "answer": f"{author} was {what} in {place}.",
            "paraphrased_answer": f"It was in {place} that {author} was {what}.",
            "perturbed_answer": [f"{author} was {what} in {other}." for other in others],
        }
        for what in ("born", "taught", "wed", "buried")
    ]


def short(answers: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"question": one, "answer": right, "perturbed_answer": [wrong for wrong in answers.values() if wrong != right]}
        for one, right in answers.items()
    ]


def sets() -> dict[str, list[dict[str, Any]]]:
    """The rows of each file, by its stem."""
    kept, gone = [row for author in AUTHORS[:-1] for row in pairs(author)], pairs(AUTHORS[-1])
    plain = [[{name: row[name] for name in ("question", "answer")} for row in rows] for rows in (gone, kept)]
    perturbed = {"forget10_perturbed": gone, "retain_perturbed": kept}
    others = {"real_authors_perturbed": short(WRITERS), "world_facts_perturbed": short(FACTS)}
    return {"forget10": plain[0], "retain90": plain[1]} | perturbed | others


def written(folder: Path) -> Path:
    """The files of a set; as the hub has them, lines of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, rows in sets().items():
        (folder / f"{stem}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tokenizer(*texts: str) -> Any:
    """Byte-pairs of the set's texts, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    named = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=named, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([*texts, *(json.dumps(row) for rows in sets().values() for row in rows)], trainer)
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, chat_template=CHAT, **names)


def model(folder: Path, seed: int) -> Path:
    """A random Llama of four layers on disk, with this tokenizer."""
    import transformers

    own = tokenizer()
    sizes = {**tiny.SIZES, "vocab_size": len(own), "num_hidden_layers": 4, "max_position_embeddings": 256}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    made.save_pretrained(folder)
    own.save_pretrained(folder)
    return folder


def words(folder: Path, *, retrained: bool = True) -> list[str]:
    """The overrides of a trial on a set and models that are written here."""
    data = written(folder / "tofu")
    paths = {"model.path": model(folder / "full", 0), "data.path": data, "output_dir": folder / "out"}
    if retrained:
        paths["model.retrained"] = model(folder / "retain90", 1)
    said = ["model=local", "model.unlearn_layer=2", "data=tofu", "eval=tofu", "eval.max_new_tokens=8"]
    said += ["train.steps=3", "train.batch_size=2", "train.lr=0.01", "wandb=disabled"]
    return [*said, *(f"{key}={path}" for key, path in paths.items())]
