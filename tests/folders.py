"""Small model folders, sound ones and ones with a fault, made on the spot."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from rna.settings.fields import BUILTIN
from tests import tiny

WORDS = 536  # of the demo's tokenizer


def sound(folder: Path, architecture: str = "Llama", **options: Any) -> Path:
    """A random model of three layers with the demo's tokenizer."""
    sizes = {"layers": 3, "vocab_size": WORDS, "tie_word_embeddings": False, "max_position_embeddings": 512}
    made: Any = tiny.decoder(architecture, **(sizes | options)).model
    made.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / "base" / name, folder)
    return folder


def told(folder: Path, name: str = "config.json", **changes: Any) -> None:
    """Change values of a JSON file; None takes them out."""
    file = folder / name
    found = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write the weights again as `change` has them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def renamed(folder: Path, new: Callable[[str], str]) -> None:
    tensors(folder, lambda found: {new(name): tensor for name, tensor in found.items()})


def without(folder: Path, *endings: str) -> None:
    tensors(folder, lambda found: {name: tensor for name, tensor in found.items() if not name.endswith(endings)})


def sharded(folder: Path, shards: int = 2, suffix: str = "safetensors") -> list[Path]:
    """The weights in several files with an index, as large models have them."""
    found = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem, files, shard_of = "model" if suffix == "safetensors" else "pytorch_model", list[Path](), dict[str, str]()
    for number in range(shards):
        part = dict(list(found.items())[number::shards])
        file = folder / f"{stem}-{number + 1:05}-of-{shards:05}.{suffix}"
        if suffix == "bin":
            torch.save(part, file)
        else:
            save_file(part, file, metadata={"format": "pt"})
        shard_of |= dict.fromkeys(part, file.name)
        files.append(file)
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return files


def pickled(folder: Path) -> Path:
    """The weights as pytorch_model.bin."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder / "pytorch_model.bin"


def pointer(file: Path) -> None:
    """What git leaves of a large file where git-lfs did not fetch it."""
    size = file.stat().st_size if file.exists() else 1
    file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize {size}\n")


def cut(file: Path, share: float = 0.5) -> None:
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])


def gguf(file: Path, folder: Path, layers: int = 3, rule: str | None = None) -> Path:
    """A GGUF file of a Llama folder's weights, of its first layers, with a byte-level vocabulary."""
    from gguf import GGUFWriter
    from tokenizers import pre_tokenizers

    config, found = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")
    vocabulary = ["<unk>", "<s>", "</s>", "th", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += [f"unused{number}" for number in range(len(vocabulary), config["vocab_size"])]
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(vocabulary)
    writer.add_token_merges(["t h"])
    if rule:
        writer.add_tokenizer_pre(rule)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    parts = {
        **{"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"},
        **{"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"},
        **{"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"},
    }
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    names |= {f"model.layers.{i}.{own}": f"blk.{i}.{new}" for i in range(layers) for own, new in parts.items()}
    for own, new in names.items():
        writer.add_tensor(f"{new}.weight", found[f"{own}.weight"].numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return file
