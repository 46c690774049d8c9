"""Agreement against scipy and plain sets."""

import numpy as np
import pytest
import torch
from scipy import stats

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.explanations.agreement import agreement_records, rank_agreement, top_agreement


def test_rank_agreement_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (6, 5, 5)).astype(float), rng.normal(size=(6, 5, 5))
    expected = [stats.spearmanr(np.abs(x).ravel(), np.abs(y).ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_agreement(torch.tensor(a), b), expected)


def test_top_agreement_equals_sets_of_places():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 8, 8))
    b = a + rng.normal(size=a.shape)
    expected = []
    for x, y in zip(a, b, strict=True):
        top_x, top_y = ({*np.argsort(-np.abs(one).ravel())[:6].tolist()} for one in (x, y))  # 6 of 64
        expected.append(len(top_x & top_y) / len(top_x | top_y))
    np.testing.assert_allclose(top_agreement(a, b), expected)
    assert 0.1 < np.mean(expected) < 0.9


def test_random_maps_and_ties_agree_by_chance_alone():
    rng = np.random.default_rng(0)
    a, b = rng.random((2000, 10, 10))[:, None].repeat(2, 1).swapaxes(0, 1)
    b = rng.permuted(b.reshape(2000, -1), axis=1).reshape(b.shape)
    chance = 10 / 190
    assert top_agreement(a, b).mean() == pytest.approx(chance, abs=0.01)
    # One pixel stands out in each map, not the same one: the other nine of ten are drawn, and hardly agree.
    a[:], b[:] = 0, 0
    a[:, 0, 0], b[:, 5, 5] = 1, 1
    assert top_agreement(a, b).mean() == pytest.approx(chance, abs=0.02)
    assert np.array_equal(top_agreement(a, b, seed=1), top_agreement(a, b, seed=1))
    assert not np.array_equal(top_agreement(a, b, seed=1), top_agreement(a, b, seed=2))


def test_a_constant_map_agrees_with_nothing():
    a = np.random.default_rng(0).normal(size=(3, 2, 2))
    b = a.copy()
    b[1] = 7.0
    assert np.isnan(rank_agreement(a, b)).tolist() == [False, True, False]
    assert np.isnan(top_agreement(a, b)).tolist() == [False, True, False]
    for row in agreement_records(a, b, "gradient"):
        assert (row.attribution, row.n) == ("gradient", 2)
        assert row.value == pytest.approx(1)
        assert "undefined for 1 of 3," in row.detail


def test_records_over_some_images():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 5, 5))
    keep = np.array([True, False, False, True])
    rows = agreement_records(a, b, "gradient", keep=keep)
    assert [row.metric for row in rows] == ["dense_agreement", "dense_agreement_top10"]
    assert rows[0].value == pytest.approx(rank_agreement(a, b)[[0, 3]].mean())
    assert rows[1].value == pytest.approx(top_agreement(a, b)[[0, 3]].mean())
    assert all("2 of 4 images" in row.detail for row in rows)


def test_maps_of_other_images_are_refused():
    for measure in (rank_agreement, top_agreement):
        with pytest.raises(SparsityError, match="differ"):
            measure(np.zeros((2, 3, 3)), np.zeros((3, 3, 3)))
