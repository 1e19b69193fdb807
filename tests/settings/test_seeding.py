"""Seeds by name."""

import torch

from rna.settings.seeding import generator, seed_of


def test_a_seed_depends_on_every_part():
    seeds = {seed_of(0, "noise"), seed_of(1, "noise"), seed_of(0, "order"), seed_of(0, "noise", "bio"), seed_of(0)}
    assert len({*seeds, seed_of(0, "noise/bio")}) == 6


def test_a_seed_is_the_same_on_every_machine():
    """The first 8 bytes of SHA-256 of '[0, "noise"]', big-endian, without the lowest bit."""
    assert seed_of(0, "noise") == 0xA926F0AE1071F342 >> 1


def test_seeds_fit_torch():
    seeds = [seed_of(number, "order") for number in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**61


def test_a_generator_repeats_its_name_and_no_other():
    first = torch.rand(4, generator=generator(3, "noise"))
    assert torch.rand(4, generator=generator(3, "noise")).equal(first)
    assert not torch.rand(4, generator=generator(3, "order")).equal(first)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    torch.rand(4, generator=generator(3, "noise"))
    assert torch.get_rng_state().equal(before)
