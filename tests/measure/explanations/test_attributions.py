"""Attributions against autograd, numbers by hand and a plain sum over the path."""

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn
from torch.nn import functional as F

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, attribute
from lightning_sparse.models.networks import small_cnn


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


@pytest.mark.parametrize("method", ["integrated_gradients", "smoothgrad", "grad_cam"])
def test_chunks_do_not_matter(digits, method):
    whole, _ = attribute(digits.model, digits.images, digits.labels, method)
    parts = [
        attribute(digits.model, digits.images[i : i + 50], digits.labels[i : i + 50], method)[0] for i in (0, 50, 100)
    ]
    torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-4, atol=1e-5)


def test_an_unknown_method_is_refused(digits):
    with pytest.raises(SparsityError, match="did you mean 'gradient'"):
        attribute(digits.model, digits.images, digits.labels, "gradients")


def test_smoothgrad_is_captums_noise_tunnel(digits):
    """One image at a time, for which captum draws the same 25 noises from the same seed."""
    classifier = as_classifier(digits.model)
    images, labels = digits.images[:5], digits.labels[:5]
    maps, deltas = attribute(classifier, images, labels, "smoothgrad", seed=3)
    tunnel = NoiseTunnel(Saliency(classifier))
    with untouched(classifier):
        for i in range(5):
            torch.manual_seed(3)
            image = images[[i]].clone().requires_grad_(True)
            settings = {"nt_type": "smoothgrad", "nt_samples": 25, "stdevs": 0.15, "abs": False}
            expected = tunnel.attribute(image, target=labels[[i]], **settings)
            torch.testing.assert_close(maps[i], expected.detach().sum(1).abs()[0], rtol=1e-3, atol=1e-4)
    assert deltas.isnan().all()
    other, _ = attribute(classifier, images, labels, "smoothgrad", seed=4)
    assert not torch.allclose(maps, other, rtol=1e-3)


def test_grad_cam_by_hand():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(8, 2, bias=False))
    model[0].weight.data = torch.tensor([2.0, -1.0]).view(2, 1, 1, 1)
    model[2].weight.data = torch.tensor([[4.0, 0, 0, 0, 0, 0, 8.0, 0], [-1.0] * 8])
    image = torch.tensor([[1.0, 0.5], [0.25, 0.0]]).view(1, 1, 2, 2)
    # Channels: 2x and -x. Mean gradients of class 0: 1 and 2, so 2x - 2x = 0; of class 1: -1 and -1, so -2x + x < 0.
    for label in (0, 1):
        maps, _ = attribute(model, image, torch.tensor([label]), "grad_cam")
        assert maps.tolist() == [[[0, 0], [0, 0]]]
    model[2].weight.data[0, 6] = 0  # the second channel's weight is 0 now: 2x is left
    maps, _ = attribute(model, image, torch.tensor([0]), "grad_cam")
    torch.testing.assert_close(maps[0], 2 * image[0, 0])


@pytest.mark.parametrize("inplace", [False, True])
def test_grad_cam_equals_autograd(digits, inplace):
    """The last convolution's map is 4x4 here, and is stretched to 8x8."""
    net = small_cnn((1, 8, 8), 10)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.1)
    net[4] = nn.ReLU(inplace=inplace)
    images, labels = digits.images[:6], digits.labels[:6]
    maps, _ = attribute(net, images, labels, "grad_cam")
    activations = net[:4](images)
    score = net[4:](activations.clone()).gather(1, labels[:, None]).sum()
    (slope,) = torch.autograd.grad(score, activations)
    coarse = (slope.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
    expected = F.interpolate(coarse, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(maps, expected[:, 0].detach(), rtol=1e-3, atol=1e-6)
    assert maps.max() > 0


def test_grad_cam_without_a_map_to_show_is_refused(digits):
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    tiny = nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten(), nn.Linear(4, 10))
    for model, reason in ((dense, "no nn.Conv2d that runs"), (tiny, "maps of 1x1")):
        with pytest.raises(SparsityError, match=reason):
            attribute(model, digits.images, digits.labels, "grad_cam")


def test_a_dead_network_has_maps_of_zeros(digits):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    for method in ("gradient", "integrated_gradients", "smoothgrad", "grad_cam"):
        maps, _ = attribute(model, digits.images[:5], digits.labels[:5], method)
        assert not maps.any()
