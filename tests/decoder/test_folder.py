"""A loaded model is the one in the folder, whole, or it is refused in one line that says what to do."""

import importlib.util
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rna import run, trial
from rna.corpora import sources
from rna.decoder import folder, model
from rna.settings import architecture, config
from rna.settings.fields import BUILTIN
from tests import folders, tiny

Fault = Callable[[Path], Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.sound(tmp_path_factory.mktemp("sound") / "m")


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A folder of one's own to spoil."""
    return Path(shutil.copytree(made, tmp_path / "m"))


def loaded(path: Path | str, **options: Any) -> tuple[model.Decoder, Any]:
    return model.load(str(path), dtype="float32", device="cpu", revision=None, **options)


def grown(file: Path) -> None:
    """Add a token to a tokenizer.json, as `add_special_tokens` does, without a row for it."""
    found = json.loads(file.read_text())
    entry = found["added_tokens"][0] | {"id": folders.WORDS, "content": "[PAD]"}
    file.write_text(json.dumps(found | {"added_tokens": [*found["added_tokens"], entry]}))


def named_alone(place: Path) -> None:
    folders.told(place, "tokenizer_config.json", pad_token="[PAD]")


def adapter(place: Path) -> None:
    (place / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')


def adapter_alone(place: Path) -> None:
    adapter(place)
    (place / "model.safetensors").rename(place / "adapter_model.safetensors")
    (place / "config.json").unlink()


def gguf_alone(place: Path, *names: str) -> None:
    for name in names or ("model.safetensors", "config.json"):
        (place / name).unlink()
    (place / "m-Q4.gguf").write_bytes(b"GGUF")


def shard_gone(place: Path) -> None:
    folders.sharded(place)[1].unlink()


def shard_of_another(place: Path) -> None:
    first, second = folders.sharded(place)
    shutil.copy(first, second)


def index_broken(place: Path) -> None:
    folders.sharded(place)
    folders.cut(place / "model.safetensors.index.json")


def linked_nowhere(name: str) -> Fault:
    def fault(place: Path) -> None:
        (place / name).unlink()
        (place / name).symlink_to(place / "blobs" / "gone")

    return fault


def no_tokenizer(place: Path) -> None:
    (place / "tokenizer.json").unlink()


def own_tokenizer(place: Path) -> None:
    no_tokenizer(place)
    (place / "vocab.txt").write_text("a")
    folders.told(place, "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", None]})


def extra_layer(place: Path) -> None:
    def more(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        last = {name: tensor for name, tensor in found.items() if ".layers.2." in name}
        return found | {name.replace(".layers.2.", ".layers.3."): tensor.clone() for name, tensor in last.items()}

    folders.tensors(place, more)


def quantised(place: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    folders.tensors(place, lambda found: found | {name: found[name].to(torch.int8)})


def spoilt(place: Path, value: float) -> None:
    """One number of a layer's weights, somewhere in the middle."""

    def change(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found["model.layers.1.mlp.up_proj.weight"][3, 2] = value
        return found

    folders.tensors(place, change)


def two_sets(place: Path) -> None:
    kept = (place / "model.safetensors").read_bytes()
    folders.sharded(place)
    (place / "model.safetensors").write_bytes(kept)


def whole_module(place: Path) -> None:
    folders.pickled(place)
    torch.save(torch.nn.Linear(2, 2), place / "pytorch_model.bin")


def words_alone(name: str) -> Fault:
    def fault(place: Path) -> None:
        no_tokenizer(place)
        (place / name).write_text('{"a": 0}')

    return fault


def of_gpt2(place: Path) -> None:
    folders.told(place, model_type="gpt2", num_hidden_layers=None, n_layer=3)


def text_alone(place: Path, name: str) -> None:
    (place / name).write_text('{"model_type"')


FAULTS: list[tuple[str, Fault, str]] = [
    ("prefix of DDP", lambda p: folders.renamed(p, lambda n: f"module.{n}"), r"'module\.' out of the names"),
    ("prefix of compile", lambda p: folders.renamed(p, lambda n: f"_orig_mod.{n}"), r"torch\.compile names them"),
    (
        "compiled layers",
        lambda p: folders.renamed(p, lambda n: n.replace("model.layers.1.", "model.layers.1._orig_mod.")),
        r"torch\.compile names them",
    ),
    ("prefix of PEFT", lambda p: folders.renamed(p, lambda n: f"base_model.model.{n}"), "PEFT names them"),
    ("a trainer's own prefix", lambda p: folders.renamed(p, lambda n: f"policy.{n}"), r"behind 'policy\.'"),
    ("a lacking tensor", lambda p: folders.without(p, "layers.1.mlp.up_proj.weight"), r"lack layers\.1\.mlp\.up_proj"),
    ("a lacking head", lambda p: folders.without(p, "lm_head.weight"), r"lack lm_head\.weight"),
    (
        "fewer layers than told",
        lambda p: folders.told(p, num_hidden_layers=5),
        r"5 layers .*have 3, without layer 3, 4",
    ),
    ("more layers than told", extra_layer, r"3 layers .*have 4, also layer 3"),
    ("another width", lambda p: folders.told(p, hidden_size=32), r"536 × 16, and 536 × 32 by its config\.json"),
    ("other words", lambda p: folders.told(p, vocab_size=600), r"536 × 16, and 600 × 16 by its config\.json"),
    ("quantised tensors", quantised, "weights are quantised"),
    *(
        (f"quantised by {how}", lambda p, how=how: folders.told(p, quantization_config={"quant_method": how}), how)
        for how in ("bitsandbytes", "gptq", "awq", "fp8")
    ),
    ("an adapter", adapter_alone, "holds a PEFT adapter.*merge_and_unload"),
    ("a model and an adapter", adapter, "holds a PEFT adapter.*merge_and_unload"),
    ("GGUF alone", gguf_alone, r"give one of them: model\.path=.*/m/m-Q4\.gguf$"),
    ("GGUF with config.json", lambda p: gguf_alone(p, "model.safetensors"), r"model\.path=.*/m/m-Q4\.gguf$"),
    ("no weights", lambda p: (p / "model.safetensors").unlink(), "without weights"),
    (
        "weights of another name",
        lambda p: (p / "model.safetensors").rename(p / "consolidated.safetensors"),
        r"it has consolidated\.safetensors; needs model\.safetensors",
    ),
    ("pointer for weights", lambda p: folders.pointer(p / "model.safetensors"), "git-lfs pointer.*git lfs pull"),
    ("pointer for a shard", lambda p: folders.pointer(folders.sharded(p)[1]), "git-lfs pointer"),
    ("pointer for .bin", lambda p: folders.pointer(folders.pickled(p)), "git-lfs pointer"),
    (
        "pointer for tokenizer.json",
        lambda p: folders.pointer(p / "tokenizer.json"),
        "tokenizer.json is a git-lfs pointer",
    ),
    ("pointer for tokenizer.model", lambda p: folders.pointer(p / "tokenizer.model"), "git-lfs pointer"),
    ("truncated weights", lambda p: folders.cut(p / "model.safetensors", 0.9), r"has \d+ bytes and should have \d+"),
    ("truncated head", lambda p: folders.cut(p / "model.safetensors", 0.01), "truncated, or no safetensors file"),
    ("empty weights", lambda p: (p / "model.safetensors").write_bytes(b""), "is empty"),
    (
        "no safetensors",
        lambda p: (p / "model.safetensors").write_bytes(b"<html>not found</html>"),
        "no safetensors file",
    ),
    ("truncated .bin", lambda p: folders.cut(folders.pickled(p)), "truncated, or no PyTorch file"),
    ("a shard gone", shard_gone, r"names model-00002-of-00002\.safetensors, which the folder does not have"),
    ("a shard twice", shard_of_another, "names tensors that no file has"),
    ("a truncated shard", lambda p: folders.cut(folders.sharded(p)[0], 0.9), "bytes and should have"),
    ("a broken index", index_broken, r"its model\.safetensors\.index\.json cannot be read"),
    ("weights linked to nowhere", linked_nowhere("model.safetensors"), r"model\.safetensors cannot be read \(No such"),
    ("config linked to nowhere", linked_nowhere("config.json"), r"config\.json cannot be read \(No such"),
    ("more words than rows", lambda p: grown(p / "tokenizer.json"), r"\[PAD\] = 536, and its embedding 536 rows"),
    ("no tokenizer", no_tokenizer, "has no tokenizer"),
    ("truncated tokenizer", lambda p: folders.cut(p / "tokenizer.json"), r"tokenizer\.json is truncated"),
    (
        "broken settings of a tokenizer",
        lambda p: text_alone(p, "tokenizer_config.json"),
        "tokenizer_config.json cannot",
    ),
    ("a tokenizer of own code", own_tokenizer, "tokenizer needs code of its own"),
    (
        "a list of added tokens",
        lambda p: folders.told(p, "tokenizer_config.json", added_tokens_decoder=[1]),
        r"added_tokens_decoder=\[1\], which must be a mapping",
    ),
    ("a word for text_config", lambda p: folders.told(p, text_config="x"), "text_config='x', which must be a mapping"),
    (
        "a width in quotes",
        lambda p: folders.told(p, hidden_size="16"),
        "hidden_size='16', which must be a whole number",
    ),
    ("half a layer", lambda p: folders.told(p, num_hidden_layers=2.5), "num_hidden_layers=2.5, which must be a whole"),
    ("no layers", lambda p: folders.told(p, num_hidden_layers=0), "num_hidden_layers=0, which must be a whole"),
    ("layers without end", lambda p: folders.told(p, num_hidden_layers=10**10), "says 10000000000 layers"),
    ("two sets of weights", two_sets, r"model\.safetensors and that of model\.safetensors\.index\.json; take one"),
    ("broken config.json", lambda p: text_alone(p, "config.json"), r"its config\.json cannot be read"),
    ("no config.json", lambda p: (p / "config.json").unlink(), r"no config\.json there"),
    ("no model_type", lambda p: folders.told(p, model_type=None), "has no model_type"),
    ("unknown model_type", lambda p: folders.told(p, model_type="lama"), "no model_type lama; did you mean 'llama'"),
    ("GPT-2", of_gpt2, "gpt2 cannot be split .*; supported are llama, mistral"),
    *(
        (kind, lambda p, kind=kind: folders.told(p, model_type=kind), f"{kind} cannot be split .*; supported are llama")
        for kind in ("gpt_neox", "opt", "phi", "falcon")
    ),
    ("T5", lambda p: folders.told(p, model_type="t5", is_encoder_decoder=True), "an encoder and a decoder; supported"),
    ("a classifier of images", lambda p: folders.told(p, model_type="vit"), "no causal language model; supported"),
    ("images and text", lambda p: folders.told(p, model_type="gemma3", vision_config={}), "model of more than text"),
    ("scaled logits", lambda p: folders.told(p, model_type="granite", logits_scaling=8.0), "scales its logits"),
    (
        "code of its own",
        lambda p: folders.told(p, model_type="mine", auto_map={"AutoConfig": "own.Config"}),
        "needs code of its own",
    ),
    (
        "a class of its own",
        lambda p: folders.told(p, auto_map={"AutoModelForCausalLM": "own.MyModel"}),
        "needs code of its own",
    ),
]


@pytest.mark.whole
@pytest.mark.parametrize(("fault", "said"), [pytest.param(*rest, id=name) for name, *rest in FAULTS])
def test_a_folder_with_a_fault_is_refused_before_it_is_loaded(
    fault: Fault, said: str, place: Path, monkeypatch: pytest.MonkeyPatch
):
    fault(place)
    with pytest.raises(ValueError, match=rf"^model\.path={place}: .*{said}") as caught:
        folder.check(str(place))
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("transformers.AutoTokenizer", None)  # nothing is loaded either
    with pytest.raises(ValueError, match=said):
        loaded(place)


LATE: list[tuple[str, Fault, str]] = [
    (
        "an extra tensor",
        lambda p: folders.tensors(p, lambda f: f | {"score.weight": torch.ones(2)}),
        "no place for score",
    ),
    (
        "no layer has its queries",
        lambda p: folders.without(p, "q_proj.weight"),
        r"lacks (model\.)?layers\.0\.self_attn\.q_proj\.weight",
    ),
    (
        "a value that is NaN",
        lambda p: spoilt(p, math.nan),
        r"values that are not finite \((model\.)?layers\.1\.mlp\.up_",
    ),
    (
        "an infinite value",
        lambda p: spoilt(p, -math.inf),
        r"values that are not finite \((model\.)?layers\.1\.mlp\.up_",
    ),
    ("a pad token that is only named", named_alone, r"its tokenizer has \[PAD\] = 536, and its embedding 536 rows"),
    (
        "another number of heads",
        lambda p: folders.told(p, num_attention_heads=8),
        r"of another shape: (model\.)?layers\.0",
    ),
    (
        "a tensor of .bin",
        lambda p: (folders.without(p, "layers.1.mlp.up_proj.weight"), folders.pickled(p)),
        r"lacks (model\.)?layers\.1\.mlp\.up_proj",
    ),
    (
        "a prefix in .bin",
        lambda p: (folders.renamed(p, lambda n: f"module.{n}"), folders.pickled(p)),
        "no place for module.",
    ),
    ("a broken tokenizer.json", lambda p: (p / "tokenizer.json").write_text('{"model": }'), "cannot be loaded"),
    ("a pickled module", whole_module, "a pickle of more than tensors"),
    ("words without merges", words_alone("vocab.json"), "no tokenizer can be made of its files; copy"),
    ("a list of words", words_alone("vocab.txt"), "no tokenizer can be made of its files; copy"),
    (
        "broken pickle",
        lambda p: folders.pickled(p).write_bytes(b"\x80\x02garbage"),
        r"its \.bin file is broken, or a pickle",
    ),
]


@pytest.mark.whole
@pytest.mark.parametrize("num_layers", [None, 2])
@pytest.mark.parametrize(("fault", "said"), [pytest.param(*rest, id=name) for name, *rest in LATE])
def test_what_only_loading_shows_is_refused_in_one_line(
    fault: Fault, said: str, num_layers: int | None, place: Path, capfd: pytest.CaptureFixture[str]
):
    fault(place)
    with pytest.raises(ValueError, match=rf"^model\.path={place}: .*{said}") as caught:
        loaded(place, num_layers=num_layers)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.whole
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_sound_folders_load_whole_and_in_part(architecture: str, tied: bool, tmp_path: Path):
    path = folders.sound(tmp_path / "m", architecture, tie_word_embeddings=tied)
    folder.check(str(path), num_layers=3, trained=[0, 1, 2])
    own = load_file(path / "model.safetensors")
    whole, _ = loaded(path)
    part, _ = loaded(path, num_layers=2)
    for decoder in (whole, part):
        for name, tensor in decoder.model.named_parameters():
            assert torch.equal(tensor, own[name]), name
    assert len(part.layers) == 2


def test_what_a_sound_folder_may_have_beside_it_or_lack(place: Path):
    """Old tables of rotary angles, shards, a folder named like a file, a mapping to code that transformers has."""
    folders.tensors(place, lambda found: found | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2)})
    folders.sharded(place)
    folders.told(place, auto_map={"AutoModelForCausalLM": "modeling_llama.LlamaForCausalLM"})
    (place / "tokenizer_old").mkdir()
    folders.pointer(place / "pytorch_model.bin")  # which nobody reads
    folder.check(str(place))
    loaded(place)
    assert sources.model_fingerprint(str(place), None, None)


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="the package is here")
def test_a_tokenizer_that_needs_a_package_is_refused_before_loading(place: Path):
    no_tokenizer(place)
    (place / "tokenizer.model").write_bytes(b"words")
    with pytest.raises(
        ValueError, match=rf"^model\.path={place}: .*needs the package sentencepiece: pip install 'rna-unlearning"
    ):
        folder.check(str(place))


def test_what_a_library_says_in_colours_is_said_without():
    said = architecture.first_line(ValueError("\x1b[1mdo\x1b[0m this\x07\nand more"))
    assert said == "do this"


def test_a_folder_may_be_named_like_a_file(place: Path):
    loaded(place.rename(place.with_name("m.gguf")))


def test_of_two_forms_of_weights_it_is_said_which_is_read(place: Path, capfd: pytest.CaptureFixture[str]):
    kept = (place / "model.safetensors").read_bytes()
    folders.pickled(place)
    (place / "model.safetensors").write_bytes(kept)
    loaded(place)
    said = f"model.path={place}: model.safetensors is read, and not pytorch_model.bin beside it\n"
    assert capfd.readouterr().err == said


def test_a_stale_index_is_nothing(place: Path, capfd: pytest.CaptureFixture[str]):
    two_sets(place)
    next(place.glob("model-*-of-*.safetensors")).unlink()
    loaded(place)
    assert capfd.readouterr().err == ""


def test_shards_may_lie_in_a_folder_below(place: Path):
    own = load_file(place / "model.safetensors")
    (place / "parts").mkdir()
    for file in folders.sharded(place):
        file.rename(place / "parts" / file.name)
    index = json.loads((place / "model.safetensors.index.json").read_text())["weight_map"]
    below = {name: f"parts/{file}" for name, file in index.items()}
    folders.told(place, "model.safetensors.index.json", weight_map=below)
    decoder, _ = loaded(place)
    assert all(torch.equal(tensor, own[name]) for name, tensor in decoder.model.named_parameters())


def test_a_sound_folder_is_judged_in_milliseconds(made: Path):
    """No library is asked and no weights are read."""
    import subprocess
    import sys

    asked = "print(*(name in sys.modules for name in ('torch', 'transformers')))"
    said = f"import sys; from rna.decoder import folder; folder.check({str(made)!r}); {asked}"
    here = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True, cwd=here)
    assert found.stdout.split() == ["False", "False"]


def test_the_settings_number_of_layers_is_the_folders(made: Path):
    with pytest.raises(ValueError, match=r"has 3 layers by its config\.json, not model\.num_layers=32"):
        folder.check(str(made), num_layers=32)


def test_words_without_rows_are_found_wherever_they_stand(place: Path):
    """In the vocabulary itself, not among what was added."""
    file = place / "tokenizer.json"
    found = json.loads(file.read_text())
    words: Any = found["model"]["vocab"]
    words |= {"beyond": 600} if isinstance(words, dict) else {}
    if isinstance(words, list):
        words += [[f"beyond{number}", -1.0] for number in range(3)]
    file.write_text(json.dumps(found))
    folder.check(str(place))
    with pytest.raises(
        ValueError, match=rf"^model\.path={place}: its tokenizer has beyond.* and its embedding 536 rows"
    ):
        loaded(place)


# Mixtures of experts


def mixture(path: Path, kind: str) -> Path:
    """A mixture of experts of three layers, the first of them dense."""
    import transformers

    sizes = {
        **{"vocab_size": folders.WORDS, "hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8},
        **{"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8},
        **{"num_experts_per_tok": 2, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": 2},
    }
    if kind == "DeepseekV3":
        own = {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "kv_lora_rank": 8}
        own |= {"q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
        sizes |= own
    else:
        sizes |= {"num_experts": 4, "mlp_only_layers": [0], "decoder_sparse_step": 1}
    made = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**sizes))
    made.save_pretrained(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / "base" / name, path)
    return path


@pytest.mark.parametrize("kind", ["DeepseekV3", "Qwen3Moe"])
def test_a_layer_of_experts_is_not_left_out_of_training_unsaid(kind: str, tmp_path: Path):
    path = mixture(tmp_path / "m", kind)
    with pytest.raises(
        ValueError, match=r"layer\.trained=\[0, 1\]: no mlp\.down_proj\.weight in layer 1 .*trained=\[0\]"
    ):
        folder.check(str(path), trained=[0, 1])
    folder.check(str(path), trained=[0])
    decoder, _ = loaded(path)
    model.self_check(decoder, tiny.batch(0))
    assert model.trained_names(decoder, [0], "down_proj") == ["model.layers.0.mlp.down_proj.weight"]
    assert any(name.startswith("model.layers.1.") for name in model.trained_names(decoder, [0, 1], "all"))
    for trained, odd in (([0, 1], "1"), ([1, 2], "1, 2")):
        with pytest.raises(ValueError, match=rf"^model\.path={path}: layer\.trained=.* in layer {odd} "):
            model.trained_names(decoder, trained, "down_proj")


def test_an_architecture_that_nothing_is_known_of_is_tried(tmp_path: Path):
    """A text model within a model of images loads where model.layer_path points."""
    import transformers

    text = {"vocab_size": folders.WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    eyes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    made = transformers.Gemma3Config(text_config=text, vision_config=eyes | {"image_size": 28, "patch_size": 14})
    transformers.Gemma3ForConditionalGeneration(made).save_pretrained(tmp_path / "m")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN / "base" / name, tmp_path / "m")
    decoder, _ = loaded(tmp_path / "m", layer_path="model.language_model.layers")
    model.self_check(decoder, tiny.batch(0))


# Tokens


@pytest.mark.whole
def test_a_tokenizer_without_pad_and_eos_pads_with_what_is_masked(place: Path, tmp_path: Path):
    folders.told(place, "tokenizer_config.json", pad_token=None, eos_token=None, bos_token=None)
    folders.told(place, "tokenizer.json", padding=None)
    _, tokenizer = loaded(place)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, None)
    made = composed(place, tmp_path / "out", "method=npo", "retain=kl")
    row = trial.arm("plain", made)
    trial.work(row, lambda *_: None)
    assert row.complete
    official = composed(place, tmp_path / "out", "method=npo", "retain=kl", "variant=official")
    with pytest.raises(ValueError, match=rf"^model\.path={place}: its tokenizer has no eos_token.*variant=paper"):
        trial.work(trial.arm("plain", official), lambda *_: None)


def composed(path: Path, out: Path, *overrides: str) -> Any:
    common = ["model.unlearn_layer=1", "model.num_layers=3", "noise=none", "train.steps=1", "wandb=disabled"]
    said = [f"model.path={path}", f"output_dir={out}", "eval.limit=8", *common, *overrides]
    return config.check(run.compose(said, None))


# GGUF files


def test_gguf_files_are_whole_or_refused(place: Path):
    file = folders.gguf(place.parent / "m.gguf", place)
    decoder, _ = loaded(file)
    assert len(decoder.layers) == 3
    content = file.read_bytes()
    for share, said in ((0.0001, "or the beginning of one"), (0.01, "cannot be loaded"), (0.9, "cannot be loaded")):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match=rf"^model\.path={file}: .*{said}") as caught:
            loaded(file)
        assert "\n" not in str(caught.value)
    for change, said in ((folders.pointer, "git-lfs pointer"), (lambda f: f.write_bytes(b"no" * 50), "no GGUF file")):
        change(file)
        with pytest.raises(ValueError, match=said):
            folder.check(str(file))
    with pytest.raises(ValueError, match=r"lacks model\.layers\.2"):
        loaded(folders.gguf(place.parent / "few.gguf", place, layers=2))
    with pytest.raises(ValueError, match=r"no GGUF file; give the Hugging Face folder it lies in"):
        folder.check(str(place / "model.safetensors"))


def test_a_gguf_files_tokenizer_is_its_own_whatever_lies_beside_it(place: Path, tmp_path: Path):
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    alone.mkdir()
    file = folders.gguf(alone / "m.gguf", place)
    shutil.copytree(place, beside)
    shutil.copy(file, beside)
    found = [loaded(one)[1] for one in (file, beside / "m.gguf")]
    assert found[0]("the model")["input_ids"] == found[1]("the model")["input_ids"]
    assert found[1].convert_ids_to_tokens(found[1]("the model")["input_ids"])[:2] == ["th", "e"]


@pytest.mark.parametrize(
    ("rule", "said"), [("smollm", ""), ("llama-bpe", ""), ("default", ""), ("viking", "texts as 'viking'")]
)
def test_a_gguf_file_says_how_texts_are_parted(
    rule: str, said: str, place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    _, tokenizer = loaded(folders.gguf(tmp_path / "m.gguf", place, rule=rule))
    assert said in capfd.readouterr().err
    parts = [part for part, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 2019")]
    assert parts[1:] == {"smollm": ["Ġ", "2", "0", "1", "9"], "llama-bpe": ["Ġ", "201", "9"]}.get(rule, ["Ġ2019"])


# Hub models


def cached(hub: Path, place: Path, name: str = "me/model") -> None:
    """The folder as the hub's cache has it."""
    where = hub / f"models--{name.replace('/', '--')}"
    (where / "refs").mkdir(parents=True)
    (where / "refs" / "main").write_text("a" * 40)
    shutil.copytree(place, where / "snapshots" / ("a" * 40))


def test_a_hub_model_is_judged_by_what_is_in_the_cache(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    folder.check("me/model")
    (place / "model.safetensors").rename(tmp_path / "kept")
    cached(tmp_path / "hub", place, "me/without-weights-yet")
    folder.check("me/without-weights-yet")
    assert config.read_num_layers("me/without-weights-yet") == 3
    (tmp_path / "kept").rename(place / "model.safetensors")
    folders.renamed(place, lambda name: f"module.{name}")
    cached(tmp_path / "hub", place)
    with pytest.raises(ValueError, match=r"^model\.path=me/model: .*module"):
        folder.check("me/model")


# The real program


def overrides(path: Path, out: Path) -> list[str]:
    quick = ["method=rmu", "train.steps=2", "train.batch_size=2", "eval.limit=8", "wandb=disabled"]
    return ["model=local", f"model.path={path}", "model.unlearn_layer=1", *quick, f"output_dir={out}"]


def test_a_path_without_a_letter_is_no_path(tmp_path: Path, rna_here: Callable[..., str]):
    printed = rna_here("model=local", "model.path=", "model.unlearn_layer=1", f"output_dir={tmp_path / 'out'}", code=2)
    assert printed == "error: model.path=: names no model; give a hub id, a Hugging Face folder, or a .gguf file\n"


@pytest.mark.whole
@pytest.mark.parametrize("name", ["prefix of DDP", "pointer for weights", "more words than rows", "GPT-2"])
def test_the_program_ends_in_one_line_and_records_nothing(
    name: str, place: Path, tmp_path: Path, rna_here: Callable[..., str]
):
    next(fault for one, fault, _ in FAULTS if one == name)(place)
    printed = rna_here(*overrides(place, tmp_path / "out"), code=2)
    assert printed.startswith(f"error: model.path={place}: ")
    assert len(printed.splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.whole
def test_values_that_are_not_finite_end_in_one_line(place: Path, tmp_path: Path, rna_here: Callable[..., str]):
    spoilt(place, math.nan)
    given = ["method=given", f"method.path={place}", "eval.limit=8", "wandb=disabled", f"output_dir={tmp_path / 'o'}"]
    for key, words in (("model", [*overrides(place, tmp_path / "o"), "method=none"]), ("method", given)):
        printed = rna_here(*words, code=2).splitlines()
        assert printed[-1].startswith(f"error: {key}.path={place}: its weights hold values that are not finite")
        assert sum("error" in line for line in printed) == 1
    assert not list((tmp_path / "o").rglob("*.json"))


def test_a_retrained_model_is_judged_before_anything_is_trained(
    made: Path, place: Path, tmp_path: Path, rna_here: Callable[..., str]
):
    folders.without(place, "layers.1.mlp.up_proj.weight")
    printed = rna_here(*overrides(made, tmp_path / "out"), f"model.retrained={place}", code=2)
    assert printed.startswith(f"error: model.retrained={place}: its weights lack layers.1.mlp.up_proj.weight")
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_file_that_may_not_be_read_is_named(name: str, place: Path):
    (place / name).chmod(0)
    with pytest.raises(ValueError, match=rf"^model\.path={place}: {name} cannot be read \(Permission denied\)"):
        folder.check(str(place))
