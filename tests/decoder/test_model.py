"""Loading: no more of a model than is run, in any dtype, and what cannot be done is said before anything is."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from rna import run, trial
from rna.corpora import data
from rna.decoder import model
from rna.settings import config
from rna.settings.fields import BUILTIN, Settings
from rna.store import results
from rna.unlearning import train
from tests import tiny
from tests.unlearning import test_train
from tests.unlearning.test_train import unlearn

FIRST_THREE = tuple(f"model.layers.{index}." for index in range(3))


def settings(*overrides: str) -> Settings:
    return config.check(run.compose(["train.steps=4", "train.lr=0.01", *overrides], None))


def saved(folder: Path, architecture: str, **options: Any) -> Path:
    """A random model of eight layers on disk, with the demo's tokenizer."""
    made: Any = tiny.decoder(architecture, layers=8, vocab_size=536, **options).model
    made.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((BUILTIN / "base" / name).read_bytes())
    return folder


class Watched:
    """A safetensors file that counts the bytes of each tensor read from it."""

    read: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, *arguments: Any, **options: Any) -> None:
        from safetensors import safe_open

        self.file = safe_open(*arguments, **options)

    def __enter__(self) -> "Watched":
        self.file.__enter__()
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.__exit__(*_)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def _count(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        self.read[name] = self.read.get(name, 0) + tensor.nbytes
        return tensor

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._count(name, self.file.get_tensor(name))

    def get_slice(self, name: str) -> Any:
        part, count = self.file.get_slice(name), self._count

        class Slice:
            def __getattr__(self, attribute: str) -> Any:
                return getattr(part, attribute)

            def __getitem__(self, index: Any) -> torch.Tensor:
                return count(name, part[index])

        return Slice()


@pytest.mark.whole
@pytest.mark.parametrize("architecture", ["Llama", "Gemma2", "Qwen3"])
def test_rm_training_alone_reads_the_layers_it_runs(architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With l = 2 of 8 layers and an untied head: the bytes of the embeddings, three layers and the last norm."""
    import transformers

    folder = str(saved(tmp_path / "m", architecture, tie_word_embeddings=False))
    whole, _ = model.load(folder, dtype="float32", device="cpu", revision=None)
    sizes = {name: tensor.nbytes for name, tensor in whole.model.named_parameters()}
    wanted = {
        name: size
        for name, size in sizes.items()
        if name in ("model.embed_tokens.weight", "model.norm.weight") or name.startswith(FIRST_THREE)
    }
    monkeypatch.setattr(transformers.modeling_utils, "safe_open", Watched)
    monkeypatch.setattr(Watched, "read", {})
    part, _ = model.load(folder, dtype="float32", device="cpu", revision=None, num_layers=3)
    assert Watched.read == wanted
    assert sum(wanted.values()) < 0.5 * sum(sizes.values())
    assert sum(tensor.nbytes for tensor in part.model.parameters()) == sum(wanted.values())

    made = settings("method=rmu", "layer.unlearn=2", "noise.nu=0.1")
    assert part.head is None
    model.self_check(part, tiny.batch(0))
    one, two = unlearn(made, whole), unlearn(made, part)
    assert one[0].keys() == two[0].keys()
    assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])


@pytest.mark.whole
def test_train_only_makes_the_same_record_key_and_tensors(tmp_path: Path):
    common = ["method=rmu", "noise=none", "train.steps=2", "wandb=disabled", "eval.limit=8"]
    rows = [
        trial.arm("plain", config.check(run.compose([*common, f"output_dir={tmp_path / name}", extra], None)))
        for name, extra in (("whole", "train_only=false"), ("part", "train_only=true"))
    ]
    for row in rows:
        trial.work(row, lambda *_: None)
    assert rows[0].key == rows[1].key
    assert rows[0].evaluated
    assert not rows[1].tasks
    whole, part = (results.delta_path(row.settings.output_dir, row.key).read_bytes() for row in rows)
    assert whole == part
    # and evaluating later takes the whole model and trains nothing
    later = trial.arm("plain", config.check(run.compose([*common, f"output_dir={tmp_path / 'part'}"], None)))
    assert later.trained is not None
    trial.work(later, lambda *_: None)
    assert later.complete
    assert {n: r["metrics"] for n, r in later.evaluated.items()} == {
        n: r["metrics"] for n, r in rows[0].evaluated.items()
    }


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain"), [("rmu", "representation"), ("npo", "kl"), ("dpo", "mse")])
def test_half_precision_weights_with_float32_losses_and_state(method: str, retain: str):
    dtype = torch.bfloat16
    decoder = tiny.decoder(layers=4, dtype=dtype)
    states: list[torch.dtype] = []
    step = torch.optim.AdamW.step

    def seen(optimizer: Any, *arguments: Any) -> Any:
        result = step(optimizer, *arguments)
        states.extend(value.dtype for state in optimizer.state.values() for value in state.values())
        states.extend(p.dtype for group in optimizer.param_groups for p in group["params"])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", seen)
        deltas, curve = unlearn(settings(f"method={method}", f"retain={retain}"), decoder)
    assert set(states) == {torch.float32}
    assert {tensor.dtype for tensor in deltas.values()} == {dtype}
    reference, plain = unlearn(settings(f"method={method}", f"retain={retain}"), tiny.decoder(layers=4))
    assert curve[0]["train/forget_loss"] == pytest.approx(plain[0]["train/forget_loss"], rel=0.05)
    assert deltas.keys() == reference.keys()


def test_float16_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match=r"model.dtype=float16: .*allowed there: float32, bfloat16"):
        model.load(str(BUILTIN / "base"), dtype="float16", device="cpu", revision=None)


def test_the_loss_scale_of_float16_changes_no_bit(monkeypatch: pytest.MonkeyPatch):
    plain, _ = unlearn(settings("method=npo", "retain=kl", "train.max_grad_norm=0.1"))
    monkeypatch.setitem(train.LOSS_SCALE, torch.float32, train.LOSS_SCALE[torch.float16])
    scaled, _ = unlearn(settings("method=npo", "retain=kl", "train.max_grad_norm=0.1"))
    assert all(torch.equal(plain[name], scaled[name]) for name in plain)


@pytest.mark.whole
@pytest.mark.parametrize(("method", "retain"), test_train.SOME)
def test_accumulated_gradients_are_those_of_one_large_batch(method: str, retain: str):
    """Ragged batches of 2 and 2 and 2 against 6 at once, each token and sequence counting the same."""
    common = (f"method={method}", f"retain={retain}", "noise=none", "train.steps=1")
    _, large = unlearn(settings(*common, "train.batch_size=6"))
    _, small = unlearn(settings(*common, "train.batch_size=2", "train.grad_accumulation=3"))
    for key in ("train/forget_loss", "train/retain_loss", "train/grad_norm"):
        assert small[0][key] == pytest.approx(large[0][key], rel=1e-4, abs=1e-7)


def test_clipping_sees_the_trained_tensors_alone(monkeypatch: pytest.MonkeyPatch):
    seen: list[list[tuple[int, ...]]] = []
    clip = torch.nn.utils.clip_grad_norm_

    def watched(parameters: Any, limit: float) -> torch.Tensor:
        seen.append([tuple(p.shape) for p in parameters])
        return clip(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    decoder = tiny.decoder(layers=4)
    unlearn(settings("method=npo", "train.max_grad_norm=1.0"), decoder)
    assert seen == [[(16, 24)] * 3] * 4
    assert all(p.grad is None and not p.requires_grad for p in decoder.model.parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_kernels_agree_and_have_records_of_their_own(attention: str):
    folder = str(BUILTIN / "base")
    decoder, _ = model.load(folder, dtype="float32", device="cpu", revision=None, attn_implementation=attention)
    usual, _ = model.load(folder, dtype="float32", device="cpu", revision=None)
    assert decoder.model.config._attn_implementation == attention  # pyright: ignore
    model.self_check(decoder, tiny.batch(1))
    ids = tiny.batch(1).ids_BT
    with torch.no_grad():
        torch.testing.assert_close(decoder.model(ids).logits, usual.model(ids).logits, rtol=1e-4, atol=1e-4)
    keys = {
        results.train_key(results.train_identity(settings(*said)))
        for said in ([], [f"model.attn_implementation={attention}"])
    }
    assert len(keys) == 2


def test_what_changes_no_tensor_changes_no_key():
    said = ["train.checkpoint_every=3", "train.gradient_checkpointing=true", "cache.enabled=false", "train_only=true"]
    assert len({results.train_key(results.train_identity(settings(*one))) for one in ([], *([s] for s in said))}) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.device=gpu"], r"model.device=gpu: .*allowed: auto, cpu, cuda"),
        (["model.device=mps"], r"model.device=mps: supported are CPUs and NVIDIA GPUs; allowed: auto, cpu, cuda"),
        (["model.device_map=everywhere"], r"model.device_map=everywhere: .*auto, balanced, sequential"),
        (["model.device_map=3"], r"model.device_map=3: allowed: auto"),
        (["model.device_map=auto", "model.device=cuda"], r"model.device=cuda: has no meaning beside"),
        (["model.device_map=auto", "train.compile=true"], r"train.compile=True: does not work with model.device_map"),
        (["model.attn_implementation=fast"], r"model.attn_implementation=fast: .*sdpa, eager, flash_attention_2"),
        (["model.attn_implementation=flash_attention_2"], r"needs the package flash-attn"),
        (["train.grad_accumulation=0"], r"train.grad_accumulation=0: must be a finite number > 0"),
        (["train.checkpoint_every=0"], r"train.checkpoint_every=0"),
        (["cache.max_gib=-1"], r"cache.max_gib=-1"),
        (["method=none", "train_only=true"], r"train_only=True: has no meaning with method=none"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_a_model_is_loaded(overrides: list[str], message: str):
    with pytest.raises(ValueError, match=message):
        settings(*overrides)


def test_layers_left_on_the_cpu_by_a_device_map_are_refused():
    whole = tiny.decoder().model
    whole.hf_device_map = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": "cpu"}  # pyright: ignore
    with pytest.raises(ValueError, match="layers would lie on cpu"):
        model._refuse_offloading(whole, "auto")
    whole.hf_device_map = {"": "cpu"}  # pyright: ignore
    model._refuse_offloading(whole, "auto")


def test_a_device_map_loads_and_trains():
    decoder, _ = model.load(
        str(BUILTIN / "base"), dtype="float32", device="auto", revision=None, device_map={"": "cpu"}
    )
    deltas, _ = unlearn(settings("method=npo"), decoder)
    assert len(deltas) == 3


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, dict[str, Any]]:
    """What is said, and recorded, of a trial whose training raises."""

    def broken(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(train, "train", broken)
    row = trial.arm(
        "plain",
        config.check(run.compose(["method=rmu", "noise=none", "wandb=disabled", f"output_dir={tmp_path}"], None)),
    )
    with pytest.raises(trial.TrialFailed) as caught:
        trial.work(row, lambda *_: None)
    record = results.read(str(tmp_path), f"{row.key}.failed1")
    assert record is not None
    assert results.read(str(tmp_path), row.key) is None
    return str(caught.value), record


@pytest.mark.whole
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: 99 bytes"),
    ],
)
def test_out_of_memory_names_sizes_and_what_helps(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    said, record = failing(error, monkeypatch, tmp_path)
    assert record["reason"] == "out of memory"
    for hint in ("train.batch_size=", "model.dtype=float32", "gradient_checkpointing=true", "train_only=true"):
        assert hint in said


@pytest.mark.whole
def test_a_full_disk_is_said_and_nothing_earlier_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    said, record = failing(OSError(errno.ENOSPC, "No space left on device"), monkeypatch, tmp_path)
    assert record["reason"] == "disk full"
    assert "nothing written before is lost" in said


def test_an_error_of_the_program_is_no_failed_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(RuntimeError, match="a bug"):
        failing(RuntimeError("a bug"), monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["method=rmu", "method=npo"])
def test_compiled_layers_give_the_same_step(method: str, demo: Any):
    """Needs a C++ compiler; kernels sum in another order, so the tensors agree to rounding."""
    made = settings(method, "train.steps=2")
    decoder, tokenizer = demo
    fast, _ = model.load(made.model.path, dtype="float32", device="cpu", revision=None, compiled=True)
    corpora = data.load(made, tokenizer, trial.cache_of(settings("cache.enabled=false")))
    curves: list[list[dict[str, float]]] = []
    for one in (decoder, fast):
        curves.append([])
        feeds = train.feeds(made, corpora, tokenizer.pad_token_id)
        train.train(made, one, feeds, lambda _step, report: curves[-1].append(report))
    for plain, compiled in zip(*curves, strict=True):
        assert compiled["train/forget_loss"] == pytest.approx(plain["train/forget_loss"], rel=1e-4)
        assert compiled["train/grad_norm"] == pytest.approx(plain["train/grad_norm"], rel=1e-2)
