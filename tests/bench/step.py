"""One training step, staged against plain: time, memory and arithmetic, as ratios within one run.

    python tests/bench/step.py                          # SmolLM2-135M's shape on the CPU, every method
    python tests/bench/step.py --shape zephyr_7b        # Zephyr-7B's shape in bfloat16, on a GPU

`plain` is two whole models and whole forwards (tests/oracle.py) with every parameter requiring a gradient, as public
code has it; `frozen` is the same with gradients for the trained tensors only. `staged` is this project's step, and
`padded` the same with batches that are padded, not packed; `remembered` is `staged` where another trial of a sweep has
left the reference's forget values in the cache; `entered` has the hidden states that enter the first trained layer from
there too, read from the disk. Every measurement is a process of its own. Weights and tokens are random.

All documents are as long as the shape says, or, with `--lengths real`, as long as Wikitext's lines are and cut there;
then each step has other batches, and a step's time is the mean over them. Prints a table and writes JSON.
"""

import argparse
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

METHODS = {
    "rmu": "representation",
    "adaptive_rmu": "representation",
    "rsv": "representation",
    "npo+kl": "kl",
    "npo+mse": "mse",
    "dpo+kl": "kl",
    "dpo+mse": "mse",
    "simnpo+kl": "kl",
    "simnpo+mse": "mse",
}
WAYS = ("plain", "frozen", "padded", "staged", "remembered", "entered")
CUT = 512  # tokens of a document, at most, where nothing is said: as data=text cuts Wikitext's lines
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2_135m": {
        "architecture": "Llama",
        "dtype": "float32",
        "layer": 7,
        "batch": 4,
        "tokens": 128,
        "config": {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "tie_word_embeddings": True,
        },
    },
    "zephyr_7b": {
        "architecture": "Mistral",
        "dtype": "bfloat16",
        "layer": 7,
        "batch": 4,
        "tokens": 512,
        "config": {
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
            "tie_word_embeddings": False,
        },
    },
}
# Tokens of Wikitext-2's test lines of two or more, by SmolLM2's tokenizer: each fortieth of them.
COUNTS = "2 4 5 6 6 7 7 8 8 9 10 12 14 17 23 33 45 57 67 76 86 94 101 107 115 123 131 138 146 156"
LINES = [int(count) for count in f"{COUNTS} 165 175 188 198 212 227 243 265 294 339 565".split()]
OPTIONS = {
    "rmu": {"coefficient": 6.5},
    "adaptive_rmu": {"beta": 3.0},
    "rsv": {"coefficient": 10.0},
    "npo": {"beta": 0.1, "log_prob": "mean"},
    "dpo": {"beta": 0.1, "log_prob": "mean"},
    "simnpo": {"beta": 0.1, "gamma": 0.0},
}


def build(shape: dict[str, Any], device: str) -> Any:
    """A random model of the shape."""
    import torch
    import transformers

    config = getattr(transformers, f"{shape['architecture']}Config")(**shape["config"])
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(getattr(torch, shape["dtype"]))
        made = getattr(transformers, f"{shape['architecture']}ForCausalLM")(config)
        torch.set_default_dtype(torch.float32)
    return made.eval().requires_grad_(False)


def resident(field: str) -> int:
    """Resident bytes of this process: `VmRSS` now, `VmHWM` at their peak."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{field}: not in /proc/self/status")


class WithoutModules:
    """Counts for the whole, not by module."""

    parents = frozenset({"Global"})

    def __enter__(self) -> "WithoutModules":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def lengths_of(shape: dict[str, Any], real: bool, batches: int) -> list[list[int]]:
    """Tokens of each document of so many batches: the shape's, or those of Wikitext's lines, evenly of each size."""
    count = batches * shape["batch"]
    places = [(index + 0.5) / count * (len(LINES) - 1) for index in range(count)]
    steps = [LINES[int(place) : int(place) + 2] for place in places]
    found = [low + (high - low) * (place % 1) for place, (low, high) in zip(places, steps, strict=True)]
    tokens = [min(round(length), shape["tokens"]) if real else shape["tokens"] for length in found]
    random.Random(0).shuffle(tokens)
    return [tokens[first : first + shape["batch"]] for first in range(0, count, shape["batch"])]


def measure(shape: dict[str, Any], name: str, way: str, device: str, lengths: list[list[int]]) -> dict[str, Any]:
    """Seconds, floating point operations and peak bytes of a step, after one that warms up.

    Args:
        lengths: of the documents of each batch: two for the step that warms up, then two for each step.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from rna.corpora.batch import Batch, pad
    from rna.corpora.cache import Cache, States
    from rna.decoder import model, packer
    from rna.unlearning import losses
    from rna.unlearning.noise import GaussianNoise, Normals
    from rna.unlearning.step import Step
    from tests import oracle
    from tests.setups import setup

    gpu = device.startswith("cuda")
    before = 0 if gpu else resident("VmRSS")
    decoder = model.split(build(shape, device))
    method = name.split("+")[0]
    layer, vocabulary = shape["layer"], shape["config"]["vocab_size"]
    source = torch.Generator(device).manual_seed(1)
    draw = losses.gaussian_direction if method == "rsv" else losses.control_vector
    trial = setup(
        method,
        METHODS[name],
        OPTIONS[method],
        layer=layer,
        first_trained=layer - 2,
        noise=GaussianNoise(0.01, (layer,), Normals(1)),
        directions={"text": draw(decoder.width, source)},
    )

    pack = packer(decoder) if way not in ("plain", "frozen", "padded") else lambda batch: batch

    def batch(tokens: list[int]) -> Batch:
        rows = [torch.randint(0, vocabulary, (count,), generator=source, device=device).tolist() for count in tokens]
        return pack(pad(rows, 0)).to(torch.device(device))

    pairs = zip(lengths[::2], lengths[1::2], strict=True)
    made = [(number, batch(one), batch(two)) for number, (one, two) in enumerate(pairs)]
    refusal = batch([16] * shape["batch"]) if method == "dpo" else None
    folder = tempfile.TemporaryDirectory()
    kept, states = Cache(Path(folder.name), 2**40), dict[str, States]()
    names = model.trained_names(decoder, range(layer - 2, layer + 1), "down_proj")
    ours, memory = way not in ("plain", "frozen"), dict[Any, torch.Tensor]()
    if ours:
        model.keep_freed_memory()
        policy = model.masters(decoder, names)
        trained = list(policy.values())
    else:
        plain = oracle.Plain.of(decoder.model, names)
        if way == "plain":
            plain.policy.requires_grad_(True)
        trained = [parameter for key, parameter in plain.policy.named_parameters() if key in names]
        plain.reference = decoder.model  # two models in memory, not three
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.0)

    def compute(_kind: str, _what: Any, _role: str, value: Any) -> torch.Tensor:
        return value()

    def remember(number: int, kind: str, _what: Any, role: str, value: Any) -> torch.Tensor:
        if kind == "states":
            return states.setdefault(role, States(kept, role)).recall(number, value) if way == "entered" else value()
        if (number, role) not in memory:
            memory[number, role] = value()
        return memory[number, role]

    def step(number: int, forget: Batch, retain: Batch) -> None:
        optimizer.zero_grad()
        if ours:
            recall = compute if way in ("padded", "staged") else functools.partial(remember, number)
            for key, loss in Step(decoder, policy, trial, "text", forget, retain, refusal, recall):
                (loss if key == "forget" else 5.0 * loss).backward()
        else:
            plain.policy.zero_grad()
            for key, loss in oracle.in_turn(plain, trial, "text", forget, retain, refusal):
                (loss if key == "forget" else 5.0 * loss).backward()
        optimizer.step()
        if gpu:
            torch.cuda.synchronize()

    for one in made if way in ("remembered", "entered") else made[:1]:
        step(*one)
    seconds: list[float] = []
    for one in made[1:]:
        started = time.perf_counter()
        step(*one)
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if gpu else resident("VmHWM") - before
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = WithoutModules()  # its hooks on modules refuse a gradient taken inside the forward pass
    with counter:
        for one in made[1:]:
            step(*one)
    return {
        "method": name,
        "way": way,
        "seconds": (statistics.median if lengths[0] == lengths[-1] else statistics.mean)(seconds),
        "all_seconds": seconds,
        "peak_bytes": peak,
        "flops": counter.get_total_flops() / len(seconds),
    }


def minimum(shape: dict[str, Any], name: str, tokens: float) -> dict[str, float]:
    """Matrix products a step cannot do without: layer and head passes in units of one batch, and their FLOPs.

    A backward pass through a frozen layer costs what its forward does (no weight gradients); the trained block adds
    the gradient of three matrices, counted as layers' shares. Attention scores are left out: they are under a tenth.

    Args:
        tokens: of a document, in the mean.
    """
    config, batch = shape["config"], shape["batch"] * tokens
    width, inner, depth = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    kv = config["num_key_value_heads"] * width // config["num_attention_heads"]
    layer_flops = 2 * batch * (2 * width * width + 2 * width * kv + 3 * width * inner)
    head_flops = 2 * batch * width * config["vocab_size"]
    down = 2 * batch * width * inner / layer_flops
    first = shape["layer"] - 2
    method = name.split("+")[0]
    if METHODS[name] == "representation":
        # prefix once; block: policy forward, backward through two layers and into three matrices, reference forward
        forget_ref = method != "rmu"
        policy = 3 + 2 + 4 * down
        layers = (first + policy + 3 * forget_ref) + (first + policy + 3)
        return {"layers": layers, "heads": 0, "flops": layers * layer_flops}
    above = depth - first
    policy, refusal = 2 * above - 1 + 4 * down, 16 / tokens
    forget_ref = method != "simnpo"
    forget = first + policy + above * forget_ref
    layers = forget + first + policy + above + (refusal * (first + policy + above) if method == "dpo" else 0)
    heads = (2 + forget_ref) + 3 + (refusal * 3 if method == "dpo" else 0)
    return {"layers": layers, "heads": heads, "flops": layers * layer_flops + heads * head_flops}


def matrix_peak(shape: dict[str, Any], device: str) -> float:
    """FLOP/s of a large matrix product in the shape's dtype on this machine."""
    import torch

    size = 8192 if device.startswith("cuda") else 2048
    left, right = (torch.randn(size, size, device=device, dtype=getattr(torch, shape["dtype"])) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        started = time.perf_counter()
        left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def child(arguments: list[str]) -> dict[str, Any]:
    """A measurement in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2_135m")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--device", default=None)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--lengths", choices=("whole", "real"), default="whole")
    parser.add_argument(
        "--tokens", type=int, help=f"of a document, at most, in place of the shape's, or of {CUT} of real lengths"
    )
    parser.add_argument("--out", default="outputs/bench/step.json")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    device = options.device or ("cuda" if options.shape == "zephyr_7b" else "cpu")
    tokens = options.tokens or (CUT if options.lengths == "real" else None)
    shape = SHAPES[options.shape] | ({"tokens": tokens} if tokens else {})
    lengths = lengths_of(shape, options.lengths == "real", 2 + 2 * options.steps)
    if options.one:
        import torch  # noqa: F401  # imported before memory is read: the interpreter's own is not the step's
        import transformers  # noqa: F401

        print(json.dumps(measure(shape, *options.one, device, lengths)))
        return
    if options.peak:
        print(json.dumps({"peak": matrix_peak(shape, device)}))
        return

    mean = statistics.mean(sum(batch) for batch in lengths[2:]) / shape["batch"]
    common = ["--shape", options.shape, "--device", device, "--steps", str(options.steps), "--lengths", options.lengths]
    common += ["--tokens", str(shape["tokens"])]
    peak = child([*common, "--peak"])["peak"]
    print(f"{options.shape}, {device}; a matrix product reaches {peak / 1e9:.0f} GFLOP/s")
    print(
        f"{'method':<14}{'way':<12}{'s/step':>8}{'times':>7}{'GiB':>7}{'of plain':>9}{'TFLOP':>8}"
        f"{'of peak':>8}{'minimum':>9}"
    )
    rows: list[dict[str, Any]] = []
    for name in options.methods.split(","):
        least = minimum(shape, name, mean)
        found = {way: child([*common, "--one", name, way]) for way in options.ways.split(",")}
        base = found.get("plain") or next(iter(found.values()))
        for way, row in found.items():
            row |= {
                "speedup": base["seconds"] / row["seconds"],
                "memory_ratio": row["peak_bytes"] / base["peak_bytes"],
                "fraction_of_matrix_peak": row["flops"] / row["seconds"] / peak,
                "minimum": least,
                "flops_over_minimum": row["flops"] / least["flops"],
            }
            rows.append(row)
            print(
                f"{name:<14}{way:<12}{row['seconds']:>8.3f}{row['speedup']:>7.2f}{row['peak_bytes'] / 2**30:>7.2f}"
                f"{row['memory_ratio']:>9.2f}{row['flops'] / 1e12:>8.3f}{row['fraction_of_matrix_peak']:>8.0%}"
                f"{row['flops_over_minimum']:>8.2f}x",
                flush=True,
            )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"shape": options.shape, "device": device, "matrix_peak": peak, "rows": rows}, indent=1))
    print(f"written to {out}")


if __name__ == "__main__":
    main()
