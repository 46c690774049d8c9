"""Paired statistics: by hand, by scipy, and by the share of intervals that cover the truth."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from lightning_sparse.errors import SparsityError
from lightning_sparse.statistics.paired import holm, mcnemar, welch


def answers(both, only_a, only_b, neither):
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return np.array(a), np.array(b)


def test_mcnemar_by_hand():
    """1 and 7 discordant of 21: shares 2/23 and 8/23, and a binomial tail of (1 + 8) / 256, twice."""
    result = mcnemar(*answers(1, 1, 7, 12))
    assert result.difference == pytest.approx(-6 / 21)
    assert result.p == pytest.approx(18 / 256)
    half = 1.959964 * np.sqrt((10 / 23 - (6 / 23) ** 2) / 23)
    assert (result.low, result.high) == pytest.approx((-6 / 23 - half, -6 / 23 + half), abs=1e-6)
    swapped = mcnemar(*reversed(answers(1, 1, 7, 12)))
    assert (swapped.difference, swapped.low, swapped.high, swapped.p) == pytest.approx(
        (-result.difference, -result.high, -result.low, result.p)
    )


def test_models_that_never_disagree_differ_by_nothing_give_or_take():
    result = mcnemar(*answers(90, 0, 0, 10))
    assert (result.difference, result.p) == (0, 1)
    assert -0.03 < result.low < 0 < result.high < 0.03
    certain = mcnemar(*answers(0, 5, 0, 0))
    assert certain.difference == certain.high == 1


@pytest.mark.parametrize("only_a", [0.01, 0.05, 0.2])
@pytest.mark.parametrize("only_b", [0.01, 0.05, 0.2])
def test_the_interval_covers_the_truth_19_times_in_20(only_a, only_b):
    """Exactly: over all counts of discordant images that 100 images can have, not by simulation."""
    n, covered = 100, 0.0
    truth = only_a - only_b
    for a, b in product(range(n // 2 + 1), repeat=2):
        chance = stats.multinomial.pmf([a, b, n - a - b], n, [only_a, only_b, 1 - only_a - only_b])
        if chance > 1e-7:
            result = mcnemar(*answers(n - a - b, a, b, 0))
            covered += chance * (result.low <= truth <= result.high)
    assert covered > 0.95 - 1e-4
    if min(only_a, only_b) == 0.2:
        assert covered < 0.955  # and is no wider than it must be; with one image or none discordant it is


def test_pairing_is_worth_its_while():
    """Ten percent discordant, a thousand images: +-2 points, where two Wilson intervals would be +-4."""
    result = mcnemar(*answers(450, 50, 50, 450))
    assert (result.high - result.low) / 2 == pytest.approx(0.0197, abs=0.0003)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([True, False], [True], "same images in the same order"),
        ([1, 0], [True, False], "a_right is int64"),
        ([True], [[True]], r"b_right is bool of shape \(1, 1\)"),
        ([], [], "booleans"),
    ],
)
def test_anything_but_a_pair_of_answers_is_refused(a, b, said):
    with pytest.raises(SparsityError, match=said):
        mcnemar(a, b)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, and 0.04 raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).shape == (0,)


def test_holm_rejects_what_the_procedure_rejects():
    """Step down: reject the smallest while it is at most level / tests left, and stop at the first that is not."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        p = generator.random(8) ** 3
        rejected = np.zeros(8, dtype=bool)
        for rank, place in enumerate(np.argsort(p)):
            if p[place] > 0.05 / (8 - rank):
                break
            rejected[place] = True
        assert np.array_equal(holm(p) <= 0.05, rejected)


def test_tests_that_were_not_made_do_not_count():
    assert holm([0.01, float("nan"), 0.04]) == pytest.approx([0.02, float("nan"), 0.04], nan_ok=True)
    with pytest.raises(SparsityError, match="not all in"):
        holm([0.5, 5.0])
    with pytest.raises(SparsityError, match="one row"):
        holm([[0.5]])


def test_welch_by_hand():
    """Variances 0.0004 and 0.01, three and two seeds."""
    result = welch([0.70, 0.72, 0.74], [0.5, 0.5 + np.sqrt(0.02)])
    a, b = 0.0004 / 3, 0.01 / 2
    freedom = (a + b) ** 2 / (a**2 / 2 + b**2 / 1)
    difference = 0.72 - 0.5 - np.sqrt(0.02) / 2
    half = stats.t.ppf(0.975, freedom) * np.sqrt(a + b)
    p = 2 * stats.t.sf(difference / np.sqrt(a + b), freedom)
    assert result == pytest.approx((difference, difference - half, difference + half, p))


def test_welch_where_there_is_too_little_to_say():
    for a, b in [([0.7], [0.6, 0.5]), ([0.7, 0.7], [0.6, 0.6]), ([0.7, float("nan")], [0.6, 0.7])]:
        result = welch(a, b)
        assert result.difference == pytest.approx(np.nanmean(a) - np.mean(b))
        assert np.isnan(result[1:]).all()
    assert np.isnan(welch([], [1.0, 2.0])).all()
    constant = welch([0.7, 0.7, 0.7], [0.6, 0.7, 0.8])  # one spread is enough, and no warning
    assert constant.low < 0 < constant.high
