"""VOG against plain numpy on stored gradients, and the traps of computing it."""

import copy
import io

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from torch import nn
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.forgetting.gradient_variance import (
    GradientVariance,
    class_normalised,
    rank_stability,
    stability_record,
    true_class_gradients,
    vog_record,
)


def trained(digits, epochs, following):
    """Go on training a copy, and look after every epoch; returns the gradients that captum gives at each."""
    model, stored = copy.deepcopy(digits.model), []
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(epochs):
        model.train()
        for images, labels in zip(*(part.split(50) for part in digits.calibration), strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
        following.update(model, digits.images, digits.labels)
        model.eval()
        images = digits.images.clone().requires_grad_(True)
        stored.append(Saliency(model).attribute(images, target=digits.labels, abs=False).detach().mean(1).numpy())
    return np.stack(stored).astype(np.float64)


def test_scores_are_those_of_numpy_on_all_gradients_at_once(digits):
    following = GradientVariance(batch_size=64)
    stored = trained(digits, 5, following)
    assert following.count == 5
    expected = np.std(stored, axis=0).reshape(len(digits.images), -1).mean(axis=1)
    assert expected.min() > 1e-4
    np.testing.assert_allclose(following.scores(), expected, rtol=1e-5)


def test_channels_are_averaged_before_the_deviation():
    """One pixel, two channels whose gradients move against each other: their mean stands still."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    images, labels = torch.rand(3, 2, 1, 1), torch.tensor([0, 1, 1])
    following = GradientVariance()
    for weights in ([[1.0, 5.0], [0.0, 2.0]], [[3.0, 3.0], [6.0, 2.0]]):
        model[1].weight.data = torch.tensor(weights)
        following.update(model, images, labels)
    assert following.scores().tolist() == [0.0, 1.5, 1.5]  # means 3, 3 of class 0, and 1, 4 of class 1


def test_it_is_the_logit_and_in_units_of_pixels_before_normalisation():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 1, 0])
    gradients = true_class_gradients(as_classifier(model, mean=[0.3], std=[0.25]), images, labels, batch_size=2)
    torch.testing.assert_close(gradients.flatten(1), 4.0 * model[1].weight.detach()[labels])


def test_before_the_second_look_nothing_is_defined():
    following = GradientVariance()
    assert following.scores().shape == (0,)
    following.add(torch.ones(3, 2, 2))
    assert np.isnan(following.scores()).all()
    record = vog_record(following, [0])
    assert np.isnan([record.value, record.low, record.high]).all()
    assert "undefined with fewer than two looks" in record.detail


def test_a_dead_network_is_counted_and_a_network_that_stands_still_is_not():
    following = GradientVariance()
    for _ in range(3):
        following.add(torch.tensor([0.0, 0.1, 7.7]).view(3, 1, 1).expand(3, 2, 2))
    assert following.scores().tolist() == [0.0, 0.0, 0.0]
    assert following.unmoved() == 1
    assert "1 images had no gradient at any look" in vog_record(following, [0, 1, 2]).detail


def test_scores_stay_exact_where_the_mean_is_large():
    """A sum of squares minus the square of the sum would lose all of it here."""
    gradients = 1e4 + torch.randn(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    following = GradientVariance()
    for gradient in gradients:
        following.add(gradient)
    expected = gradients.double().numpy().std(axis=0).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(following.scores(), expected, rtol=2e-3)


def test_it_leaves_no_trace_even_under_inference_mode_and_after_an_error(digits):
    model = copy.deepcopy(digits.model).train()
    model.zero_grad()
    model[1].eval()
    next(model.parameters()).requires_grad_(False)
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    state, plain = torch.get_rng_state(), true_class_gradients(model, digits.images, digits.labels)
    with torch.inference_mode():
        same = true_class_gradients(model, digits.images + 0, digits.labels)
    with pytest.raises(SparsityError, match="10 classes"):
        true_class_gradients(model, digits.images, torch.full_like(digits.labels, 10))
    assert torch.equal(plain, same)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_probabilities_are_refused(digits):
    with pytest.raises(SparsityError, match="probabilities"):
        true_class_gradients(nn.Sequential(digits.model, nn.Softmax(1)), digits.images, digits.labels)


def test_other_images_are_refused(digits):
    following = GradientVariance()
    following.update(digits.model, digits.images, digits.labels)
    with pytest.raises(SparsityError, match=r"\(10, 8, 8\).*\(150, 8, 8\).*the same images"):
        following.update(digits.model, digits.images[:10], digits.labels[:10])


def test_a_state_goes_on_bit_for_bit_and_is_not_changed_by_what_follows():
    gradients = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    whole, resumed, file = GradientVariance(), GradientVariance(), io.BytesIO()
    for gradient in gradients[:3]:
        whole.add(gradient)
    torch.save(whole.state_dict(), file)
    held, middle = whole.state_dict(), whole.scores()
    for gradient in gradients[3:]:
        whole.add(gradient)
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert np.array_equal(resumed.scores(), middle)
    for gradient in gradients[3:]:
        resumed.add(gradient)
    assert np.array_equal(resumed.scores(), whole.scores())
    resumed.load_state_dict(held)
    assert np.array_equal(resumed.scores(), middle)


def test_normalised_by_class_by_hand():
    """Class 1: 2, 4, 9 have mean 5 and deviation sqrt(26 / 3). Class 0 has one image, class 2 equal scores."""
    scores = class_normalised([2.0, 100.0, 4.0, 9.0, 5.0, 5.0], torch.tensor([1, 0, 1, 1, 2, 2]))
    spread = (26 / 3) ** 0.5
    np.testing.assert_allclose(scores, [-3 / spread, np.nan, -1 / spread, 4 / spread, np.nan, np.nan])
    with pytest.raises(SparsityError, match="one label per score"):
        class_normalised([1.0, 2.0], [0])


def test_rank_stability_by_hand_and_where_it_is_undefined():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_stability(a, np.array([1.0, 3.0, 2.0, 9.0])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert np.isnan(rank_stability(a, np.full(4, 0.5)))
    assert np.isnan(rank_stability(np.full(4, np.nan), a))
    assert np.isnan(rank_stability(np.empty(0), a))
    assert stability_record(0.8, 4, [0, 1, 2]).detail.startswith("Spearman over images")
    assert stability_record(float("nan"), 4, [0]).detail.startswith("undefined before the third look")
