import pytest

from lightning_sparse.errors import SparsityError
from lightning_sparse.schedules import Curve, cubic, from_plain


def test_cubic_is_zhu_and_guptas_formula_at_every_step():
    initial, final, begin, end = 0.1, 0.95, 100, 900
    curve = cubic(final, initial=initial, begin=begin, end=end).resolve(None)
    for step in range(1001):
        clamped = min(max(step, begin), end)
        expected = final + (initial - final) * (1 - (clamped - begin) / (end - begin)) ** 3
        assert curve(step) == pytest.approx(expected, abs=1e-12)


def test_ends_are_exact_in_floating_point():
    curve = Curve(0.7).then(200, 0.2, "linear").then(650, 0.9, "cubic").resolve(None)
    assert [curve(step) for step in (0, 200, 650, 10_000)] == [0.7, 0.2, 0.9, 0.9]


@pytest.mark.parametrize(
    ("shape", "halfway"), [("jump", 0.8), ("linear", 0.4), ("cubic", 0.8 * 0.875), ("cosine", 0.4)]
)
def test_shapes(shape, halfway):
    assert Curve(0.0).then(100, 0.8, shape)(50) == pytest.approx(halfway)


def test_segments_hand_over_at_their_end():
    curve = Curve(0.0).then(10).then(20, 0.5).then(30, 0.1)
    assert [curve(step) for step in (9, 10, 19, 20, 29, 30)] == [0.0, 0.5, 0.5, 0.1, 0.1, 0.1]


def test_shares_resolve_to_the_nearest_step():
    curve = cubic(0.9, begin=0.1, end=0.75).resolve(333)
    assert [segment.end for segment in curve.segments] == [33, 250, 250]


def test_plain_round_trip():
    curve = cubic(0.9).resolve(100)
    assert from_plain(curve.plain()) == curve


@pytest.mark.parametrize(
    "make",
    [
        lambda: Curve(1.5),
        lambda: Curve(0.0).then(0.5, 2.0),
        lambda: Curve(0.0).then(0.5, 0.5, "cubical"),
        lambda: Curve(0.0).then(0.5).then(0.4),
        lambda: Curve(0.0).then(0.5).then(100).resolve(1000),  # step 500, then step 100
    ],
)
def test_impossible_curves_are_refused(make):
    with pytest.raises(SparsityError):
        make()
