"""Peak memory of a training step on models too large for this machine, computed on the meta device.

    python tests/bench/memory.py

No weights exist: torch's memory tracker follows every storage that a real step of the staged forward would make, with
AdamW's moments and, for RM methods, the layers up to the unlearn layer alone (`train_only=true`). It leaves out what
an allocator wastes and the kernels' own workspace. Prints a table and writes JSON.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
import torch.fx.experimental._config
import transformers
from torch.distributed._tools.mem_tracker import MemTracker

from rna.corpora.batch import Batch
from rna.decoder import model
from rna.unlearning.step import Step
from tests.bench.step import METHODS, OPTIONS, SHAPES
from tests.setups import setup

LLAMA_70B = {
    "architecture": "Llama",
    "dtype": "bfloat16",
    "layer": 7,
    "batch": 4,
    "tokens": 512,
    "config": {
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    },
}
MODELS = {"zephyr_7b": SHAPES["zephyr_7b"], "llama_70b": LLAMA_70B}
GIB = 2**30


def decoder_of(shape: dict[str, Any], *, part: bool) -> model.Decoder:
    """The model's tensors on the meta device: all of them, or those RM training loads."""
    config = getattr(transformers, f"{shape['architecture']}Config")(**shape["config"])
    torch.set_default_dtype(getattr(torch, shape["dtype"]))
    with torch.device("meta"):
        if part:
            config.num_hidden_layers = shape["layer"] + 1
            made: Any = model.Headless(getattr(transformers, f"{shape['architecture']}Model")(config))
        else:
            made = getattr(transformers, f"{shape['architecture']}ForCausalLM")(config)
    torch.set_default_dtype(torch.float32)
    decoder = model.split(made.eval().requires_grad_(False))
    forward: Any = decoder.base.forward  # full batches need no mask, and the meta device cannot look into one
    decoder.base.forward = lambda **inputs: forward(**{**inputs, "attention_mask": None})
    return decoder


def peak(shape: dict[str, Any], name: str, *, recompute: bool = False) -> dict[str, Any]:
    """Bytes of the weights, and at the peak of a step."""
    method = name.split("+")[0]
    decoder = decoder_of(shape, part=METHODS[name] == "representation")
    layer = shape["layer"]

    def noise(index: int, hidden_BTD: torch.Tensor) -> torch.Tensor:
        return hidden_BTD + 0.01 * torch.randn_like(hidden_BTD) if index == layer else hidden_BTD

    trial = setup(
        method,
        METHODS[name],
        OPTIONS[method],
        layer=layer,
        first_trained=layer - 2,
        noise=Noise((layer,), noise),  # pyright: ignore[reportArgumentType]
        directions={"text": torch.empty(decoder.width, device="meta")},
    )

    def batch(tokens: int) -> Batch:
        size = (shape["batch"], tokens)
        return Batch(
            torch.zeros(size, dtype=torch.long, device="meta"), torch.ones(size, dtype=torch.bool, device="meta")
        )

    batches = batch(shape["tokens"]), batch(shape["tokens"]), batch(16) if method == "dpo" else None
    policy = model.masters(decoder, model.trained_names(decoder, range(layer - 2, layer + 1), "down_proj"))
    optimizer = torch.optim.AdamW(policy.values(), lr=1e-5, weight_decay=0.0)

    def step() -> None:
        optimizer.zero_grad()
        for _, loss in Step(decoder, policy, trial, "text", *batches, recompute=recompute):
            loss.backward()
        optimizer.step()

    step()  # AdamW's moments come with its first step
    tracker = MemTracker()
    tracker._mod_tracker = WholeStep()  # pyright: ignore[reportAttributeAccessIssue]
    tracker.track_external(decoder.model, optimizer, *policy.values())
    with tracker:
        step()
    found = next(value for key, value in tracker.get_tracker_snapshot("peak").items() if key.type == "meta")
    weights = sum(tensor.nbytes for tensor in decoder.model.parameters())
    return {"method": name, "weights": weights, "peak": found["Total"], "gradient_checkpointing": recompute}


class WholeStep:
    """In place of the tracker's account by module, whose hooks want every parameter to have a gradient."""

    is_bw = False
    parents = frozenset({"Global"})

    def register_user_hooks(self, *_: object) -> None:
        pass

    clear_user_hooks = register_user_hooks

    def __enter__(self) -> "WholeStep":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Noise:
    """The trial's noise without a generator, which the meta device does not have."""

    def __init__(self, layers: tuple[int, ...], add: Any) -> None:
        self.layers, self.add = layers, add

    def __call__(self, layer: int, hidden_BTD: torch.Tensor) -> torch.Tensor:
        return self.add(layer, hidden_BTD)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="outputs/bench/memory.json")
    options = parser.parse_args()
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True  # the batches are full
    transformers.masking_utils.find_packed_sequence_indices = lambda _: None  # nor into positions
    model.CHUNK["meta"] = model.CHUNK["cuda"]
    rows: list[dict[str, Any]] = []
    print(f"{'model':<12}{'method':<14}{'GiB of weights':>15}{'GiB at the peak':>17}   l, batch, tokens")
    for title, shape in MODELS.items():
        for name in METHODS:
            for recompute in (False, True) if "+" in name else (False,):
                row = {"model": title, **peak(shape, name, recompute=recompute)}
                rows.append(row)
                note = "  gradient checkpointing" if recompute else ""
                print(
                    f"{title:<12}{name:<14}{row['weights'] / GIB:>15.2f}{row['peak'] / GIB:>17.2f}   "
                    f"{shape['layer']}, {shape['batch']} + {shape['batch']}, {shape['tokens']}{note}",
                    flush=True,
                )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=1))
    print(f"written to {out}")


if __name__ == "__main__":
    main()
