"""AUROC against a count of all pairs."""

import math

import numpy as np
import pytest

from lightning_sparse import SparsityError
from lightning_sparse.statistics import auroc


def pairs(scores, positive):
    yes, no = scores[positive], scores[~positive]
    return float(((yes[:, None] > no) + 0.5 * (yes[:, None] == no)).mean())


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_it_is_the_share_of_pairs_in_the_right_order(values):
    rng = np.random.default_rng(values)
    scores, positive = rng.integers(0, values, 200).astype(float), rng.random(200) < 0.3
    area, low, high = auroc(scores, positive)
    assert area == pytest.approx(pairs(scores, positive))
    assert low < area < high


def test_hanley_and_mcneils_interval_by_hand():
    # Area 0.875 of 2 and 2: Q1 = 0.875 / 1.125, Q2 = 2 * 0.875**2 / 1.875.
    variance = (0.875 * 0.125 + (7 / 9 - 0.765625) + (1.53125 / 1.875 - 0.765625)) / 4
    area, low, high = auroc([3.0, 2.0, 2.0, 1.0], [True, True, False, False])
    assert (area, high) == (0.875, 1.0)
    assert low == pytest.approx(0.875 - 1.959963984540054 * math.sqrt(variance))


def test_undefined_scores_are_left_out_and_one_group_has_no_area():
    assert auroc([1.0, math.nan, 0.0], [True, True, False])[0] == 1.0
    assert all(map(math.isnan, auroc([1.0, 2.0], [True, True])))


@pytest.mark.parametrize("positive", [[1, 0], [True], [[True, False]]])
def test_what_is_no_row_of_booleans_is_refused(positive):
    with pytest.raises(SparsityError, match=r"give \(n,\) scores and \(n,\) booleans"):
        auroc([1.0, 2.0], positive)
