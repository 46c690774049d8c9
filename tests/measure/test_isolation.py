"""Measuring leaves no trace on the model, the random states and the modes, even when it fails."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.anatomy.isolation import as_it_was
from lightning_sparse.measure import (
    ATTRIBUTIONS,
    as_classifier,
    craft,
    measure_accuracy,
    measure_corruptions,
    measure_cost,
    measure_description_length,
    measure_hessian,
    measure_jacobian,
    measure_robustness,
    measure_saliency,
    measure_sensitivity_of_layers,
    measure_shift_consistency,
)
from lightning_sparse.results.records import Measured


class PlantedError(RuntimeError):
    pass


def robust(model, data):
    return measure_robustness(model, data, eps=[0.1], attacks=["fgsm", "pgd", "pgd-margin", "apgd-dlr"], steps=3)


def reference(model, data):
    return measure_robustness(model, data, eps=[0.1], attacks=["apgd-ce", "apgd-t", "fab-t", "noise"], steps=2)


def all_saliency(model, data):
    return measure_saliency(model, data, methods=list(ATTRIBUTIONS))


def crafted(model, data):
    return Measured([], {"adversarial": craft(model, data, eps=0.1).numpy()})


def layers(model, data):
    return measure_sensitivity_of_layers(model, data, sparsities=[0.5, 0.9], train_data=data)


EVERY = {
    "accuracy": measure_accuracy,
    "robustness": robust,
    "reference": reference,
    "saliency": all_saliency,
    "corruptions": measure_corruptions,
    "shifts": measure_shift_consistency,
    "jacobian": measure_jacobian,
    "hessian": measure_hessian,
    "craft": crafted,
    "description length": measure_description_length,
    "cost": measure_cost,
    "layers": layers,
}
"""Every measurement of the room, on a few images."""


def snapshot(model):
    return {
        "flags": [module.training for module in model.modules()],
        "required": [parameter.requires_grad for parameter in model.parameters()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state()[1].copy(),
        "python": random.getstate(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "cpu autocast": torch.is_autocast_enabled("cpu"),
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    for name in ("flags", "required", "python", "modes", "cpu autocast"):
        assert before[name] == after[name], name
    assert before["state"].keys() == after["state"].keys()
    assert all(torch.equal(value, after["state"][name]) for name, value in before["state"].items())
    for left, right in zip(before["grads"], after["grads"], strict=True):
        assert (left is None) == (right is None)
        assert left is None or torch.equal(left, right)
    assert torch.equal(before["torch"], after["torch"])
    assert np.array_equal(before["numpy"], after["numpy"])


@pytest.fixture
def mixed(digits):
    """In training, but with a frozen BatchNorm, a frozen parameter and gradients waiting for the optimizer."""
    model = digits.model
    was = [module.training for module in model.modules()]
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    yield model
    for module, training in zip(model.modules(), was, strict=True):
        module.training = training
    model[0].bias.requires_grad_(True)
    model[4].weight.grad = None


@pytest.mark.parametrize("name", EVERY)
def test_measuring_leaves_no_trace(mixed, digits, name):
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    gradient = mixed[4].weight.grad
    before = snapshot(mixed)
    EVERY[name](mixed, (digits.images[:24], digits.labels[:24]))
    assert_same(before, snapshot(mixed))
    assert mixed[4].weight.grad is gradient


DONE_BY_THE_THIRD_CALL = {"accuracy", "jacobian"}


@pytest.mark.parametrize(
    ("name", "call"),
    [(name, call) for call in (1, 3) for name in EVERY if call == 1 or name not in DONE_BY_THE_THIRD_CALL],
)
def test_also_when_it_raises(mixed, digits, name, call):
    calls = []

    def forward(model, x):
        calls.append(x)
        if len(calls) == call:
            raise PlantedError
        return model(x)

    before = snapshot(mixed)
    with pytest.raises(PlantedError):
        EVERY[name](as_classifier(mixed, forward=forward), (digits.images[:24], digits.labels[:24]))
    assert_same(before, snapshot(mixed))


@pytest.mark.parametrize("name", EVERY)
def test_under_inference_mode_the_numbers_are_the_same(mixed, digits, name):
    images, labels = digits.images[:24], digits.labels[:24]
    outside = EVERY[name](mixed, (images, labels))
    with torch.inference_mode():
        # As a loader's batches are inside Trainer.validate.
        images, labels = images.clone(), labels.clone()
        assert images.is_inference()
        before = snapshot(mixed)
        inside = EVERY[name](mixed, (images, labels))
        assert_same(before, snapshot(mixed))
    # As text, because NaN is no NaN's equal.
    assert repr(inside.records) == repr(outside.records)
    assert inside.arrays.keys() == outside.arrays.keys()
    for key, array in outside.arrays.items():
        np.testing.assert_array_equal(inside.arrays[key], array)


def test_under_autocast_the_numbers_are_the_same(digits):
    settings = {"eps": [0.125], "attacks": ["pgd"], "steps": 3}
    data = (digits.images, digits.labels)
    outside = measure_robustness(digits.model, data, **settings)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measure_robustness(digits.model, data, **settings)
    assert repr(inside.records) == repr(outside.records)


def test_the_seed_decides_inside(digits):
    def draws(seed):
        with untouched(digits.model, seed):
            return torch.rand(1).item(), np.random.rand(), random.random()

    assert draws(3) == draws(3)
    assert all(a != b for a, b in zip(draws(3), draws(4), strict=True))


def test_buffers_written_in_forward_are_put_back():
    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", torch.zeros(2))

        def forward(self, x):
            self.calls += 1
            self.last = x.mean(dim=(0, 1, 2))
            return x.flatten(1)

    model = Counter()
    last = model.last
    measure_accuracy(model, (torch.rand(4, 1, 1, 2), torch.tensor([0, 1, 0, 1])))
    assert model.calls == 0
    assert model.last is last
    assert torch.equal(last, torch.zeros(2))


def test_batchnorm_without_running_statistics_and_a_model_without_parameters():
    images, labels = torch.rand(8, 1, 2, 2), torch.tensor([0, 1, 2, 3] * 2)
    for model in (nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten()), nn.Flatten()):
        found = measure_robustness(model, (images, labels), eps=[0.1], steps=2)
        assert [row.attack for row in found.records if row.metric == "robust_accuracy"] == ["pgd", "apgd-dlr", "worst"]


def test_a_torchmetrics_module_keeps_what_it_had_gathered():
    from torchmetrics.classification import MulticlassAccuracy

    model = nn.ModuleDict({"layer": nn.Linear(2, 3), "accuracy": MulticlassAccuracy(3)})
    model["accuracy"].update(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2]))
    before = float(model["accuracy"].compute())
    with as_it_was(model):
        model["accuracy"].update(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2]))
    assert float(model["accuracy"].compute()) == before
    assert model["accuracy"].update_count == 1


def test_scoring_keeps_modes_and_random_numbers_going_and_grads_as_they_are():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    model[0].weight.grad = torch.ones(2, 2)
    state = torch.get_rng_state()
    with torch.inference_mode(), as_it_was(model):
        assert model[1].training
        assert torch.equal(torch.get_rng_state(), state)  # goes on from where it is, and is put back
        (gradient,) = torch.autograd.grad(model(torch.ones(4, 2)).sum(), [model[0].bias])
        assert gradient.shape == (2,)
    assert torch.equal(torch.get_rng_state(), state)
    assert bool((model[0].weight.grad == 1).all())
