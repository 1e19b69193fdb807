"""What only an accelerator can show: the staged step there, in half precision, and over a device map."""

import pytest
import torch

from rna import model
from rna.settings import BUILTIN
from tests import test_model, test_staged, tiny
from tests.test_train import METHODS, unlearn

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]


@pytest.mark.parametrize(("method", "retain_loss"), test_staged.CASES)
def test_the_step_on_a_gpu_is_the_step_on_a_cpu(method: str, retain_loss: str):
    names = model.trained_names(tiny.decoder(), (1, 2), "down_proj")
    values = []
    for device in ("cpu", "cuda"):
        decoder = model.split(tiny.decoder().model.to(device))
        made = test_staged.trial(method, retain_loss, ())
        made.directions = {topic: direction.to(device) for topic, direction in made.directions.items()}
        batches = tuple(batch.to(torch.device(device)) for batch in test_staged.BATCHES)
        values.append(test_staged.staged_gradients(decoder, names, made, batches, 5.0)[0])  # pyright: ignore
    assert values[0] == pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("method", "retain_loss"), METHODS)
def test_half_precision_trains(dtype: str, method: str, retain_loss: str):
    decoder, _ = model.load(str(BUILTIN / "base"), dtype=dtype, device="cuda", revision=None)
    deltas, curve = unlearn(test_model.settings(f"method={method}", f"retain={retain_loss}"), decoder)
    assert {tensor.dtype for tensor in deltas.values()} == {getattr(torch, dtype)}
    assert len(curve) == 4


def test_a_device_map_trains():
    decoder, _ = model.load(str(BUILTIN / "base"), dtype="float32", device="auto", revision=None, device_map="balanced")
    model.self_check(decoder, tiny.batch(0).to(decoder.device))
    unlearn(test_model.settings("method=npo"), decoder)
