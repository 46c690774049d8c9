import random
from functools import partial

import pytest

from lightning_sparse import GradualPruning
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.schedules import Curve, cubic
from lightning_sparse.engine.scores.of_layer import magnitude
from lightning_sparse.errors import SparsityError


def due(recipe, last, total=None):
    plan = recipe.resolve(total)
    return [step for step in range(last + 1) if plan.due(step)]


def test_gradual_updates_fall_on_the_grid_from_begin_and_on_the_end():
    assert due(Recipe(cubic(0.9, begin=10, end=45), every=10), 100) == [20, 30, 40, 45]


def test_a_sparse_birth_is_an_update_before_the_first_step():
    assert due(Recipe(cubic(0.9, initial=0.5, begin=10, end=20), every=5), 30) == [0, 15, 20]
    assert due(Recipe(Curve(0.9), every=5), 30) == [0]


@pytest.mark.parametrize("curve", [Curve(0.0).then(12).then(12, 0.5), Curve(0.0).then(12).then(99, 0.5)])
def test_one_shot_is_one_update(curve):
    assert due(Recipe(curve, every=5), 200) == [12]


def test_turnover_keeps_its_own_grid_and_stops():
    recipe = Recipe(Curve(0.9), turnover=Curve(0.0).then(20).then(41, 0.3).then(41, 0.0), every=10)
    assert due(recipe, 100) == [0, 20, 30, 40]
    plan = recipe.resolve(None)
    assert [plan.turnover_at(step) for step in (10, 20, 25, 40, 41, 50)] == [0.0, 0.3, 0.0, 0.3, 0.0, 0.0]


def test_endless_turnover_never_fires_before_the_first_step():
    assert due(Recipe(Curve(0.9), turnover=Curve(0.3), every=10), 40) == [0, 10, 20, 30, 40]


def test_every_is_at_least_one_step():
    assert Recipe(cubic(0.9), every=0.001).resolve(20).every == 1


def test_total_steps_of_the_recipe_wins():
    assert Recipe(cubic(0.9, end=0.5), total_steps=100).resolve(None).sparsity.end == 50


def test_plain_tells_recipes_apart_and_names_functions():
    def mine(layer):
        return layer.weight

    assert Recipe(cubic(0.9)).plain() == Recipe(cubic(0.9)).plain()
    assert Recipe(cubic(0.9)).plain() != Recipe(cubic(0.8)).plain()
    assert Recipe(cubic(0.9), drop=mine).plain()["drop"].endswith("mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop": "magnitud"}, "did you mean 'magnitude'"),
        ({"grow": "magnitude"}, "grow='magnitude' does not exist"),
        ({"allocation": "ERK"}, r"allocation='ERK' does not exist.*allowed: erk, global, uniform"),
        ({"every": 0}, "not an interval"),
        ({"drop": 3}, "neither a name"),
        ({"total_steps": 0}, "total_steps=0 is not an integer of at least 1"),
    ],
)
def test_bad_choices_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        Recipe(cubic(0.9), **arguments)


def _curve(draw, top):
    curve, end = Curve(draw.choice([0.0, 0.5, top])), 0
    for _ in range(draw.randint(0, 4)):
        end += draw.choice([0, 1, 3, 10, 17])
        curve = curve.then(end, draw.choice([0.0, 0.3, top]), draw.choice(["jump", "linear", "cubic", "cosine"]))
    return curve


@pytest.mark.parametrize("seed", range(200))
def test_the_next_update_is_the_first_step_that_is_due(seed):
    draw = random.Random(seed)
    plan = Recipe(_curve(draw, 0.9), turnover=_curve(draw, 0.4), every=draw.choice([1, 2, 5, 7])).resolve(None)
    for step in range(80):
        first = next((later for later in range(step + 1, 160) if plan.due(later)), None)
        assert plan.next_due(step) == first


def test_a_jump_in_the_far_future_is_found_at_once():
    assert Recipe(Curve(0.0).then(10**9).then(10**9, 0.9)).resolve(None).next_due(0) == 10**9


@pytest.mark.parametrize(
    ("curve", "settled"),
    [
        (Curve(0.9), 0),
        (Curve(0.0).then(50).then(50, 0.9), 50),  # one-shot
        (Curve(0.0).then(10).then(60, 0.9, "cubic").then(90), 60),  # gradual, then rest
        (Curve(0.7).then(20, 0.2, "linear").then(50, 0.9, "cubic").then(80, name="turnover"), 50),
        (Curve(0.9).then(20, 0.9, "linear"), 0),
    ],
)
def test_a_curve_settles_when_its_value_changes_no_more(curve, settled):
    assert curve.resolve(None).settled == settled


def test_a_trial_run_of_a_few_steps_goes_through_every_phase():
    plan = GradualPruning(0.9, begin=500, end=0.75, every=100).recipe.in_short(1).resolve(1)
    assert (plan.due(1), plan.sparsity(1)) == (True, 0.9)


def test_lambdas_and_partials_have_names_that_tell_them_apart():
    def named(drop):
        return Recipe(Curve(0.9), drop=drop).plain()["drop"]

    assert named(lambda layer: layer.weight) != named(lambda layer: -layer.weight)
    assert named(lambda layer: layer.weight) == named(lambda layer: layer.weight)
    assert named(partial(magnitude)) != named(magnitude)
    assert " at 0x" not in named(partial(magnitude)) + named(lambda layer: (lambda x: x)(layer.weight))
