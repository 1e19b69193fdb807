"""Peak memory of what the analyses run on a 7B shape, beside its weights, computed on the meta device.

    python tests/bench/analyses.py

The real functions of `rna.analyze.measure` and `theory`, at the unlearn layer 7 and at the first, in float32, on texts
of 512 tokens and on questions of 128, with the budgets of `rna.analyze.parts` for a GPU; no weights exist. Two stacks
of draws count, of 8 MiB for each sample of 512 tokens; Hessian products are slow to follow, so they are of few samples:
at 64 their stacks add 1.5 GiB.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch
import transformers
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.attention import SDPBackend, sdpa_kernel

from rna.analyze import measure, parts, theory
from rna.decoder.model import Stream
from tests.bench.memory import GIB, WholeStep, decoder_of
from tests.bench.step import SHAPES


def peak(layer: int, tokens: int, samples: int, what: str) -> float:
    """GiB at the peak of one of the analyses' steps, with the draws it works on."""
    decoder = decoder_of({**SHAPES["zephyr_7b"], "dtype": "float32"}, part=False)
    width: int = decoder.width
    one_BTD = torch.empty(1, tokens, width, device="meta")
    with torch.no_grad():
        own = measure.model.embed(decoder, measure.pad([[5] * tokens], 0).to(decoder.device))
    stream = Stream(one_BTD, layer + 1, own.layer_inputs)
    drawn_STD = torch.empty(samples, tokens, width, device="meta")
    other_STD = torch.empty(samples, tokens, width, device="meta")
    text = measure.text_loss(decoder, stream, [5] * tokens)
    answer = measure.answer_loss(decoder, stream, 5)
    tracker = MemTracker()
    tracker._mod_tracker = WholeStep()  # pyright: ignore[reportAttributeAccessIssue]
    tracker.track_external(decoder.model, one_BTD, drawn_STD, other_STD)
    with tracker, sdpa_kernel(SDPBackend.MATH):
        _ = {
            "values of a text's loss": lambda: measure.in_parts(text, one_BTD + 0.1 * drawn_STD),
            "gradients of an answer's loss": lambda: measure.gradients(answer, one_BTD + drawn_STD),
            "Hessian products": lambda: drawn_STD * measure.hessian_product(text, one_BTD)(drawn_STD),
            "noise sensitivity": lambda: sensitivity(measure.layer_of(decoder, stream), one_BTD, drawn_STD, other_STD),
        }[what]()
    found = next(value for key, value in tracker.get_tracker_snapshot("peak").items() if key.type == "meta")
    return (found["Total"] - sum(tensor.nbytes for tensor in decoder.model.parameters())) / GIB


def sensitivity(layer: Any, *drawn: torch.Tensor) -> None:
    with suppress(NotImplementedError):  # the meta device has no numbers to read at the end
        theory.noise_sensitivity(layer, *drawn)


def main() -> None:
    transformers.masking_utils.find_packed_sequence_indices = lambda _: None  # the meta device cannot look in
    for budget in (parts.FORWARD, parts.GRADIENT, parts.SECOND_ORDER):
        budget["meta"] = budget["cuda"]
    whats = {"values of a text's loss": 64, "gradients of an answer's loss": 64, "noise sensitivity": 32}
    whats |= {"Hessian products": 4}
    print(f"{'':<32}{'layer':>8}{'tokens':>8}{'samples':>9}{'GiB':>8}")
    for what, samples in whats.items():
        for layer, tokens in ((7, 512), (7, 128), (0, 512)):
            print(f"{what:<32}{layer:>8}{tokens:>8}{samples:>9}{peak(layer, tokens, samples, what):>8.2f}", flush=True)


if __name__ == "__main__":
    main()
