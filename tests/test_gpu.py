"""What only an accelerator can show: the staged step there, in half precision, and over a device map; and all that
`test_devices` does on pretended ones.
"""

from pathlib import Path

import pytest
import torch

from rna.analyze import command as analyze
from rna.decoder import model
from rna.settings.fields import BUILTIN
from rna.unlearning.noise import Normals
from tests import tiny
from tests.decoder import test_model, test_staged
from tests.test_devices import DEVICES, TRIED, Case, analysed, whole
from tests.unlearning.test_train import METHODS, unlearn

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


@pytest.mark.parametrize("case", TRIED, ids="-".join)
def test_a_whole_trial(case: Case, tmp_path: Path):
    """Trained, killed, resumed, judged on the way and at the end, by choices and by perplexity."""
    if torch.cuda.device_count() < DEVICES[case[4]][0]:
        pytest.skip("needs two GPUs")
    whole(tmp_path, case)


@pytest.mark.parametrize("devices", ["one", "two"])
@pytest.mark.parametrize("what", [name for name in analyze.WHAT if name != "relative_noise"])
def test_an_analysis(what: str, devices: str, trials: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch):
    if torch.cuda.device_count() < DEVICES[devices][0]:
        pytest.skip("needs two GPUs")
    analysed(what, devices, *trials, monkeypatch)


def test_noise_is_the_cpus():
    """The same words to the bit, and numbers to a float's rounding."""
    ours, theirs = (Normals(7)(3, 1001, torch.device(name)).cpu() for name in ("cuda", "cpu"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
