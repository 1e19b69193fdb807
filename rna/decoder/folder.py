"""A model judged before it is loaded, from config.json, the heads of its weight files and the names of the others.

What a library would say in a paragraph, or do without a word, is one line here. A loaded model is the one in the
folder, whole, or it is refused.
"""

import importlib.util
import json
import re
import zipfile
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rna import ends
from rna.settings import architecture

NO_CHAT = "its tokenizer has no chat template; give one as chat_template.jinja there, or eval.chat_template=false"
Heads = dict[str, dict[str, Any]]  # a tensor's name -> its dtype and shape, as the head of a safetensors file has them

TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.*",
    "*.tiktoken",
    "*spiece.model",
    "*.bpe.model",
    "tekken.json",
)
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
WRAPPERS = {  # parts of tensors' names -> what put them there
    "module": "DistributedDataParallel or FSDP",
    "_fsdp_wrapped_module": "FSDP",
    "_forward_module": "a trainer",
    "_orig_mod": "torch.compile",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "base_model": "PEFT",
    "base_layer": "PEFT",
    "lora_A": "PEFT",
    "pretrained_model": "TRL",
}
QUANTISED = ("qweight", "qzeros", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv", "absmax", "SCB")
FLOATS = ("F64", "F32", "F16", "BF16")
ELSEWHERE = {"<image_soft_token>"}  # Gemma 3's text models share the tokenizer of those that see
SAID = (  # words of a library's paragraph -> what it comes to
    (
        "Couldn't instantiate the backend tokenizer",
        "no tokenizer can be made of its files; copy the tokenizer.json of the model it was made from there, or fetch "
        "what is missing",
    ),
    (
        "Weights only load failed",
        "its .bin file is broken, or a pickle of more than tensors (a whole module), whose code is never run; fetch it "
        "again, or save the model with save_pretrained",
    ),
)
_MEND = "; give the config.json and the weights of one model"
UNREAD = re.compile(r"(^|\.)mtp\.|rotary_emb\.inv_freq$|(^|\.)position_ids$|masked_bias$")  # no part of a model here
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.(.+)")
DECODERS = ("model.layers.", "layers.", "model.language_model.layers.")
PLACE = re.compile(r"(.*?)model\.(?:language_model\.)?layers\.\d+\.")


def check(
    path: str,
    revision: str | None = None,
    *,
    key: str = "model.path",
    layer_path: str = "model.layers",
    num_layers: int | None = None,
    trained: Sequence[int] = (),
) -> None:
    """Refuse a model that would not load, would not load whole, or cannot be split; no weights are read.

    A hub id is judged by what of it is in the local cache.

    Args:
        num_layers: how many layers the settings speak of.
        trained: layers of which `mlp.down_proj.weight` trains.

    Raises:
        ValueError: one line with the key, the path, what is wrong, and what to do.
    """
    architecture.refuse_nothing(path, key)
    where, said = Path(path), f"{key}={path}"
    with architecture.readable(said):
        if where.is_file():
            return _check_file(where, said)
        folder = place_of(path, revision)
        if folder is None:
            return None  # `model_fingerprint` says what is not there
        whole = where.is_dir()
        architecture.refuse_partial(folder, said)
        chosen = _chosen(folder, said, whole)
        unread(path, said)
        config = architecture.read_config(folder, said)
        architecture.check_config(config, said, layer_path)
        _check_known(config, said)
        depth = architecture.layers_of(config)
        if num_layers is not None and depth is not None and num_layers != depth:
            raise ValueError(f"{said}: has {depth} layers by its config.json, not model.num_layers={num_layers}")
        _check_tokenizer(folder, config, said, whole)
        heads = _heads(folder, chosen, said, whole) if chosen else {}
        if heads:
            _check_names(heads, config, said)
            _check_trained(heads, trained, said)


def check_chat(path: str, revision: str | None = None, *, key: str = "model.path") -> None:
    """Refuse a folder or cached model without a chat template; of a GGUF file only loading tells.

    Raises:
        ValueError: one line with the key and the path.
    """
    folder = None if Path(path).is_file() else place_of(path, revision)
    if folder is None or any(file for pattern in architecture.CHAT_FILES for file in folder.glob(pattern)):
        return
    if not tokenizer_settings(folder, f"{key}={path}").get("chat_template"):
        raise ValueError(f"{key}={path}: {NO_CHAT}")


def place_of(path: str, revision: str | None) -> Path | None:
    """Where a model's files lie, if they do."""
    where = Path(path)
    return where.parent if where.is_file() else where if where.is_dir() else architecture.cached(path, revision)


def _check_file(file: Path, said: str) -> None:
    if file.suffix != ".gguf":
        raise ValueError(f"{said}: no GGUF file; give the Hugging Face folder it lies in, or a .gguf file")
    architecture.refuse_pointer(file, said)
    if (file.parent / "adapter_config.json").exists():
        raise ValueError(f"{said}: a PEFT adapter lies beside it, which would be loaded with it; give a folder without")
    with file.open("rb") as stream:
        head = stream.read(24)
    if len(head) < 24 or head[:4] != b"GGUF":
        raise ValueError(f"{said}: no GGUF file, or the beginning of one; fetch it again")
    if importlib.util.find_spec("gguf") is None:
        raise ValueError(f"{said}: reading GGUF needs the package gguf: pip install 'rna-unlearning[gguf]'")


def _check_known(config: architecture.Config, said: str) -> None:
    """Ask transformers about a model_type that is none of the usual, or that comes with code of its own."""
    kind, mapped = config["model_type"], config.get("auto_map")
    own = str(mapped.get("AutoModelForCausalLM", "")).rpartition(".")[2] if isinstance(mapped, dict) else ""
    if kind in (*architecture.SUPPORTED, *architecture.MIXTURES) and not own:
        return
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind, ())
    native = [classes] if isinstance(classes, str) else list(classes)
    if (mapped and kind not in CONFIG_MAPPING) or (own and own not in native):
        architecture.refuse_code(said)
    if kind not in CONFIG_MAPPING:
        close = get_close_matches(kind, [*architecture.SUPPORTED, *architecture.MIXTURES], n=1)
        hint = f"did you mean '{close[0]}'? " if close else "a newer transformers may know it; "
        raise ValueError(f"{said}: transformers knows no model_type {kind}; {hint}{architecture.supported()}")
    if not native:
        raise ValueError(f"{said}: model_type {kind} is no causal language model; {architecture.supported()}")


def _check_tokenizer(folder: Path, config: architecture.Config, said: str, whole: bool) -> None:
    present = [file for pattern in TOKENIZERS for file in sorted(folder.glob(pattern))]
    settings = _settings(folder, said)
    file = folder / "tokenizer.json"
    ids = _added(file, said) if file.is_file() or file.is_symlink() else {}
    for file in present:
        architecture.refuse_pointer(file, said)
    mapped = settings.get("tokenizer_config.json", {}).get("auto_map")
    if mapped and not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"{said}: its tokenizer needs code of its own (auto_map in its tokenizer_config.json, trust_remote_code), "
            "which is never run; give a folder with a tokenizer.json"
        )
    ids |= {word: index for word, index in _named(settings, said).items() if index is not None}
    rows = (config.get("text_config") or config).get("vocab_size")
    if isinstance(rows, int):
        _refuse_ids(said, ids, rows)
    needs_none = str(settings.get("tokenizer_config.json", {}).get("tokenizer_class", "")).startswith("ByT5")
    if (
        present
        and all(file.suffix == ".model" for file in present)
        and importlib.util.find_spec("sentencepiece") is None
    ):
        raise ValueError(
            f"{said}: its tokenizer is a {present[0].name} alone, which needs the package sentencepiece: "
            "pip install 'rna-unlearning[sentencepiece]', or give a folder with a tokenizer.json"
        )
    if whole and not present and not needs_none:
        raise ValueError(
            f"{said}: has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, …); copy the tokenizer's files of "
            "the model it was made from there"
        )


def tokenizer_settings(folder: Path, said: str) -> dict[str, Any]:
    """What a folder's tokenizer_config.json says, if there is one."""
    return _settings(folder, said).get("tokenizer_config.json", {})


def _settings(folder: Path, said: str) -> dict[str, dict[str, Any]]:
    """What a tokenizer's small files say, by their names."""
    files = [folder / name for name in SETTINGS]
    return {file.name: architecture.read_json(file, said) for file in files if file.is_file() or file.is_symlink()}


def _named(settings: dict[str, dict[str, Any]], said: str) -> dict[str, int | None]:
    """The words that a tokenizer's settings speak of, with their ids where they tell them."""

    def word(value: Any) -> str:
        return str(value.get("content") if isinstance(value, dict) else value)

    found: dict[str, int | None] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in settings.get(name, {}).items():
            several = list(value.values()) if isinstance(value, dict) and "content" not in value else value
            if key.endswith("_token") and value is not None:
                found[word(value)] = None
            elif key in ("additional_special_tokens", "extra_special_tokens") and isinstance(several, list):
                found |= {word(one): None for one in several}
    decoder = settings.get("tokenizer_config.json", {}).get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise ValueError(
            f"{said}: its tokenizer_config.json has added_tokens_decoder={decoder!r}, which must be a mapping of ids "
            "to tokens; fetch it again"
        )
    found |= {word(value): int(index) for index, value in decoder.items() if str(index).isdigit()}
    added = settings.get("added_tokens.json", {})
    return found | {word: index for word, index in added.items() if isinstance(index, int)}


def _added(file: Path, said: str) -> dict[str, int]:
    """The tokens that were added to a tokenizer.json, from its head: the file may have tens of megabytes."""
    architecture.refuse_pointer(file, said)
    with file.open("rb") as stream:
        head = stream.read(2**20).decode(errors="replace")
        stream.seek(max(0, file.stat().st_size - 64))
        ends = stream.read().rstrip().endswith(b"}")
    if not head.lstrip().startswith("{") or not ends:
        raise ValueError(f"{said}: its {file.name} is truncated, or no JSON; fetch it again")
    start = re.search(r'"added_tokens"\s*:\s*(?=\[)', head)
    try:
        found: Any = json.JSONDecoder().raw_decode(head, start.end())[0] if start else []
        return {str(entry["content"]): int(entry["id"]) for entry in found}
    except (ValueError, TypeError, LookupError):
        return {}  # more than the head holds, or not as it should be, which its reader will say


def _chosen(folder: Path, said: str, whole: bool) -> str | None:
    """The file that transformers reads the weights from, or the index of those."""
    chosen = architecture.chosen_weights(folder)
    if chosen is None:
        if not whole:
            return None
        other = sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin", ".pt", ".pth"))
        there = f"it has {architecture.some(other)}; " if other else ""
        raise ValueError(
            f"{said}: a folder without weights of a name that is read; {there}needs {', '.join(architecture.WHOLE)}"
        )
    return chosen


def unread(path: str, said: str) -> str | None:
    """What to say of weights that lie beside those that are read.

    Raises:
        ValueError: if they are of the same kind, so that the folder holds two models.
    """
    place = Path(path)
    there = [name for name in architecture.WHOLE if (place / name).is_file()] if place.is_dir() else []
    if len(there) < 2:
        return None
    first, *others = there
    for other in others:
        same_kind = other == f"{first}.index.json"
        if same_kind and all((place / name).is_file() for name in architecture.shards_of(place / other, said).values()):
            raise ValueError(f"{said}: holds two sets of weights, {first} and that of {other}; take one of them away")
    rest = [name for name in others if name != f"{first}.index.json"]
    return f"{said}: {first} is read, and not {' or '.join(rest)} beside it" if rest else None


def _heads(folder: Path, chosen: str, said: str, whole: bool) -> Heads:
    """Names, dtypes and shapes of the tensors in safetensors files; of .bin files only their form is judged.

    Raises:
        ValueError: for weights that are missing, truncated, corrupt, or not fetched.
    """
    if not chosen.endswith(".json"):
        file = folder / chosen
        return _head(file, said) if file.suffix == ".safetensors" else _check_pickle(file, said)
    shard_of = architecture.shards_of(folder / chosen, said)
    shards = sorted(set(shard_of.values()))
    absent = [name for name in shards if not (folder / name).is_file() and not (folder / name).is_symlink()]
    if absent and not whole:
        return {}
    if absent:
        raise ValueError(
            f"{said}: {chosen} names {architecture.some(absent)}, which the folder does not have; fetch what is missing"
        )
    found: Heads = {}
    for name in shards:
        file = folder / name
        found |= _head(file, said) if file.suffix == ".safetensors" else _check_pickle(file, said)
    absent = sorted(set(shard_of) - set(found))
    if absent and ".safetensors" in chosen:
        raise ValueError(
            f"{said}: {chosen} names tensors that no file has: {architecture.some(absent)}; fetch the folder again"
        )
    return found


def _head(file: Path, said: str) -> Heads:
    architecture.refuse_pointer(file, said)
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= size - 8 else b""
    try:
        found: Any = json.loads(text)
        found.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in found.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, LookupError):
        raise ValueError(f"{said}: {file.name} is truncated, or no safetensors file; fetch it again") from None
    if end != size:
        raise ValueError(f"{said}: {file.name} has {size} bytes and should have {end}; fetch it again")
    return found


def _check_pickle(file: Path, said: str) -> Heads:
    """A .bin file is a zip archive with its table at the end, or in the old way a pickle."""
    architecture.refuse_pointer(file, said)
    with file.open("rb") as stream:
        old = stream.read(1) == b"\x80"
    if not old and not zipfile.is_zipfile(file):
        raise ValueError(f"{said}: {file.name} is truncated, or no PyTorch file; fetch it again")
    return {}


def _check_names(heads: Heads, config: architecture.Config, said: str) -> None:
    """Tensors' names and shapes against config.json, as far as both speak of the same things in every model."""
    if any(
        name.rpartition(".")[2] in QUANTISED or (name.endswith(".weight") and entry["dtype"] not in FLOATS)
        for name, entry in heads.items()
    ):
        raise ValueError(
            f"{said}: its weights are quantised, though its config.json does not say so, and cannot be trained; "
            "give the model in bfloat16, float16 or float32 that it was made from"
        )
    depth, kind = architecture.layers_of(config), config["model_type"]
    usual = kind in architecture.SUPPORTED or kind in architecture.MIXTURES
    for name in heads:
        wrapper = next((part for part in name.split(".") if part in WRAPPERS), None)
        prefix = found[1] if usual and (found := PLACE.match(name)) else ""
        if wrapper or prefix:
            by = f" as {WRAPPERS[wrapper]} names them" if wrapper else f" behind '{prefix}'"
            raise ValueError(
                f"{said}: its tensors are named{by} ({name}); save the model within (its save_pretrained), or take "
                f"'{f'{wrapper}.' if wrapper else prefix}' out of the names"
            )
    layers: dict[int, set[str]] = {}
    for name in heads:
        found = LAYER.search(name)
        if found and not UNREAD.search(name) and name.startswith(DECODERS):
            layers.setdefault(int(found[1]), set()).add(found[2])
    if depth is not None and layers:
        more = int(config.get("num_nextn_predict_layers") or 0)
        extra = sorted(index for index in layers if index >= depth + more)
        absent = [index for index in range(min(depth, max(layers) + 4)) if index not in layers]
        if extra or absent:
            odd = f"{'without' if absent else 'also'} layer {architecture.some(list(map(str, absent or extra)))}"
            raise ValueError(
                f"{said}: its config.json says {depth} layers (num_hidden_layers), its weights have {len(layers)}, "
                f"{odd}{_MEND}"
            )
    if kind in architecture.SUPPORTED:
        _check_alike(heads, layers, config, said)


def _check_alike(heads: Heads, layers: dict[int, set[str]], config: architecture.Config, said: str) -> None:
    """Where all layers are alike: a tensor that one has and another lacks, and the shapes that config.json tells."""
    every = set[str]().union(*layers.values())
    lacking = [f"layers.{index}.{name}" for index, names in sorted(layers.items()) for name in sorted(every - names)]
    ends = {name.removeprefix("model.") for name in heads}
    head = ["lm_head.weight"] if config.get("tie_word_embeddings") is False else []
    lacking += [name for name in ("embed_tokens.weight", "norm.weight", *head) if name not in ends]
    if not layers:
        raise ValueError(f"{said}: its weights are not of model_type {config['model_type']}: {min(heads)}, …{_MEND}")
    if lacking:
        raise ValueError(
            f"{said}: its weights lack {architecture.some(lacking)}; give the whole model: lacking tensors would be "
            "random"
        )
    width, inner, words = (config.get(name) for name in ("hidden_size", "intermediate_size", "vocab_size"))
    shapes = {"embed_tokens.weight": (words, width), "norm.weight": (width,), "lm_head.weight": (words, width)}
    for name, entry in heads.items():
        last = "mlp.down_proj.weight" if name.endswith(".mlp.down_proj.weight") else name.removeprefix("model.")
        expected = (width, inner) if last == "mlp.down_proj.weight" else shapes.get(last)
        if expected and None not in expected and tuple(entry["shape"]) != expected:
            raise ValueError(f"{said}: {name} is {_by(entry['shape'])}, and {_by(expected)} by its config.json{_MEND}")


def _check_trained(heads: Heads, trained: Sequence[int], said: str) -> None:
    has = {int(found[1]) for name in heads if (found := LAYER.search(name)) and found[2] == "mlp.down_proj.weight"}
    there = {int(found[1]) for name in heads if (found := LAYER.search(name))}
    refuse_untrainable(said, trained, [layer for layer in trained if layer in there and layer not in has], sorted(has))


def refuse_untrainable(said: str, trained: Sequence[int], without: Sequence[int], has: Sequence[int]) -> None:
    """Refuse to train fewer layers than were asked for."""
    if without:
        among = [layer for layer in has if layer in trained] or has
        raise ValueError(
            f"{said}: layer.trained={list(trained)}: no mlp.down_proj.weight in layer "
            f"{architecture.some(list(map(str, without)))} (a mixture of experts has one in its dense layers alone); "
            "allowed: layer.trainable=all" + (f", or layer.trained={among}" if among else "")
        )


def _by(shape: Iterable[Any]) -> str:
    return " × ".join(map(str, shape))


# While and after loading


@contextmanager
def one_line(said: str) -> Generator[None]:
    """Make one line of whatever a library cannot load; what the machine is to blame for goes on up.

    Raises:
        ValueError: with the key and the path (`said`), and the first line of what the library said.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        machine = (ends.out_of_memory, ends.device_failed, ends.disk_is_full, ends.file_system_failed)
        ours = isinstance(error, ValueError) and str(error).startswith(f"{said}: ")
        if ours or any(fits(error) for fits in machine):
            raise
        known = next((told for words, told in SAID if words in str(error)), None)
        if known is not None:
            raise ValueError(f"{said}: {known}") from error
        raise ValueError(
            f"{said}: cannot be loaded ({type(error).__name__}: {architecture.first_line(error)}); it may "
            "be truncated or of another kind: fetch it again, or save it with save_pretrained"
        ) from error


def refuse_parts(said: str, info: dict[str, Any], *, above: int | None, headless: bool) -> None:
    """Refuse a model of which tensors were left as they were drawn, or whose file has tensors that found no place.

    Args:
        info: transformers' loading info.
        above: the first layer that is left out on purpose.
        headless: whether the head is.
    """

    def left_out(name: str) -> bool:
        found = LAYER.search(name)
        higher = above is not None and found is not None and int(found[1]) >= above
        return higher or bool(UNREAD.search(name)) or (headless and name.startswith("lm_head."))

    unexpected = [name for name in sorted(info["unexpected_keys"]) if not left_out(name)]
    mismatched = [
        f"{name} is {_by(had)} and not {_by(wanted)}" for name, had, wanted in sorted(info["mismatched_keys"])
    ]
    parts = {"lacks": sorted(info["missing_keys"]), "has no place for": unexpected, "of another shape:": mismatched}
    found = "; ".join(f"{what} {architecture.some(names)}" for what, names in parts.items() if names)
    if found:
        raise ValueError(f"{said}: its weights are not those of its config.json: {found}{_MEND}")


def refuse_words(path: str, said: str, revision: str | None, tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer that makes ids for which the embedding has no row, or none at all."""
    place = place_of(path, revision)
    named = _named(_settings(place, said), said) if place else {}
    # To these transformers adds words of its own, such as GPT-2's <|endoftext|>, which the model need not know.
    added = tokenizer.added_tokens_decoder
    own = {word: index for word, index in tokenizer.get_vocab().items() if index not in added or word in named}
    _refuse_ids(said, own, rows)
    if not tokenizer("model", add_special_tokens=False)["input_ids"]:
        raise ValueError(
            f"{said}: its tokenizer makes no token of a word; give that of the model it was "
            "made from, with the tokenizer_class in its tokenizer_config.json that fits"
        )


def _refuse_ids(said: str, ids: dict[str, int], rows: int) -> None:
    above = sorted((index, word) for word, index in ids.items() if index >= rows and word not in ELSEWHERE)
    if above:
        raise ValueError(
            f"{said}: its tokenizer has {architecture.some([f'{word} = {index}' for index, word in above])}, and its "
            f"embedding {rows} rows; enlarge it (resize_token_embeddings) and save the model, or take the tokens out "
            "of the tokenizer"
        )
