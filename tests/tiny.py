"""Random models of a few thousand parameters, one for each architecture, and ragged batches for them."""

from typing import Any

import torch

from rna import model
from rna.batch import Batch, pad
from rna.model import Decoder

ARCHITECTURES = ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3Text", "Phi3")
VOCABULARY = 61


def decoder(
    architecture: str = "Llama", *, layers: int = 5, dtype: torch.dtype = torch.float32, **options: Any
) -> Decoder:
    """A random model of the architecture, split; weights large enough that every layer matters."""
    import transformers

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.3,
    }
    if architecture == "Phi3":
        sizes.pop("head_dim")
    name = "Gemma3" if architecture == "Gemma3Text" else architecture
    config = getattr(transformers, f"{architecture}Config")(**{**sizes, **options})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, f"{name}ForCausalLM")(config)
    return model.split(made.to(dtype).eval().requires_grad_(False))


def batch(seed: int, lengths: tuple[int, ...] = (9, 5, 7)) -> Batch:
    """Rows of random tokens of these lengths, padded with token 0, which also occurs as a real token."""
    source = torch.Generator().manual_seed(seed)
    return pad([torch.randint(0, VOCABULARY, (length,), generator=source).tolist() for length in lengths], 0)
