"""The randomisation check against autograd and scipy, what passes and what fails, and that it leaves no trace."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_sparse.measure.explanations.attributions import attribute
from lightning_sparse.measure.explanations.randomisation import randomisation_check, shuffled_weights, verdict


def sparse(model):
    model = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter[parameter.abs() < parameter.abs().median()] = 0.0
    return model


def test_shuffling_keeps_values_zeros_and_buffers_and_everything_comes_back(digits):
    model = sparse(digits.model).to(memory_format=torch.channels_last)
    before = copy.deepcopy(model.state_dict())
    with torch.inference_mode(), shuffled_weights(model):
        moved = 0
        for name, parameter in model.named_parameters():
            old = before[name]
            assert torch.equal(parameter == 0, old == 0)
            assert torch.equal(parameter.flatten().sort().values, old.flatten().sort().values)
            moved += int((parameter != old).sum())
        assert moved > 0.4 * sum(old.numel() for old in before.values())
        assert torch.equal(model[1].running_mean, before["1.running_mean"])
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def fail_inside(model):
    with shuffled_weights(model):
        assert any(parameter.any() for parameter in model.parameters())
        raise RuntimeError("inside")


def test_everything_comes_back_after_an_exception_too(digits):
    before = copy.deepcopy(digits.model.state_dict())
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside(digits.model)
    for name, value in digits.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_equals_a_shuffled_copy_and_scipy(digits):
    images, labels = digits.images[:8], digits.labels[:8]
    maps, _ = attribute(digits.model, images, labels, "gradient")
    similarity, rise = randomisation_check(digits.model, images, labels, maps, "gradient", seed=4)
    other = copy.deepcopy(digits.model).eval()
    with torch.no_grad(), shuffled_weights(other, 4):
        state = copy.deepcopy(other.state_dict())
    other.load_state_dict(state)
    pixels = images.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(other(pixels).gather(1, labels[:, None]).sum(), pixels)
    for i, (one, two) in enumerate(zip(maps.numpy(), slope[:, 0].abs().numpy(), strict=True)):
        assert similarity[i] == pytest.approx(stats.spearmanr(one.ravel(), two.ravel()).statistic, abs=1e-3)
        entropies = [stats.entropy(np.histogram(map_.astype(float), 100)[0]) for map_ in (one, two)]
        assert rise[i] == pytest.approx(entropies[1] / entropies[0] - 1, abs=0.02)


def test_the_gradient_passes_and_a_map_of_the_input_fails(digits):
    found = {}
    for method in ("gradient", "integrated_gradients"):
        maps, _ = attribute(digits.model, digits.images, digits.labels, method)
        found[method], _ = randomisation_check(digits.model, digits.images, digits.labels, maps, method)
    assert abs(found["gradient"].mean()) < 0.3
    assert verdict(found["gradient"].mean()) == "passed"
    # The zero baseline: a black pixel has no attribution whatever the weights are.
    assert found["integrated_gradients"].mean() > 0.7
    assert verdict(found["integrated_gradients"].mean()) == "failed: maps alike"


def test_a_dead_network_is_neither_alike_nor_different(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    maps, _ = attribute(model, digits.images, digits.labels, "gradient")
    similarity, rise = randomisation_check(model, digits.images, digits.labels, maps, "gradient")
    assert np.isnan(similarity).all()
    assert np.isnan(rise).all()
    assert verdict(float("nan")) == ""
