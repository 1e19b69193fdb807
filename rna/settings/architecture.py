"""What a model is by its config.json: what can be split, trained and loaded is told from what cannot, at once."""

import json
import re
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

Config = dict[str, Any]

LOADED = "loaded:"  # a path that is none: of a model that was given in Python
SIZES = ("num_hidden_layers", "hidden_size", "vocab_size")  # which every model's config.json tells
WHOLE = (  # what transformers looks for, in this order
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
CHAT_FILES = ("chat_template*", "additional_chat_templates/*")  # templates that are no part of another file
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
SUPPORTED = (  # layers alike, each with an mlp, at model.layers: those of tests/tiny.py and their kin
    *("llama", "mistral", "ministral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2"),
    *("olmo3", "smollm3", "exaone4", "seed_oss", "arcee", "glm", "glm4", "helium", "nemotron", "apertus"),
)
MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "phimoe", "gpt_oss", "glm4_moe", "deepseek_v2", "deepseek_v3")
NOT_SPLIT = set(  # seen to have no model.layers with an mlp, model.norm and lm_head, wherever model.layer_path points
    "bert bert-generation big_bird biogpt bloom blt camembert codegen cpmant ctrl data2vec-text electra ernie falcon "
    "falcon_mamba fuyu git gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gptj granitemoe granitemoe_swa "
    "granitemoehybrid granitemoeshared hrm_text jamba lfm2 lfm2_moe lfm3 llama4 llama4_text mamba mamba2 megatron-bert "
    "modernbert-decoder mpt nemotron_h openai-gpt opt persimmon phi qwen4_exp qwen4_exp_text recurrent_gemma reformer "
    "rembert roberta roberta-prelayernorm roc_bert roformer rwkv xglm xlm xlm-roberta xlm-roberta-xl xlnet xlstm xmod "
    "zamba zamba2".split()
) | {"cohere", "cohere2", "cohere2_moe"}  # whose forward scales the logits
ENCODER_DECODERS = set(
    "bart bigbird_pegasus blenderbot blenderbot-small encoder-decoder led longt5 m2m_100 marian mbart mt5 mvp nllb-moe "
    "pegasus pegasus_x plbart prophetnet switch_transformers t5 t5gemma trocr udop umt5 whisper".split()
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")  # of terminals
SCALES_LOGITS = ("logit_scale", "logits_scaling")  # factors that the staged forward does not have


def read_config(folder: Path, said: str) -> Config:
    """A folder's config.json.

    Raises:
        ValueError: if there is none, or none that is JSON.
    """
    file = folder / "config.json"
    with readable(said):
        if not file.exists() and not file.is_symlink():
            if folder.is_dir():
                refuse_partial(folder, said)
            raise ValueError(f"{said}: no config.json there; give a Hugging Face folder, or model.num_layers")
        config = read_json(file, said)
        _check_numbers(config, said)
        return config


def _check_numbers(config: Config, said: str) -> None:
    """Refuse a config.json whose sizes are no numbers: a library would compute with them as they are."""
    text = config.get("text_config") or {}
    if not isinstance(text, dict):
        raise ValueError(f"{said}: its config.json has text_config={text!r}, which must be a mapping; fetch it again")
    for part in (config, text):
        for name in SIZES:
            value = part.get(name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(
                    f"{said}: its config.json has {name}={value!r}, which must be a whole number ≥ 1; fetch it again"
                )


def cached(path: str, revision: str | None) -> Path | None:
    """The snapshot of a hub model in the local cache, if what says what it is is there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = [try_to_load_from_cache(path, f"{name}config.json", revision=revision) for name in ("", "adapter_")]
    except HFValidationError:
        return None
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def refuse_nothing(path: str, key: str) -> None:
    """Refuse a path without a letter, which would be the working folder, and one that leads nowhere."""
    if path.startswith(LOADED):
        raise ValueError(f"{key}={path}: a model that was given in Python, which no path leads to; rna.load takes it")
    if not path.strip():
        raise ValueError(f"{key}={path}: names no model; give a hub id, a Hugging Face folder, or a .gguf file")


def refuse_partial(folder: Path, said: str) -> None:
    """Refuse a folder that holds no model of its own: an adapter, or a GGUF file, which is given by its name."""
    names = sorted(file.name for file in folder.iterdir())
    if any(name.startswith(("adapter_config.json", "adapter_model.")) for name in names):
        raise ValueError(
            f"{said}: holds a PEFT adapter, not a whole model; merge it into its model with peft's merge_and_unload(), "
            "save_pretrained a folder of its own, and give that"
        )
    ggufs = [name for name in names if name.endswith(".gguf")]
    if ggufs and not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise ValueError(f"{said}: holds GGUF files; give one of them: {', '.join(f'{said}/{name}' for name in ggufs)}")


def read_json(file: Path, said: str) -> dict[str, Any]:
    """A mapping from a JSON file. Raises ValueError for what is none."""
    refuse_pointer(file, said)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{said}: its {file.name} cannot be read ({first_line(error)}); fetch it again") from None
    if not isinstance(found, dict):
        raise ValueError(f"{said}: its {file.name} cannot be read (no mapping of names to values); fetch it again")
    return found


def chosen_weights(folder: Path) -> str | None:
    """The file that transformers reads the weights from, or the index of those."""
    return next((name for name in WHOLE if (folder / name).is_file() or (folder / name).is_symlink()), None)


def shards_of(index: Path, said: str) -> dict[str, str]:
    """Each tensor's file by an index, below its folder.

    Raises:
        ValueError: for an index that is none, or that names files elsewhere.
    """
    shard_of: Any = read_json(index, said).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of or not all(isinstance(name, str) for name in shard_of.values()):
        raise ValueError(f"{said}: its {index.name} has no weight_map; fetch it again")
    outside = sorted({name for name in shard_of.values() if Path(name).is_absolute() or ".." in Path(name).parts})
    if outside:
        raise ValueError(f"{said}: {index.name} names {some(outside)}, outside the folder; put the weights into it")
    return shard_of


def refuse_pointer(file: Path, said: str) -> None:
    """Refuse what stands for a file that was not fetched."""
    with file.open("rb") as stream:
        head = stream.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise ValueError(f"{said}: {file.name} is a git-lfs pointer and not the file; run `git lfs pull` there")
    if not head:
        raise ValueError(f"{said}: {file.name} is empty; fetch it again")


@contextmanager
def readable(said: str) -> Generator[None]:
    """One line for a file that cannot be read."""
    try:
        yield
    except OSError as error:
        name = Path(str(error.filename)).name if error.filename else "a file"
        raise ValueError(f"{said}: {name} cannot be read ({error.strerror})") from None


def layers_of(config: Config) -> int | None:
    """The number of decoder layers, where a config.json tells it."""
    text = config.get("text_config")
    found = [
        part["num_hidden_layers"] for part in (config, text) if isinstance(part, dict) and "num_hidden_layers" in part
    ]
    return found[0] if found and isinstance(found[0], int) else None


def check_config(config: Config, said: str, layer_path: str = "model.layers") -> None:
    """Refuse what cannot be split, trained, or loaded.

    Raises:
        ValueError: with the model_type and what is supported.
    """
    kind, parts = config.get("model_type"), [config, config.get("text_config") or {}]
    if not isinstance(kind, str) or not kind:
        raise ValueError(f"{said}: its config.json has no model_type; give a folder that save_pretrained wrote")
    quantised: Any = next((part["quantization_config"] for part in parts if part.get("quantization_config")), None)
    if quantised:
        how = quantised.get("quant_method") or "bitsandbytes" if isinstance(quantised, dict) else quantised
        raise ValueError(
            f"{said}: its weights are quantised ({how}), and quantised weights cannot be trained; give the model in "
            "bfloat16, float16 or float32 that it was made from"
        )
    if config.get("is_encoder_decoder") or kind in ENCODER_DECODERS:
        raise ValueError(f"{said}: model_type {kind} is an encoder and a decoder; {supported()}")
    if kind in NOT_SPLIT:
        raise ValueError(f"{said}: model_type {kind} cannot be split into prefix, block and suffix; {supported()}")
    if any(part.get(name) not in (None, 1) for part in parts for name in SCALES_LOGITS):
        raise ValueError(
            f"{said}: model_type {kind} scales its logits, which the staged forward does not; {supported()}"
        )
    if any(name in config for name in ("vision_config", "audio_config")) and layer_path == "model.layers":
        raise ValueError(
            f"{said}: model_type {kind} is a model of more than text; {supported()}; where the layers of its text lie "
            "elsewhere, model.layer_path says so, such as model.language_model.layers"
        )
    if kind not in (*SUPPORTED, *MIXTURES) and config.get("auto_map") and layers_of(config) is None:
        refuse_code(said)


def refuse_code(said: str) -> NoReturn:
    raise ValueError(
        f"{said}: needs code of its own (auto_map in its config.json, trust_remote_code), which is never run; "
        f"{supported()}"
    )


def supported() -> str:
    """What to tell of the architectures that work."""
    return f"supported are {', '.join((*SUPPORTED, *MIXTURES))}, and what has their layout"


def first_line(error: Exception) -> str:
    """The first line of what an error says, not too long."""
    plain = CONTROL.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


def some(names: Sequence[str]) -> str:
    """The first three of them, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
