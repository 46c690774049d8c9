"""Max-sensitivity against captum's own, and against numpy with a gradient worked out by hand."""

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from captum.metrics import sensitivity_max
from captum.metrics._core.sensitivity import default_perturb_func
from torch import nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.measure.classifier import as_classifier
from lightning_sparse.measure.explanations.attributions import maps_of
from lightning_sparse.measure.explanations.sensitivity import max_sensitivity


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "smoothgrad", "grad_cam"])
def test_equals_captums_with_its_own_moves(digits, method):
    """One image at a time, for which captum draws the same ten moves from the same seed."""
    classifier = as_classifier(digits.model)
    images, labels = digits.images[:4], digits.labels[:4]
    found = max_sensitivity(classifier, images, labels, method, seed=5)

    def explain(inputs, target):
        part = inputs[0] if isinstance(inputs, tuple) else inputs
        return (maps_of(classifier, part, target.expand(len(part)), method, 5)[0],)

    expected = []
    with untouched(classifier):
        for image, label in zip(images, labels, strict=True):
            torch.manual_seed(6)
            expected.append(float(sensitivity_max(explain, image[None], target=label[None])))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert found.min() > 0


def test_equals_captums_saliency_where_no_gradient_is_negative(digits):
    """Nothing of ours but the moves: a network of positive weights has a gradient whose absolute value is itself."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Softplus(), nn.Linear(16, 3))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.data.uniform_(0, 0.1)
    images, labels = digits.images[:3], torch.tensor([0, 1, 2])
    found = max_sensitivity(model, images, labels, "gradient", seed=2)
    saliency = Saliency(model)

    def explain(inputs, target):
        return saliency.attribute(tuple(part.requires_grad_() for part in inputs), target=target)

    for i in range(3):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            settings = {"perturb_func": lambda inputs, r: (default_perturb_func(inputs, r)[0],)}
            expected = sensitivity_max(explain, images[[i]], target=labels[[i]], **settings)
        assert found[i] == pytest.approx(float(expected), rel=1e-3)


def test_equals_numpy_with_the_gradient_by_hand():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 4)), rng.normal(size=(3, 6))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3, bias=False))
    model[1].weight.data, model[3].weight.data = torch.tensor(first).float(), torch.tensor(second).float()
    images = rng.random((5, 4)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1])
    moves = torch.empty(10, 1, 2, 2).uniform_(-0.02, 0.02, generator=torch.Generator().manual_seed(1)).numpy()

    def gradient(x, label):
        return np.abs((second[label] * (1 - np.tanh(first @ x) ** 2)) @ first)

    expected = []
    for x, label in zip(images, labels, strict=True):
        map_ = gradient(x, label)
        changes = [np.linalg.norm(gradient(x + move.ravel(), label) - map_) for move in moves]
        expected.append(max(changes) / np.linalg.norm(map_))
    found = max_sensitivity(model, torch.tensor(images).view(5, 1, 2, 2), torch.tensor(labels), "gradient", seed=0)
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_neither_batches_nor_neighbours_matter(digits):
    whole = max_sensitivity(digits.model, digits.images[:30], digits.labels[:30], "smoothgrad")
    one = max_sensitivity(digits.model, digits.images[27:28], digits.labels[27:28], "smoothgrad")
    assert whole[27] == pytest.approx(one[0], rel=1e-3)


def test_a_map_of_zeros_has_no_relative_change():
    # ReLU lets nothing through for the first image, and the second is linear: no change at all.
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2))
    model[1].weight.data, model[1].bias.data = torch.ones(1, 4), torch.tensor([-2.0])
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    found = max_sensitivity(model, images, torch.tensor([0, 1]), "gradient")
    assert np.isnan(found[0])
    assert found[1] == 0


def test_it_leaves_no_trace(digits):
    digits.model.train()
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        max_sensitivity(digits.model, digits.images[:3], digits.labels[:3], "gradient")
    assert torch.equal(state, torch.random.get_rng_state())
    assert digits.model.training
    assert all(p.grad is None or p.requires_grad for p in digits.model.parameters())
