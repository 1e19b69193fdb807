"""Padding and masks of ragged rows."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rna.corpora.batch import PAYS, Batch, pad

EOS = 9


def test_pad_puts_padding_on_the_right():
    batch = pad([[5, 6, 7], [8]], EOS)
    assert batch.ids_BT.tolist() == [[5, 6, 7], [8, EOS, EOS]]
    assert batch.mask_BT.tolist() == [[True, True, True], [True, False, False]]


def test_a_real_token_that_equals_the_pad_token_is_real():
    batch = pad([[5, EOS], [EOS, EOS, 7]], EOS)
    assert batch.mask_BT.tolist() == [[True, True, False], [True, True, True]]
    assert batch.tokens == 5


def test_predicts_where_a_real_token_follows():
    batch = pad([[1, 2, 3], [4], [5, EOS], [6, 7, 8]], EOS)
    assert batch.predicts_BT.int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]]


def test_predicts_nothing_across_the_row_end():
    """Without care the last position would be followed by its row's first token."""
    batch = pad([[1, 2]], EOS)
    assert batch.predicts_BT.tolist() == [[True, False]]


def test_predicts_leaves_the_mask_alone():
    batch = pad([[1, 2, 3], [4]], EOS)
    before = batch.mask_BT.clone()
    _ = batch.predicts_BT
    assert batch.mask_BT.equal(before)


def test_to_moves_ids_and_mask():
    moved = pad([[1, 2]], EOS).to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert (moved.ids_BT.device.type, moved.mask_BT.device.type) == ("meta", "meta")


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.sampled_from([0.0, 0.01, 0.1, 1.0]), st.booleans())
def test_a_packed_batch_holds_the_same_tokens_and_costs_less(lengths: list[int], key_cost: float, one_row: bool):
    rows = [list(range(100 * row, 100 * row + length)) for row, length in enumerate(lengths, 1)]
    padded = pad(rows, 0)
    batch = padded.packed(key_cost, one_row=one_row)
    if batch.packing is None:
        assert batch is padded
        return
    ids_RT, positions_RT, mask_RT = batch.packing.ids_RT, batch.packing.positions_RT, batch.packing.mask_RT
    assert ids_RT.numel() < PAYS * padded.ids_BT.numel()
    assert ids_RT[mask_RT].tolist() == [token for row in rows for token in row]
    assert positions_RT[mask_RT].tolist() == [place for row in rows for place in range(len(row))]
    for ids, positions, mask in zip(ids_RT.tolist(), positions_RT.tolist(), mask_RT.tolist(), strict=True):
        begin = [place for place, position in enumerate(positions) if position == 0]
        for start, end in zip(begin, [*begin[1:], len(ids)], strict=True):
            assert positions[start:end] == list(range(end - start))
            assert not mask[start] or ids[start:end] in rows
            assert len(set(mask[start:end])) == 1

    values_BT = padded.ids_BT[..., None] * padded.mask_BT[..., None]
    assert torch.equal(batch.padded(batch.as_read(values_BT)), values_BT)
    assert batch.of(ids_RT, padded.predicts_BT).tolist() == padded.ids_BT[padded.predicts_BT].tolist()
    assert torch.equal(batch.predicts_BT, padded.predicts_BT)


def test_rows_are_as_many_as_cost_least():
    batch = pad([[1] * length for length in (4, 6, 11)], 0)
    assert (one := batch.packed(0.0).packing)
    assert one.ids_RT.shape == (1, 21)
    assert (two := batch.packed(0.01).packing)
    assert two.ids_RT.shape == (2, 11)
    assert pad([[1] * 5, [1] * 5], 0).packed(0.0).packing is None
