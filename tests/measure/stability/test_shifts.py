"""Shift consistency by hand, and against every pair of copies that scipy shifts."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.stability.shifts import measure_shift_consistency
from lightning_sparse.statistics.intervals import mean_interval


def lit(side=3):
    """One image, black but for the pixel in its middle."""
    image = torch.zeros(1, 1, side, side)
    image[0, 0, side // 2, side // 2] = 1.0
    return image


def says_where(model, x):
    """The class is the place of the brightest pixel."""
    return 5 * x.flatten(1)


def says_whether_the_middle_is_lit(model, x):
    return torch.stack([x[:, 0, 1, 1], torch.full((len(x),), 0.5)], dim=1)


def saying(logits):
    return as_classifier(nn.Identity(), forward=logits)


def test_by_hand():
    label = torch.tensor([0])
    # One of nine copies leaves the pixel in the middle: 8 * 7 of 9 * 8 ordered pairs agree.
    found = measure_shift_consistency(saying(says_whether_the_middle_is_lit), (lit(), label), most=1)
    assert found.records[0].value == pytest.approx(56 / 72)
    assert found.records[0].samples == 9
    # Every copy lights another pixel.
    assert measure_shift_consistency(saying(says_where), (lit(), label), most=1).records[0].value == 0


def test_equals_every_pair_of_shifted_copies(digits):
    images, labels = digits.images[:30], digits.labels[:30]
    found = measure_shift_consistency(digits.model, (images, labels), most=2, batch_size=7)
    digits.model.eval()
    predictions = []
    for down in range(-2, 3):
        for right in range(-2, 3):
            copy = ndimage.shift(images.numpy(), (0, 0, down, right), order=0, mode="constant")
            with torch.no_grad():
                predictions.append(digits.model(torch.tensor(copy)).argmax(dim=1).numpy())
    expected = np.mean([a == b for a, b in combinations(predictions, 2)], axis=0)
    assert found.arrays["shift_consistency"] == pytest.approx(expected, abs=1e-6)
    record = found.records[0]
    assert record.metric == "shift_consistency"
    assert (record.value, record.low, record.high) == pytest.approx(mean_interval(expected))
    assert 0.1 < record.value < 0.9


def test_a_model_with_one_answer_is_consistent_and_one_blind_to_place_too(digits):
    blind = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(1, 4))
    inner = torch.zeros(6, 1, 9, 9)
    inner[:, :, 2:7, 2:7] = torch.rand(6, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    assert measure_shift_consistency(blind, (inner, torch.zeros(6, dtype=torch.long))).records[0].value == 1
    stubborn = lambda model, x: torch.tensor([[0.0, 3.0]]).repeat(len(x), 1)  # noqa: E731
    data = (digits.images, digits.labels % 2)
    assert measure_shift_consistency(saying(stubborn), data).records[0].value == 1


def test_inference_mode_changes_nothing(digits):
    plain = measure_shift_consistency(digits.model, (digits.images, digits.labels), most=1).records
    with torch.inference_mode():
        data = (digits.images.clone(), digits.labels.clone())
        assert measure_shift_consistency(digits.model, data, most=1).records == plain


@pytest.mark.parametrize("most", [0, 3, -1, 1.0, True, None])
def test_shifts_that_cannot_be_are_refused(most):
    with pytest.raises(SparsityError, match=r"most=.* is not an integer in \[1, 2\]: write fewer pixels than the 3"):
        measure_shift_consistency(nn.Flatten(), (lit(), torch.tensor([0])), most=most)
