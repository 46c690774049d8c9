"""The insertion-deletion gap against a plain loop, its zero, and its freedom from logit scale."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import untouched
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, attribute, fit_temperature, insertion_deletion_gap
from lightning_sparse.measure.classifier import logits_of
from lightning_sparse.measure.explanations.faithfulness import _grid


def plain_loop(classifier, image, label, ranking, temperature):
    """Insertion minus deletion, pixel by pixel in a numpy loop, at the same counts, ends included."""
    pixels = image[0].numel()
    counts = [0, *_grid(pixels)[0].tolist(), pixels]
    order = np.argsort(-ranking.flatten().numpy(), kind="stable")
    inserted, deleted = [], []
    for count in counts:
        mask = np.zeros(pixels, dtype=np.float32)
        mask[order[:count]] = 1
        mask = torch.tensor(mask).view(image.shape[1:])
        for curve, shown in ((inserted, mask), (deleted, 1 - mask)):
            curve.append(torch.softmax(classifier((image * shown)[None])[0] / temperature, 0)[label].item())
    x = np.array(counts) / pixels
    return np.trapezoid(inserted, x) - np.trapezoid(deleted, x)


def test_equals_a_plain_loop(digits):
    classifier = as_classifier(digits.model)
    images, labels = digits.images[:6], digits.labels[:6]
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0))
    got = insertion_deletion_gap(classifier, images, labels, maps, temperature=1.7)
    with untouched(classifier), torch.no_grad():
        expected = [plain_loop(classifier, *case, 1.7) for case in zip(images, labels, maps, strict=True)]
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_multiplying_the_logits_by_100_changes_nothing(digits, times):
    maps, _ = attribute(digits.model, digits.images, digits.labels, "gradient")
    gaps = []
    for factor in (1.0, 100.0):
        classifier = as_classifier(times(digits.model, factor))
        with untouched(classifier):
            temperature = fit_temperature(logits_of(classifier, *digits.calibration), digits.calibration[1])
        gaps.append(insertion_deletion_gap(classifier, digits.images, digits.labels, maps, temperature=temperature))
    np.testing.assert_allclose(gaps[1], gaps[0], atol=1e-5)
    assert gaps[0].mean() > 0.3


def test_an_order_and_its_reverse_cancel_so_that_random_is_zero(digits):
    generator = torch.Generator().manual_seed(0)
    settings = {"temperature": 1.0}
    maps = torch.rand(150, 8, 8, generator=generator)
    forth = insertion_deletion_gap(digits.model, digits.images, digits.labels, maps, **settings)
    back = insertion_deletion_gap(digits.model, digits.images, digits.labels, -maps, **settings)
    np.testing.assert_allclose(forth, -back, atol=1e-5)
    assert abs(forth.mean()) < 3 * forth.std() / np.sqrt(len(forth))
    assert np.abs(forth).max() > 0.01


def test_ties_are_ordered_at_random_by_the_seed(digits):
    # Two levels only: within each the order is left to the seed.
    maps = (digits.images[:, 0] > 0.5).float()
    one, same, other = (
        insertion_deletion_gap(digits.model, digits.images, digits.labels, maps, temperature=1.0, seed=seed)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("pixels", [2, 3, 28, 29, 30, 64, 784, 1025, 224 * 224])
def test_the_grid_is_mirrored_and_its_weights_are_a_trapezoids(pixels):
    counts, weights = _grid(pixels)
    whole = torch.cat([torch.tensor([0]), counts, torch.tensor([pixels])])
    assert torch.equal(whole, pixels - whole.flip(0))
    assert bool((whole.diff() > 0).all())
    assert len(whole) <= 30
    values = torch.rand(len(whole), dtype=torch.float64)
    values[0] = values[-1] = 0
    assert (values[1:-1] * weights).sum().item() == pytest.approx(np.trapezoid(values, whole / pixels))


def test_a_constant_map_gives_no_order(digits):
    maps = digits.images[:4, 0].clone()
    maps[1], maps[2], maps[3] = 0.0, 3.0, float("nan")
    gaps = insertion_deletion_gap(digits.model, digits.images[:4], digits.labels[:4], maps, temperature=1.0)
    assert np.isnan(gaps).tolist() == [False, True, True, True]


def test_wrong_settings_are_refused(digits):
    maps = digits.images[:, 0]
    with pytest.raises(SparsityError, match="temperature=0"):
        insertion_deletion_gap(digits.model, digits.images, digits.labels, maps, temperature=0)
    with pytest.raises(SparsityError, match=r"maps have shape \(150, 1, 8, 8\), not \(150, 8, 8\)"):
        insertion_deletion_gap(digits.model, digits.images, digits.labels, digits.images, temperature=1.0)


def test_all_channels_of_a_pixel_go_together():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    model[1].weight.data = torch.tensor([[4.0, 0.0, 4.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    images = torch.ones(1, 2, 1, 2)
    gap = insertion_deletion_gap(model, images, torch.tensor([0]), torch.tensor([[[1.0, 0.0]]]), temperature=1.0)
    # One inner point, of weight 1/2: the first pixel shown (logit 8) against the second (logit 0).
    assert gap[0] == pytest.approx((1 / (1 + np.exp(-8)) - 0.5) / 2, abs=1e-6)
