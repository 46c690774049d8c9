"""Functions of the user's own that return odd values: refused in our words, or rightly taken, and the network stays whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fuzz.odd_values import values
from fuzz.outcomes import result_or_refusal
from fuzz.small_inputs import net, pair
from fuzz.test_callbacks_arguments import Images, batches
from lightning_sparse import (
    SNIP,
    GradualPruning,
    RobustnessMonitor,
    SparsityError,
    Static,
    allocate,
    needs_gradient,
    of_network,
)
from lightning_sparse.measure import as_classifier, measure_accuracy, measure_robustness
from settings import dead_are_zero, quiet

# What is nearly right, made from what the function was given.
OF_A_LAYER = [
    lambda layer: layer.weight * float("nan"),
    lambda layer: layer.weight.abs() / 0,
    lambda layer: layer.weight,
    lambda layer: layer.weight.data.mul_(2),
    lambda layer: layer.weight.abs() > 0.1,
    lambda layer: layer.weight.abs().long(),
    lambda layer: layer.weight.flatten(),
    lambda layer: layer.weight.abs().double(),
    lambda layer: layer.weight.abs().half(),
    lambda layer: layer.weight.T,
    lambda layer: layer.weight.abs().to_sparse(),
    lambda layer: layer.weight.abs().to("meta"),
    lambda layer: layer.weight.abs().tolist(),
    lambda layer: layer.weight.detach().numpy(),
    lambda layer: torch.complex(layer.weight, layer.weight),
    lambda layer: torch.zeros_like(layer.weight),
    lambda layer: torch.zeros(()).expand_as(layer.weight),
]
OF_A_NETWORK = [
    lambda network: {name: weight.abs() for name, weight in network.parameters.items()},
    lambda network: {name: weight * float("nan") for name, weight in network.parameters.items()},
    lambda network: {name: weight.abs() for name, weight in list(network.parameters.items())[:1]},
    lambda network: {name: weight.flatten() for name, weight in network.parameters.items()},
    lambda network: list(network.gradient().values()),
    lambda network: network.parameters,
    lambda network: network.model,
]
OF_LAYERS = [
    lambda scores, masks, living: dict.fromkeys(masks, 1),
    lambda scores, masks, living: dict.fromkeys(masks, 10**9),
    lambda scores, masks, living: dict.fromkeys(masks, living),
    lambda scores, masks, living: dict.fromkeys(masks, 0),
    lambda scores, masks, living: dict.fromkeys(masks, -1),
    lambda scores, masks, living: dict.fromkeys(masks, living / len(masks)),
    lambda scores, masks, living: dict.fromkeys(masks, torch.tensor(living // len(masks))),
    lambda scores, masks, living: {**dict.fromkeys(masks, 1), "none": living - len(masks)},
    lambda scores, masks, living: {next(iter(masks)): living},
    lambda scores, masks, living: [masks.clear(), scores.clear(), {}][2],
    lambda scores, masks, living: [mask.zero_() for mask in masks.values()] and {},
    lambda scores, masks, living: masks,
]
OF_A_BATCH = [
    lambda module, batch: module(batch[0]),
    lambda module, batch: module(batch[0]).sum() * float("nan"),
    lambda module, batch: module(batch[0]).detach().sum(),
    lambda module, batch: (module(batch[0]).sum(), {}),
    lambda module, batch: {"loss": module(batch[0]).sum()},
    lambda module, batch: module(batch[0]).argmax(),
    lambda module, batch: float(module(batch[0]).sum()),
]
OF_IMAGES = [
    lambda model, images: model(images).softmax(1),
    lambda model, images: model(images)[:, :1],
    lambda model, images: model(images)[:, 0],
    lambda model, images: model(images).argmax(1),
    lambda model, images: model(images).detach(),
    lambda model, images: model(images)[:-1],
    lambda model, images: {"logits": model(images)},
    lambda model, images: (model(images), None),
    lambda model, images: model(images).double(),
    lambda model, images: model(images) * float("inf"),
    lambda model, images: nn.functional.pad(model(images)[:, :1].sigmoid(), (1, 0)),
    lambda model, images: model(images).tolist(),
]


def fit(callback):
    module, loader = Images(), batches()
    try:
        quiet(callback, max_epochs=1, num_sanity_val_steps=0).fit(module, loader, loader)
    except SparsityError:
        if hasattr(callback, "masks") and module.steps:  # what stands is a network with its masks
            assert dead_are_zero(module, callback.masks)
        raise
    if isinstance(callback, GradualPruning | Static):
        assert dead_are_zero(module, callback.masks)
        assert abs(callback.sparsity - 0.5) < 0.01, f"0.5 asked for, {callback.sparsity} reached in silence"


def measured(measure):
    found = measure()
    assert all(0.0 <= row.value <= 1.0 for row in found.records if "accuracy" in row.metric)


WEIGHTS = {"a": torch.rand(6, 6), "b": torch.rand(3, 6)}


def shared(function):
    masks = allocate(WEIGHTS, 0.5, allocation=function)
    assert sum(int(mask.sum()) for mask in masks.values()) == 27


SLOTS = {
    "criterion": (OF_A_LAYER, lambda f: fit(GradualPruning(0.5, end=8, criterion=f))),
    "criterion that reads gradients": (
        OF_A_LAYER,
        lambda f: fit(GradualPruning(0.5, end=8, criterion=needs_gradient(lambda layer: f(layer)))),
    ),
    "criterion at birth": (OF_A_LAYER, lambda f: fit(Static(0.5, criterion=f))),
    "criterion of the network": (
        OF_A_NETWORK,
        lambda f: fit(Static(0.5, criterion=of_network(lambda network: f(network)))),
    ),
    "allocation": (OF_LAYERS, lambda f: fit(GradualPruning(0.5, end=8, allocation=f))),
    "allocation of a function": (OF_LAYERS, shared),
    "loss_fn": (OF_A_BATCH, lambda f: fit(SNIP(0.5, loss_fn=f))),
    "forward of a monitor": (OF_IMAGES, lambda f: fit(RobustnessMonitor(0.1, images=8, forward=f))),
    "forward": (OF_IMAGES, lambda f: measured(lambda: measure_accuracy(as_classifier(net(), forward=f), pair()))),
    "forward under attack": (
        OF_IMAGES,
        lambda f: measured(
            lambda: measure_robustness(as_classifier(net(), forward=f), pair(), eps=[0.1], tier="monitor")
        ),
    ),
}


@pytest.mark.parametrize("slot", SLOTS)
def test_a_function_that_returns_what_is_nearly_right(slot):
    nearly, use = SLOTS[slot]
    for function in nearly:
        result_or_refusal(lambda function=function: use(function))


@pytest.mark.parametrize("slot", SLOTS)
def test_a_function_that_returns_anything(slot):
    _, use = SLOTS[slot]

    @given(st.data())
    def try_some(data):
        value = data.draw(values)
        found = result_or_refusal(lambda: use(lambda *arguments, **named: value))
        assert isinstance(found, SparsityError) or isinstance(value, torch.Tensor), f"{value!r} is taken in silence"

    try_some()
