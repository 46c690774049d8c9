"""A user's own function that cannot be called with what the engine has is refused where it is given."""

import functools

import pytest
import torch

from lightning_sparse import (
    SNIP,
    GradualPruning,
    LayerRules,
    Recipe,
    SparseTraining,
    SparsityError,
    allocate,
    apportion,
    attach,
    of_network,
)
from lightning_sparse.engine.function_arguments import check_takes
from lightning_sparse.engine.schedules import Curve

WEIGHTS = {"a": torch.rand(6, 6), "b": torch.rand(3, 6)}


def largest(layer):
    return layer.weight.abs()


def power(layer, exponent):
    return layer.weight.abs() ** exponent


def even(scores, masks, living):
    return apportion(living, dict.fromkeys(masks, 1.0), {name: mask.numel() for name, mask in masks.items()})


def norm(module, batch):
    return sum(parameter.square().sum() for parameter in module.parameters())


class Power:
    def __init__(self, exponent=1):
        self.exponent = exponent

    def __call__(self, layer):
        return power(layer, self.exponent)

    def even(self, scores, masks, living):
        return even(scores, masks, living)


class Scale:
    def __init__(self, by):
        self.by = by

    def __call__(self, layer):
        return self.by * layer.weight.abs()


class Alone:
    pass


@functools.wraps(power)
def squared(layer):
    return power(layer, 2)


WRONG = [
    ("drop", power, r"drop=power cannot be called with \(layer\)", squared),
    ("drop", lambda: 1, r"drop=.*lambda.* cannot be called with \(layer\)", functools.partial(power, exponent=2)),
    ("drop", of_network(lambda: {}), r"cannot be called", of_network(lambda network: {})),
    ("drop", Scale, r"drop=Scale is a class.* or drop=Scale\(\.\.\.\) if", Scale(2)),
    ("drop", Alone, r"drop=Alone is a class.* write a function that takes these", largest),
    ("grow", int, r"grow=int is a class", Power),  # whose objects are made without arguments
    ("birth", Power().even, r"birth=Power.even cannot be called", Power()),
    ("allocation", largest, r"allocation=largest cannot be called with \(scores, masks, living\)", even),
    (
        "allocation",
        LayerRules,
        r"allocation=LayerRules is a class.* or allocation=LayerRules\(\.\.\.\)",
        LayerRules("erk"),
    ),
    ("allocation", Power(), r"allocation=Power cannot be called", Power().even),
]


@pytest.mark.parametrize(("argument", "wrong", "message", "right"), WRONG)
def test_it_is_refused_in_the_recipe_and_what_takes_the_arguments_is_not(argument, wrong, message, right):
    with pytest.raises(SparsityError, match=message):
        SparseTraining(0.5, **{argument: wrong})
    SparseTraining(0.5, **{argument: right})


def test_the_words_are_those_of_the_method():
    with pytest.raises(SparsityError, match=r"^criterion=power cannot be called"):
        GradualPruning(0.5, criterion=power)


def test_allocate_and_losses_refuse_it_too():
    with pytest.raises(SparsityError, match="allocation=largest cannot be called"):
        allocate(WEIGHTS, 0.5, allocation=largest)
    assert sum(int(mask.sum()) for mask in allocate(WEIGHTS, 0.5, allocation=even).values()) == 27
    with pytest.raises(
        SparsityError, match=r"loss_fn=MSELoss is a class, which cannot be called with \(module, batch\)"
    ):
        SNIP(0.5, loss_fn=torch.nn.MSELoss)
    with pytest.raises(SparsityError, match=r"loss_fn=largest cannot be called with \(module, batch\)"):
        SNIP(0.5, loss_fn=largest)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = Recipe(Curve(0.5), drop="snip")
    with pytest.raises(SparsityError, match=r"loss_fn=largest cannot be called with \(model, batch\)"):
        attach(optimizer, model, recipe, loss_fn=largest, batches=[1])
    assert attach(optimizer, model, recipe, loss_fn=norm, batches=[1]).sparsity == 0.5


@pytest.mark.parametrize(
    "function", [max, torch.abs, torch.nn.Linear(2, 2), print, Power(), functools.partial(power, exponent=2)]
)
def test_what_may_take_one_argument_passes(function):
    check_takes("drop", function, "layer", made=True)
