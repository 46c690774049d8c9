"""Different choices have different names in a checkpoint, and a choice has the same name in every process."""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import Recipe, SparsityError, attach, cubic
from lightning_sparse.engine.choices import name_of
from lightning_sparse.engine.scores.of_layer import magnitude, needs_gradient, taylor


def closure(held):
    def score(layer):
        return layer.weight * held

    return score


def defaults(held):
    def score(layer, factor=held):
        return layer.weight * factor

    return score


def keyword(held):
    def score(layer, *, factor=held):
        return layer.weight * factor

    return score


def attribute(held):
    score = closure(1)
    score.factor = held
    return score


class Plain:
    def __init__(self, held):
        self.held = held

    def __call__(self, layer):
        return layer.weight

    def score(self, layer):
        return layer.weight


class Slots:
    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held

    def __call__(self, layer):
        return layer.weight


class Mapped(dict):
    def __call__(self, layer):
        return layer.weight


class Heir(Plain):
    def __repr__(self):
        return f"<Heir at 0x{id(self):x}>"


@dataclass
class Declared:
    held: object

    def __call__(self, layer):
        return layer.weight


class Inherits(Declared):
    def __init__(self, held):
        super().__init__(1)
        self.more = held


WAYS = {
    "a closure": closure,
    "defaults": defaults,
    "keyword defaults": keyword,
    "an attribute of a function": attribute,
    "an attribute": Plain,
    "a slot": Slots,
    "a bound method": lambda held: Plain(held).score,
    "a partial": lambda held: partial(closure(1), held),
    "a partial's keyword": lambda held: partial(closure(1), held=held),
    "a partial of a closure": lambda held: partial(closure(held)),
    "a cached function": lambda held: lru_cache(closure(held)),
    "nested": lambda held: closure(closure([Plain(held)])),
    "a lambda": lambda held: lambda layer: layer.weight * held,
    "a subclass of dict": lambda held: Mapped(held=held),
    "an object whose repr is an address": Heir,
    "a dataclass": Declared,
    "an attribute beside an inherited repr": Inherits,
}
VALUES = {
    "numbers": (1.0, -1.0),
    "text": ("a", "b"),
    "a dict": ({"a": 1}, {"a": 2}),
    "a set": ({"a", "b", "c"}, {"a", "b", "d"}),
    "tensors": (torch.zeros(5000), torch.zeros(5000).index_fill(0, torch.tensor(2500), 1.0)),
    "arrays": (np.zeros(5000), np.eye(1, 5000, 2500)[0]),
    "bfloat16": (torch.zeros((), dtype=torch.bfloat16), torch.ones((), dtype=torch.bfloat16)),
    "functions": (torch.sin, torch.cos),
    "lambdas": (lambda x: x + 1, lambda x: x + 2),
    "lambdas in lambdas": (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
    "modules": (nn.Linear(1, 2), nn.Linear(2, 1)),
    "random generators": (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
}


@pytest.mark.parametrize("values", VALUES.values(), ids=list(VALUES))
@pytest.mark.parametrize("make", WAYS.values(), ids=list(WAYS))
def test_what_is_held_tells_two_choices_apart(make, values):
    one, other = values
    assert name_of("drop", make(one)) == name_of("drop", make(one))
    assert name_of("drop", make(one)) != name_of("drop", make(other))
    assert " at 0x" not in name_of("drop", make(one))


def test_what_is_in_training_does_not_count():
    assert name_of("drop", closure(nn.Linear(2, 2))) == name_of("drop", closure(nn.Linear(2, 2)))


def test_what_holds_itself_has_a_name():
    knot = Plain(None)
    knot.held = [knot]
    assert name_of("drop", knot).endswith("Plain(held=[...])")


def test_a_plain_function_is_its_path_and_ours_its_name_alone():
    @needs_gradient
    def mine(layer):
        return layer.weight

    assert name_of("drop", mine).endswith(
        "test_choices.test_a_plain_function_is_its_path_and_ours_its_name_alone.<locals>.mine"
    )
    assert (name_of("drop", taylor), name_of("drop", partial(magnitude))) == ("taylor", "magnitude(){}")


def test_what_does_not_say_what_is_in_it_is_refused_with_what_to_write():
    with pytest.raises(SparsityError, match=r"drop is a function that holds .*lock.*a __repr__ that says"):
        Recipe(cubic(0.9), drop=closure(threading.Lock()))


def test_a_name_is_the_same_in_every_process():
    command = (
        "import test_choices as t; print([t.name_of('', w(v[0])) for w in t.WAYS.values() for v in t.VALUES.values()])"
    )
    said = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.dirname(__file__)}
        done = subprocess.run(
            [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
        )
        said.add(done.stdout)
    assert len(said) == 1
    assert "at 0x" not in said.pop()


def training(state=None, **choices):
    torch.manual_seed(0)
    model = nn.Linear(20, 5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recipe = Recipe(cubic(0.9, end=30), every=5, **choices)
    engine = attach(optimizer, model, recipe, state=state)
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
    return engine


def test_a_run_is_not_resumed_with_the_opposite_score():
    state = training(drop=closure(1.0)).state_dict()
    assert training(state, drop=closure(1.0)).clock == 20
    with pytest.raises(SparsityError, match=r"held=1\.0.* -> .*held=-1\.0"):
        training(state, drop=closure(-1.0))


def test_a_checkpoint_from_before_our_functions_moved_is_resumed():
    engine = training(drop=taylor)
    state = engine.state_dict()
    for recipe in (state["recipe"], state["plan"]):
        recipe["drop"] = "lightning_sparse.criteria.taylor"
    assert engine.load_state_dict(state)
