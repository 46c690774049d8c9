"""Gini, complexity and ranks of maps against independent formulas."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.explanations.maps import attribution_row, complexity, gini, ranks


def test_gini_equals_the_mean_difference():
    """Half the relative mean absolute difference of all pairs, by a loop."""
    maps = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    for value, one in zip(gini(maps), maps.abs().flatten(1).numpy().astype(float), strict=True):
        pairs = sum(abs(a - b) for a in one for b in one) / len(one) ** 2
        assert value == pytest.approx(pairs / (2 * one.mean()))


def test_gini_of_a_map_does_not_depend_on_its_scale_and_a_zero_map_has_none():
    maps = np.random.default_rng(0).normal(size=(3, 5, 5))
    np.testing.assert_allclose(gini(maps), gini(-1e6 * maps))
    maps[1] = 0
    assert np.isnan(gini(maps)).tolist() == [False, True, False]


def test_complexity_equals_scipys_entropy_of_numpys_histogram():
    maps = np.random.default_rng(0).exponential(size=(4, 12, 12))
    expected = [stats.entropy(np.histogram(one.ravel(), 100)[0]) for one in maps]
    np.testing.assert_allclose(complexity(maps), expected)


def test_complexity_does_not_depend_on_scale_or_sign_and_a_constant_map_has_none():
    maps = np.random.default_rng(0).exponential(size=(3, 8, 8))
    # A power of two, which rounds nothing and so moves no value to another bin.
    np.testing.assert_array_equal(complexity(maps), complexity(-(2.0**-40) * maps))
    maps[1] = 3.0
    assert np.isnan(complexity(maps)).tolist() == [False, True, False]


def test_ranks_with_ties():
    flat = torch.tensor([[3.0, 1.0, 2.0, 2.0], [0.0, 5.0, 0.0, 0.0]])
    seen = set()
    for seed in range(30):
        order = ranks(flat, seed)
        assert order.sort(1).values.tolist() == [[0, 1, 2, 3]] * 2
        assert (order[0, 0], order[0, 1], order[1, 1]) == (0, 3, 0)
        seen.add(tuple(order[0, 2:].tolist()))
    assert seen == {(1, 2), (2, 1)}


def test_a_row_counts_what_is_undefined():
    row = attribution_row("gini", np.array([0.2, np.nan, 0.4]), "gradient", "said")
    assert (row.value, row.n, row.attribution) == (pytest.approx(0.3), 2, "gradient")
    assert row.detail == "said; undefined for 1 of 3, left out"
    none = attribution_row("gini", np.full(3, np.nan), "gradient", "said")
    assert none.n == 0
    assert math.isnan(none.value)


def test_maps_that_are_no_maps_are_refused():
    for measure in (gini, complexity):
        with pytest.raises(SparsityError, match="give numbers of that shape"):
            measure(np.zeros((3, 3)))
