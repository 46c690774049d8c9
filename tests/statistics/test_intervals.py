"""Intervals against scipy and by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from lightning_sparse.errors import SparsityError
from lightning_sparse.statistics.intervals import mean_interval, t_interval, wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (873, 1000), (3, 3)])
def test_wilson_equals_scipy(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_stays_in_the_unit_interval_and_around_the_share():
    for n in range(1, 60):
        for successes in range(n + 1):
            low, high = wilson(successes, n)
            assert 0 <= low <= successes / n <= high <= 1


def test_wilson_of_nothing_is_undefined_and_of_nonsense_refused():
    assert all(math.isnan(end) for end in wilson(0, 0))
    with pytest.raises(SparsityError, match=r"successes=11 is not an integer in \[0, 10\]: write 10"):
        wilson(11, 10)
    with pytest.raises(SparsityError, match="n=None is not an integer of at least 0"):
        wilson(1, None)


@pytest.mark.parametrize("function", [mean_interval, t_interval])
@pytest.mark.parametrize("values", ["a", None, ["a"], [[1.0], [1.0, 2.0]], 0.5, [1j]])
def test_what_are_no_numbers_is_refused(function, values):
    with pytest.raises(SparsityError, match="is not a list of numbers: write values="):
        function(values)


def test_mean_interval_by_hand():
    # mean 4, standard deviation 2, standard error 2 / sqrt(3)
    half = 1.959963984540054 * 2 / math.sqrt(3)
    assert mean_interval([2.0, 4.0, 6.0]) == pytest.approx((4, 4 - half, 4 + half))


def test_mean_interval_leaves_undefined_values_out():
    assert mean_interval(np.array([1.0, np.nan, 3.0])) == mean_interval([1.0, 3.0])


def test_too_few_values_have_no_interval():
    for interval in (mean_interval, t_interval):
        mean, low, high = interval([0.5, float("nan")])
        assert mean == 0.5
        assert math.isnan(low)
        assert math.isnan(high)
        assert all(math.isnan(number) for number in interval([]))


def test_t_interval_equals_scipy():
    values = [0.71, 0.69, 0.75, 0.70, 0.74]
    low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
    assert t_interval(values) == pytest.approx((np.mean(values), low, high))
