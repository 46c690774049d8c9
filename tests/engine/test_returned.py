"""What a user's own allocation, score or loss returns is checked where it comes in, before any time is spent."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import Curve, LayerRules, Recipe, SparsityError, apportion, attach, needs_gradient, of_network


def train(recipe, steps=4, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = attach(optimizer, model, recipe, total_steps=4, **arguments)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().mean().backward()
        optimizer.step()
    return engine


LATE = Curve(0.0).then(3).then(3, 0.5)  # what is wrong is found before the first step all the same
SIZES = {"0.weight": 48, "2.weight": 24}


def clearing(scores, masks, living):
    scores.clear()
    masks.clear()
    return {"0.weight": 24, "2.weight": 12}


def by_size(scores, masks, living):
    sizes = {name: mask.numel() for name, mask in masks.items()}
    return apportion(living, sizes, sizes)


WRONG_COUNTS = {
    "one name": (lambda s, m, k: {"0.weight": k}, "no count for '2.weight'"),
    "another name": (lambda s, m, k: by_size(s, m, k) | {"head": 1}, "a count for 'head', which is not a layer"),
    "shares": (lambda s, m, k: dict.fromkeys(m, 0.5), "returned 0.5 for '0.weight'.* not a whole number from 1"),
    "a huge one": (lambda s, m, k: dict.fromkeys(m, 10**9), "returned 1000000000 for '0.weight'.* its 48 connections"),
    "a negative one": (lambda s, m, k: {"0.weight": k + 2, "2.weight": -2}, "returned -2 for '2.weight'"),
    "zero": (lambda s, m, k: {"0.weight": k, "2.weight": 0}, "returned 0 for '2.weight'"),
    "NaN": (lambda s, m, k: dict.fromkeys(m, math.nan), "returned nan for"),
    "True": (lambda s, m, k: dict.fromkeys(m, True), "returned True for"),
    "a string": (lambda s, m, k: dict.fromkeys(m, "5"), "returned '5' for"),
    "None": (lambda s, m, k: None, "returned None, not a count for each layer"),
    "a list": (lambda s, m, k: [k, 0], "returned .*, not a count for each layer"),
    "a number": (lambda s, m, k: k, "returned 36, not a count"),
    "too few": (lambda s, m, k: {"0.weight": 10, "2.weight": 10}, "20 connections in all, where 36 are to live"),
    "written scores": (lambda s, m, k: [t.zero_() for t in s.values()], r"wrote to scores\['0.weight'\] in place"),
    "written masks": (lambda s, m, k: [t.zero_() for t in m.values()], r"wrote to masks\['0.weight'\] in place"),
}


@pytest.mark.parametrize("name", WRONG_COUNTS)
@pytest.mark.parametrize("granularity", ["weights", "1x2"])
def test_counts_that_are_none_are_refused_before_the_first_step(name, granularity):
    allocation, message = WRONG_COUNTS[name]
    with pytest.raises(SparsityError, match=message):
        train(Recipe(LATE, allocation=allocation, granularity=granularity), steps=0)


@pytest.mark.parametrize("kind", [int, float, np.int64, np.float32, torch.tensor])
@pytest.mark.parametrize("allocation", [clearing, by_size])
def test_whole_numbers_of_any_kind_are_taken_and_arguments_may_be_cleared(kind, allocation):
    def counts(scores, masks, living):
        return {name: kind(count) for name, count in allocation(scores, masks, living).items()}

    engine = train(Recipe(LATE, allocation=counts))
    assert {name: engine.masks.count(name) for name in engine.masks} == {"0.weight": 24, "2.weight": 12}


def test_the_advice_works():
    with pytest.raises(SparsityError, match=r"return apportion\(living, weights, most\)"):
        train(Recipe(LATE, allocation=lambda scores, masks, living: {"0.weight": living}))
    assert train(Recipe(LATE, allocation=by_size)).sparsity == 0.5


@needs_gradient
def writes_gradient(layer):
    return layer.gradient.abs_()


WRONG_SCORES = {
    "None": (lambda layer: None, "returned None for '2.weight'"),
    "a number": (lambda layer: 1.0, r"returned 1.0 for '2.weight': return one number a connection, shape"),
    "a list": (lambda layer: layer.weight.tolist(), "returned a list"),
    "another shape": (lambda layer: layer.weight.abs().sum(1), r"returned shape \(4,\) for"),
    "one number a tensor": (lambda layer: layer.weight.abs().mean(), r"returned shape \(\)"),
    "complex": (lambda layer: layer.weight + 1j, "returned torch.complex64 for .* cannot be ranked"),
    "sparse": (lambda layer: layer.weight.to_sparse(), "returned a torch.sparse_coo tensor"),
    "meta": (lambda layer: layer.weight.to("meta"), "which cannot be ranked"),
    "written weights": (lambda layer: layer.weight.abs_(), r"wrote to layer.weight in place.* layer.weight.abs\(\)"),
    "written gradients": (writes_gradient, "wrote to layer.gradient in place"),
}


@pytest.mark.parametrize("which", ["drop", "birth", "grow"])
@pytest.mark.parametrize("name", WRONG_SCORES)
def test_scores_that_cannot_be_ranked_are_refused_before_the_first_step(name, which):
    score, message = WRONG_SCORES[name]
    if which == "birth" and score is writes_gradient:
        return  # refused already: there is no gradient before the first step
    curve = Curve(0.5) if which == "birth" else LATE
    with pytest.raises(SparsityError, match=message):
        train(Recipe(curve, turnover=Curve(0.2), every=1, **{which: score}), steps=0)


def test_a_score_of_nan_is_refused_by_its_name():
    def ratio(layer):
        return layer.weight * torch.nan

    with pytest.raises(
        SparsityError, match=r"ratio returned NaN for 48 of the 48 connections of '0.weight'.*nan_to_num"
    ):
        train(Recipe(LATE, drop=ratio))
    assert train(Recipe(LATE, drop=lambda layer: torch.nan_to_num(layer.weight * torch.nan))).sparsity == 0.5


@pytest.mark.parametrize(
    "kind",
    [
        lambda scores: scores.double(),
        lambda scores: (scores * 1e6).long(),
        lambda scores: scores.requires_grad_(),
        lambda scores: nn.Parameter(scores),
        lambda scores: scores.clamp(max=1e9),
    ],
)
def test_numbers_of_other_kinds_rank_as_numbers(kind):
    wanted = train(Recipe(LATE, drop=lambda layer: layer.weight.abs(), allocation="uniform")).masks
    found = train(Recipe(LATE, drop=lambda layer: kind(layer.weight.abs().clone()), allocation="uniform")).masks
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_score_of_true_and_false_is_taken():
    assert train(Recipe(LATE, drop=lambda layer: layer.weight > 0)).sparsity == 0.5


def test_a_score_may_use_the_same_memory_again():
    memory = torch.zeros(100)

    class Reusing:
        def __repr__(self):
            return "Reusing()"

        def __call__(self, layer):
            place = memory[: layer.weight.numel()].view_as(layer.weight)
            return place.copy_(layer.weight.abs())

    wanted = train(Recipe(LATE)).masks
    found = train(Recipe(LATE, drop=Reusing())).masks
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_what_a_function_raises_stays_its_own_and_says_where():
    def broken(layer):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as error:
        train(Recipe(Curve(0.5), drop=broken))
    assert any("lightning_sparse called" in note and "broken" in note for note in error.value.__notes__)

    def unfair(scores, masks, living):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        train(Recipe(Curve(0.5), allocation=unfair))
    assert any("as an allocation" in note for note in error.value.__notes__)


def test_the_trial_draws_no_random_number_and_leaves_the_score_as_it_was():
    class Counting:
        def __init__(self):
            self.calls = 0

        def __repr__(self):
            return "Counting()"

        def __call__(self, layer):
            self.calls += 1
            return torch.rand_like(layer.weight) + self.calls

    score = Counting()
    torch.manual_seed(3)
    model = nn.Linear(8, 4)
    state = torch.get_rng_state()
    attach(torch.optim.SGD(model.parameters(), lr=0.1), model, Recipe(LATE, drop=score))
    assert torch.equal(torch.get_rng_state(), state)
    assert score.calls == 0


SNIP = Recipe(Curve(0.5), drop="snip")
WRONG_LOSSES = {
    "None": (lambda model, batch: None, "returned None: return the loss, a tensor of one number"),
    "a tuple": (lambda model, batch: (model(batch).mean(), 1), "return the loss, a tensor of one number"),
    "a vector": (lambda model, batch: model(batch).mean(0), r"returned a torch.float32 tensor of shape \(4,\)"),
    "a number": (lambda model, batch: 3, "returned 3: return the loss"),
    "an integer": (lambda model, batch: model(batch).argmax(), r"torch.int64 tensor of shape \(\)"),
    "detached": (lambda model, batch: model(batch).mean().detach(), "a loss without a gradient"),
    "NaN": (lambda model, batch: model(batch).mean() * torch.nan, "returned nan, and no score"),
}


@pytest.mark.parametrize("name", WRONG_LOSSES)
def test_losses_without_a_number_or_a_gradient_are_refused(name):
    loss, message = WRONG_LOSSES[name]
    with pytest.raises(SparsityError, match=rf"loss_fn=.*{message}"):
        train(SNIP, batches=[torch.randn(3, 8)], loss_fn=loss)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_number_of_any_shape_is_a_loss(shape):
    def loss(model, batch):
        return model(batch).square().mean().reshape(shape)

    assert train(SNIP, batches=[torch.randn(3, 8)], loss_fn=loss).sparsity == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("returns", "message"),
    [
        (lambda network: None, "returned None: return a tensor for each parameter"),
        (lambda network: {"0.weight": torch.ones(6, 8)}, "returned nothing for '2.weight'"),
        (lambda network: dict.fromkeys(network.parameters, 1.0), "returned 1.0 for '0.weight'"),
        (lambda network: dict.fromkeys(network.parameters, torch.ones(2)), r"returned shape \(2,\) for '0.weight'"),
    ],
)
def test_scores_of_the_whole_network_are_checked_by_layer(returns, message):
    recipe = Recipe(Curve(0.5), drop=of_network(returns))
    with pytest.raises(SparsityError, match=message):
        train(recipe, batches=[torch.randn(3, 8)], loss_fn=lambda model, batch: model(batch).mean())


def test_layer_rules_are_trusted_with_their_sum():
    assert train(Recipe(LATE, allocation=LayerRules(last=0.0))).sparsity == 0.5


def test_a_curve_with_a_call_of_its_own_is_refused_because_it_would_not_be_asked():
    class Mine(Curve):
        def __call__(self, step):
            return None

    class Named(Curve):
        """A name alone is fine."""

    with pytest.raises(SparsityError, match="whose own __call__ would never be asked"):
        Recipe(Mine(0.5))
    assert train(Recipe(Named(0.5))).sparsity == 0.5
    for odd in (0.5, None, "cubic", lambda step: 0.5, torch.tensor(0.5)):
        with pytest.raises(SparsityError, match=r"is not a Curve: write sparsity=Curve\(0\.[59]\)"):
            Recipe(odd)
