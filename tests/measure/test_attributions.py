"""Attributions against autograd, numbers by hand and a plain sum over the path."""

import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, attribute, untouched


def test_gradient_is_the_true_class_logits(digits):
    classifier = as_classifier(digits.model)
    maps, deltas = attribute(classifier, digits.images, digits.labels, "gradient")
    with untouched(classifier):
        images = digits.images.clone().requires_grad_(True)
        score = classifier(images).gather(1, digits.labels[:, None]).sum()
        (expected,) = torch.autograd.grad(score, images)
    torch.testing.assert_close(maps, expected.sum(1).abs(), rtol=1e-4, atol=1e-5)
    assert deltas.isnan().all()


def test_channels_are_summed_before_the_absolute_value():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[1.0, 5.0, -3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    images = torch.tensor([[0.5, 1.0, 1.0, 0.5]]).view(1, 2, 1, 2)
    maps, _ = attribute(model, images, torch.tensor([0]), "gradient")
    torch.testing.assert_close(maps, torch.tensor([[[2.0, 7.0]]]))
    maps, deltas = attribute(model, images, torch.tensor([0]), "integrated_gradients")
    torch.testing.assert_close(maps, torch.tensor([[[2.5, 6.0]]]))
    torch.testing.assert_close(deltas, torch.zeros(1), atol=1e-4, rtol=0)


def test_integrated_gradients_equal_a_plain_sum_over_the_path(digits):
    classifier = as_classifier(digits.model)
    images, labels = digits.images[:10], digits.labels[:10]
    maps, deltas = attribute(classifier, images, labels, "integrated_gradients")
    with untouched(classifier):
        total, parts = torch.zeros_like(images), 1000
        for part in range(parts):
            point = (images * (part + 0.5) / parts).requires_grad_(True)
            total += torch.autograd.grad(classifier(point).gather(1, labels[:, None]).sum(), point)[0] / parts
    torch.testing.assert_close(maps, (images * total).sum(1).abs(), rtol=0.02, atol=0.05)
    assert deltas.abs().max() < 0.2


def test_chunks_do_not_matter(digits):
    whole, _ = attribute(digits.model, digits.images, digits.labels, "integrated_gradients")
    parts = [
        attribute(digits.model, digits.images[i : i + 50], digits.labels[i : i + 50], "integrated_gradients")[0]
        for i in (0, 50, 100)
    ]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-5)


def test_an_unknown_method_is_refused(digits):
    with pytest.raises(SparsityError, match="did you mean 'gradient'"):
        attribute(digits.model, digits.images, digits.labels, "gradients")
