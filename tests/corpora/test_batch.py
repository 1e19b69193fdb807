"""Padding and masks of ragged rows."""

import torch

from rna.corpora.batch import Batch, pad

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
