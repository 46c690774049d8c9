import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import Recipe, attach
from lightning_sparse.engine.schedules import Curve, cubic, from_plain
from lightning_sparse.errors import SparsityError

WAYS = {"falls": (0.7, 0.2), "rises": (0.15, 0.95)}


@pytest.fixture(params=WAYS)
def way(request):
    return WAYS[request.param]


def test_cubic_is_zhu_and_guptas_formula_at_every_step():
    initial, final, begin, end = 0.1, 0.95, 100, 900
    curve = cubic(final, initial=initial, begin=begin, end=end).resolve(None)
    for step in range(1001):
        clamped = min(max(step, begin), end)
        expected = final + (initial - final) * (1 - (clamped - begin) / (end - begin)) ** 3
        assert curve(step) == pytest.approx(expected, abs=1e-12)


def test_linear_is_the_straight_line(way):
    curve = Curve(way[0]).then(40).then(240, way[1], "linear")
    values = [curve(step) for step in range(40, 241)]
    np.testing.assert_allclose(values, np.linspace(*way, 201), rtol=0, atol=1e-15)


def test_cosine_is_half_a_turn_of_the_unit_circle(way):
    curve = Curve(way[0]).then(200, way[1], "cosine")
    turn = np.exp(1j * np.linspace(0, np.pi, 201)).real
    expected = np.mean(way) + (way[0] - way[1]) / 2 * turn
    np.testing.assert_allclose([curve(step) for step in range(201)], expected, rtol=0, atol=1e-15)


def test_exponential_is_a_geometric_row_of_densities(way):
    curve = Curve(way[0]).then(50).then(350, way[1], "exponential")
    densities = np.geomspace(1 - way[0], 1 - way[1], 301)
    np.testing.assert_allclose([1 - curve(step) for step in range(50, 351)], densities, rtol=1e-13)


def test_exponential_is_synflows_schedule_of_densities():
    # rho ** (-k / n) after round k of n, with compression rho: Tanaka et al. 2020, algorithm 1
    curve = Curve(0.0).then(100, 0.999, "exponential")
    for k in range(101):
        assert curve(k) == pytest.approx(1 - 1000 ** (-k / 100), abs=1e-13)


def test_shapes_that_saved_runs_follow_keep_every_bit(way):
    first, last = way
    for shape, left in [
        ("linear", lambda p: 1.0 - p),
        ("cubic", lambda p: (1.0 - p) ** 3),
        ("cosine", lambda p: 0.5 * (1.0 + math.cos(math.pi * p))),
    ]:
        curve = Curve(first).then(997, last, shape)
        assert all(curve(step) == last + (first - last) * left(step / 997) for step in range(1, 997)), shape


@pytest.mark.parametrize("shape", ["linear", "cubic", "cosine", "exponential"])
def test_ends_and_rests_are_exact_in_floating_point(shape, way):
    curve = Curve(0.3).then(99, 0.3, shape).then(100, way[0]).then(200, way[1], shape).then(650, 0.9, "cubic")
    assert {curve(step) for step in range(99)} == {0.3}
    assert [curve(step) for step in (99, 100, 200, 650, 10_000)] == [way[0], way[0], way[1], 0.9, 0.9]


def test_segments_hand_over_at_their_end():
    curve = Curve(0.0).then(10).then(20, 0.5).then(30, 0.1)
    assert [curve(step) for step in (9, 10, 19, 20, 29, 30)] == [0.0, 0.5, 0.5, 0.1, 0.1, 0.1]


def test_stairs_jump_at_equal_distances_and_reach_their_end_at_the_end():
    curve = Curve(0.0).stairs(100, 0.8, 4, name="prune")
    values = [round(curve(step), 12) for step in (0, 24, 25, 49, 50, 74, 75, 99, 100, 5000)]
    assert values == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]
    assert [curve.phase(step) for step in (0, 24, 25, 50, 99, 100, 5000)] == [
        *("prune 0", "prune 0", "prune 1", "prune 2", "prune 3", "prune 4", "prune 4")
    ]
    assert curve(100) == curve.final == 0.8
    assert curve.end == curve.settled == 100
    assert Curve(0.0).stairs(100, 0.8, 4).phase(50) == ""


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.3, 0.6, 0.9]),
        ("cubic", [0.9 - 0.9 * 8 / 27, 0.9 - 0.9 / 27, 0.9]),
        ("cosine", [0.9 * 0.25, 0.9 * 0.75, 0.9]),
        ("exponential", [1 - 10 ** (-1 / 3), 1 - 10 ** (-2 / 3), 0.9]),
    ],
)
def test_each_shape_has_its_stairs(shape, expected):
    curve = Curve(0.0).stairs(300, 0.9, 3, shape)
    assert [curve(step) for step in (100, 200, 300)] == pytest.approx(expected, abs=1e-15)
    assert curve(99) == 0.0
    assert not curve.moves


def test_stairs_downwards_after_another_segment():
    curve = Curve(0.5).then(40, 0.9, "linear").stairs(100, 0.3, 3)
    values = [round(curve(step), 12) for step in (40, 59, 60, 79, 80, 99, 100)]
    assert values == [0.9, 0.9, 0.7, 0.7, 0.5, 0.5, 0.3]


def test_stairs_fall_on_the_nearest_step_in_steps_and_in_shares():
    assert [segment.end for segment in Curve(0.0).stairs(10, 0.9, 3).segments] == [3, 7, 10, 10]
    shares = Curve(0.0).then(0.1, name="dense").stairs(0.7, 0.9, 3)
    assert [segment.end for segment in shares.segments] == [0.1, *map(pytest.approx, (0.3, 0.5, 0.7, 0.7))]
    assert [segment.end for segment in shares.resolve(1000).segments] == [100, 300, 500, 700, 700]
    assert shares.needs_total


def test_masks_follow_the_stairs_and_their_history_names_them():
    torch.manual_seed(0)
    model = nn.Linear(40, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsity = Curve(0.0).stairs(0.75, 1 - 0.8**3, 3, "exponential", name="round").then(1.0, name="round 3")
    engine = attach(optimizer, model, Recipe(sparsity), total_steps=40)
    for _ in range(40):
        model(torch.randn(8, 40)).square().mean().backward()
        optimizer.step()
    told = [(update.step, update.phase, round(update.sparsity * 400)) for update in engine.history]
    assert told == [(10, "round 1", 80), (20, "round 2", 144), (30, "round 3", 195)]  # 0.2, 0.36, 0.488 of 400


def test_more_stairs_than_steps_of_a_short_training_fall_together():
    curve = Curve(0.0).stairs(1.0, 0.9, 9)
    plan = Recipe(curve).resolve(3)
    assert [plan.sparsity(step) for step in range(4)] == pytest.approx([0.1, 0.4, 0.7, 0.9])  # ninths of 3, rounded
    assert [step for step in range(4) if plan.due(step)] == [0, 1, 2, 3]
    assert [curve.in_short(2)(step) for step in (0, 2)] == [0.0, 0.9]


COMPOSED = {
    "hold": Curve(0.2).stairs(0.5, 0.8, 3).then(1.0, name="rest"),
    "jump": Curve(0.2).stairs(0.5, 0.8, 3).then(0.6).then(1.0, 0.1),
    "linear": Curve(0.2).stairs(0.5, 0.8, 3).then(0.9, 0.1, "linear"),
    "cubic": Curve(0.2).stairs(0.5, 0.8, 3).then(0.9, 0.1, "cubic"),
    "cosine": Curve(0.2).stairs(0.5, 0.8, 3).then(0.9, 0.1, "cosine"),
    "exponential": Curve(0.2).stairs(0.5, 0.8, 3).then(0.9, 0.1, "exponential"),
    "stairs": Curve(0.2).stairs(0.5, 0.8, 3).stairs(0.9, 0.1, 7, "cosine"),
    "phases": Curve(0.7).then(0.1).stairs(0.5, 0.2, 4, name="grow").then(0.7, 0.9, "exponential").then(0.8, 0.9),
    "steps": Curve(0.0).then(100).stairs(400, 0.9, 5, "exponential").then(450).then(600, 0.5, "linear"),
}


@pytest.fixture(params=COMPOSED)
def composed(request):
    return COMPOSED[request.param]


def test_after_the_stairs_any_segment_begins_where_they_ended():
    for name, halfway in [("linear", 0.45), ("cubic", 0.1875), ("cosine", 0.45), ("exponential", 1 - math.sqrt(0.18))]:
        curve = COMPOSED[name].resolve(1000)
        values = [round(curve(step), 12) for step in (166, 167, 333, 499, 500, 700, 900)]
        assert values == [0.2, 0.4, 0.6, 0.6, 0.8, round(halfway, 12), 0.1], name
    assert COMPOSED["hold"].resolve(1000)(800) == 0.8
    assert [COMPOSED["jump"].resolve(1000)(step) for step in (500, 599, 600)] == [0.8, 0.8, 0.1]


def test_updates_of_a_composed_curve_are_due_wherever_it_changes(composed):
    plan = Recipe(composed, every=1).resolve(1000)
    values = [plan.sparsity(step) for step in range(1001)]
    changed = [step for step in range(1, 1001) if values[step] != values[step - 1]]
    assert set(changed) <= {step for step in range(1, 1001) if plan.due(step)}
    step, due = 0, []
    while (step := plan.next_due(step)) is not None:
        due.append(step)
    assert due == [step for step in range(1, 1001) if plan.due(step)]
    settled = plan.sparsity.settled
    assert values[settled - 1] != values[settled]
    assert set(values[settled:]) == {plan.sparsity.final}


def test_plain_round_trip(composed):
    for curve in (composed, composed.resolve(1000)):
        again = from_plain(curve.plain())
        assert again == curve
    assert [again(step) for step in range(1001)] == [composed.resolve(1000)(step) for step in range(1001)]


def test_a_trial_run_of_a_few_steps_gets_where_the_curve_gets(composed):
    for steps in (1, 2, 5):
        short = composed.in_short(steps)
        assert short(0) == composed.start
        assert short(steps) == composed.final
        assert short.end <= steps


def test_shares_resolve_to_the_nearest_step():
    curve = cubic(0.9, begin=0.1, end=0.75).resolve(333)
    assert [segment.end for segment in curve.segments] == [33, 250, 250]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Curve(1.5), r"start of a curve=1.5 is not a share in \[0, 1\]"),
        (lambda: Curve(0.0).then(0.5, 2.0), "value of a curve=2.0"),
        (lambda: Curve(0.0).then(0.5, 0.5, "cubical"), "did you mean 'cubic'"),
        (lambda: Curve(0.0).then(0.5).then(0.4), "before the one ahead of it"),
        (lambda: Curve(0.0).then(0.5).then(100).resolve(1000), "go backwards"),  # step 500, then step 100
        (lambda: Curve(0.0).then(0.5, 1.0, "exponential"), "from 0 to 1: .* write values below 1"),
        (lambda: Curve(1.0).then(0.5, 0.5, "exponential"), "from 1 to 0.5"),
        (lambda: Curve(0.0).then(0.2, 1.0).then(0.5, 0.5, "exponential"), "from 1 to 0.5"),
        (lambda: Curve(0.0).stairs(0.5, 1.0, 3, "exponential"), "from 0 to 1"),
        (lambda: Curve(0.0).stairs(0.5, 90, 3), "write 0.9 for 90 percent"),
        (lambda: Curve(0.0).stairs(0.5, 0.9, 3, "jump"), "shape='jump' does not exist"),
        (lambda: Curve(0.0).stairs(0.5, 0.9, 0), "count=0 is not an integer of at least 1: write the number of jumps"),
        (lambda: Curve(0.0).stairs(0.5, 0.9, 2.0), "count=2.0 is not an integer of at least 1"),
        (lambda: Curve(0.0).stairs(0.5, 0.9, True), "count=True is not an integer of at least 1"),
        (lambda: Curve(0.0).then(100).stairs(0.5, 0.9, 3), "stairs from 100 to 0.5 mix steps and shares"),
        (lambda: Curve(0.0).then(0.5).stairs(800, 0.9, 3), "stairs from 0.5 to 800 mix steps and shares"),
        (lambda: Curve(0.0).then(0.5).stairs(0.5, 0.9, 3), "stairs to 0.5 begin at 0.5: write an end after"),
        (lambda: Curve(0.0).then(10).stairs(14, 0.9, 5), "do not fit between step 10 and step 14: .* at most 4"),
        (lambda: Curve(0.0).stairs(50.0, 0.9, 5), "write 50 for that many optimizer steps"),
    ],
)
def test_impossible_curves_are_refused_with_what_to_write(make, message):
    with pytest.raises(SparsityError, match=message):
        make()
