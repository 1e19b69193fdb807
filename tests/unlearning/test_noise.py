"""The noise: where it falls, how strong it is, and whose randomness it takes."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from rna.unlearning.noise import GaussianNoise, Normals, philox, standard_deviation


def noise(std: float = 0.5, layers: tuple[int, ...] = (1,), seed: int = 0) -> GaussianNoise:
    return GaussianNoise(std, layers, Normals(seed))


def test_only_the_chosen_layers_get_noise():
    hidden_BTD, add = torch.ones(2, 3, 4), noise(layers=(1, 3))
    assert [layer for layer in range(5) if not add(layer, hidden_BTD).equal(hidden_BTD)] == [1, 3]


def test_the_stream_itself_is_left_alone():
    hidden_BTD = torch.ones(2, 3, 4)
    noise()(1, hidden_BTD)
    assert hidden_BTD.equal(torch.ones(2, 3, 4))


@pytest.mark.parametrize(("scale", "std"), [("std", 0.09), ("variance", 0.3)])
def test_mean_and_strength_are_as_asked(scale, std):
    """√0.09 = 0.3. Of 200,000 draws the mean is within 4·std/√200000 < 0.01·std, and so is the deviation."""
    add = noise(standard_deviation(0.09, scale))
    delta_BTD = add(1, torch.zeros(10, 100, 200))
    assert abs(delta_BTD.mean()) < 0.01 * std
    assert_close(delta_BTD.std(), torch.tensor(std), rtol=0.01, atol=0)


def test_every_token_and_dimension_has_its_own_draw():
    delta_BTD = noise()(1, torch.zeros(3, 5, 7))
    assert delta_BTD.unique().numel() == 3 * 5 * 7


def test_noise_is_added_to_what_is_there():
    hidden_BTD = torch.arange(24.0).view(2, 3, 4)
    assert_close(noise()(1, hidden_BTD) - hidden_BTD, noise()(1, torch.zeros(2, 3, 4)))


def test_noise_is_fresh_at_every_call_and_layer():
    hidden_BTD, add = torch.zeros(1, 2, 3), noise(layers=(0, 1))
    draws = torch.stack([add(layer, hidden_BTD) for layer in (0, 0, 1)])
    assert draws.unique().numel() == 3 * 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_is_kept(dtype):
    hidden_BTD = torch.zeros(1, 2, 3, dtype=dtype)
    delta_BTD = noise()(1, hidden_BTD)
    assert delta_BTD.dtype == dtype
    assert delta_BTD.any()


def test_randomness_belongs_to_the_key():
    hidden_BTD, before = torch.zeros(1, 2, 3), torch.get_rng_state()
    assert noise(seed=1)(1, hidden_BTD).equal(noise(seed=1)(1, hidden_BTD))
    assert not noise(seed=1)(1, hidden_BTD).equal(noise(seed=2)(1, hidden_BTD))
    assert torch.get_rng_state().equal(before)


def test_the_words_are_philoxs_and_the_same_by_numpy_and_by_torch():
    """Random123's known answer for a counter and a key of zeros; numpy's counter is one ahead."""
    assert np.random.Philox(key=0, counter=np.array([2**64 - 1] * 4, dtype=np.uint64)).random_raw(4).tolist() == [
        0x16554D9ECA36314C,
        0xDB20FE9D672D0FDC,
        0xD7E772CEE186176B,
        0x7E68B68AEC7BA23B,
    ]
    for key in (0, 5, 2**63 - 25, 2**127 + 3):
        for draw in (0, 9):
            found = philox(key, draw, 3, 7, torch.device("cpu"))
            for row in range(3):
                counter = np.array([0, row, draw, 0], dtype=np.uint64)
                words = np.random.Philox(key=key, counter=counter).random_raw(4 * 7)
                assert found[row].tolist() == words.view(np.int64).tolist()


def test_a_tokens_noise_depends_on_no_padding_and_no_neighbour():
    """Rows are streams of their own, and a longer row begins as the shorter one did."""
    short, long = Normals(3)(2, 5 * 7, torch.device("cpu")), Normals(3)(4, 9 * 7, torch.device("cpu"))
    assert short.equal(long[:2, : 5 * 7])
    assert long.unique().numel() == long.numel()


def test_a_draw_can_be_taken_up_where_it_was():
    one = Normals(3)
    first, second = one(1, 8, torch.device("cpu")), one(1, 8, torch.device("cpu"))
    assert not first.equal(second)
    assert Normals(3, drawn=1)(1, 8, torch.device("cpu")).equal(second)


def test_the_numbers_are_normal_and_independent():
    """Kolmogorov and Smirnov at 1 %; correlations of neighbours, which share a radius, and of squares below 4/√n."""
    from scipy import stats

    numbers = Normals(1)(1, 200_000, torch.device("cpu"))[0].double().numpy()
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    for values in (numbers, numbers**2):
        for lag in (1, 2, 3, 8):
            assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < 4 / 200_000**0.5
    assert np.abs(numbers).max() > 4
    assert np.isfinite(numbers).all()
