"""Rank and mass accuracy against plain loops, at their ends, and at chance."""

import numpy as np
import pytest
import torch

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.explanations.localisation import chance, mass_accuracy, rank_accuracy


def cases(n):
    rng = np.random.default_rng(0)
    masks = rng.random((n, 6, 7)) < rng.uniform(0.1, 0.9, (n, 1, 1))
    return rng.normal(size=(n, 6, 7)), masks


def test_equal_plain_loops():
    maps, masks = cases(20)
    rank, mass = [], []
    for map_, mask in zip(maps, masks, strict=True):
        places = sorted(range(42), key=lambda i, row=map_: -abs(row.flat[i]))[: mask.sum()]
        rank.append(sum(mask.ravel()[i] for i in places) / mask.sum())
        mass.append(sum(abs(v) for v, m in zip(map_.ravel(), mask.ravel(), strict=True) if m) / np.abs(map_).sum())
    np.testing.assert_allclose(rank_accuracy(maps, masks), rank)
    np.testing.assert_allclose(mass_accuracy(torch.tensor(maps), torch.tensor(masks)), mass)


def test_a_map_that_is_the_mask_is_perfect_and_one_beside_it_is_zero():
    _, masks = cases(10)
    for measure in (rank_accuracy, mass_accuracy):
        np.testing.assert_array_equal(measure(masks.astype(float), masks), 1.0)
    few = np.zeros((1, 6, 7), dtype=bool)
    few[0, 0] = True
    for measure in (rank_accuracy, mass_accuracy):
        assert measure((~few).astype(float), few) == 0.0


def test_random_and_uniform_maps_come_to_chance():
    masks = np.zeros((4000, 6, 7), dtype=bool)
    masks[:, :3, :4] = True  # 12 of 42
    np.testing.assert_allclose(chance(masks), 12 / 42)
    random = np.random.default_rng(0).random(masks.shape)
    assert rank_accuracy(random, masks).mean() == pytest.approx(12 / 42, abs=0.01)
    assert mass_accuracy(random, masks).mean() == pytest.approx(12 / 42, abs=0.01)
    # Ties fall at random, not to the first pixels, which are the true ones here.
    assert rank_accuracy(np.ones(masks.shape), masks).mean() == pytest.approx(12 / 42, abs=0.01)


def test_what_is_undefined():
    maps, masks = cases(3)
    maps[0], masks[1] = 0, False
    assert np.isnan(rank_accuracy(maps, masks)).tolist() == [True, True, False]
    assert np.isnan(mass_accuracy(maps, masks)).tolist() == [True, True, False]
    assert np.isnan(chance(masks)).tolist() == [False, True, False]


def test_masks_that_do_not_fit_are_refused():
    for measure in (rank_accuracy, mass_accuracy):
        with pytest.raises(SparsityError, match="not booleans"):
            measure(np.ones((2, 3, 3)), np.ones((2, 3, 3)))
        with pytest.raises(SparsityError, match=r"shape \(2, 3, 4\), not \(2, 3, 3\)"):
            measure(np.ones((2, 3, 3)), np.ones((2, 3, 4), dtype=bool))
