"""Random models of a few thousand parameters, one for each architecture, and ragged batches for them."""

from pathlib import Path
from typing import Any

import torch

from rna.corpora.batch import Batch, pad
from rna.decoder import model
from rna.decoder.model import Decoder
from rna.settings.fields import BUILTIN

ARCHITECTURES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3Text", "Phi3")
VOCABULARY = 61
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}


def decoder(
    architecture: str = "Llama", *, layers: int = 5, dtype: torch.dtype = torch.float32, **options: Any
) -> Decoder:
    """A random model of the architecture, split; weights large enough that every layer matters."""
    import transformers

    sizes = {**SIZES, "num_hidden_layers": layers}
    if architecture == "Phi3":
        sizes.pop("head_dim")
    name = "Gemma3" if architecture == "Gemma3Text" else architecture
    config = getattr(transformers, f"{architecture}Config")(**{**sizes, **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, f"{name}ForCausalLM")(config)
    return model.split(made.to(dtype).eval().requires_grad_(False))


LAYER_PATH = "model.language_model.layers"  # of `nested`


def nested(folder: Path) -> list[str]:
    """A random model on disk that reads images too, whose decoder lies deeper; the overrides that choose it."""
    import transformers

    text = {**SIZES, "vocab_size": 536, "num_hidden_layers": 4, "max_position_embeddings": 512}  # the demo's tokens
    image = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    image |= {"image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config=image, mm_tokens_per_image=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = transformers.Gemma3ForConditionalGeneration(config)
    made.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((BUILTIN / "base" / name).read_bytes())
    return [f"model.path={folder}", "model.num_layers=4", f"model.layer_path={LAYER_PATH}", "model.retrained=null"]


def batch(seed: int, lengths: tuple[int, ...] = (9, 5, 7)) -> Batch:
    """Rows of random tokens of these lengths, padded with token 0, which also occurs as a real token."""
    source = torch.Generator().manual_seed(seed)
    return pad([torch.randint(0, VOCABULARY, (length,), generator=source).tolist() for length in lengths], 0)
