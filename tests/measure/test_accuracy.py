"""Clean accuracy and cross-entropy: by hand, on a real model, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, measure_accuracy
from lightning_sparse.statistics import wilson


def test_by_hand():
    # The logits are the two pixels: right, right, wrong.
    images = torch.tensor([[1.0, 0.0], [0.25, 0.5], [1.0, 0.0]]).view(3, 1, 1, 2)
    classifier = as_classifier(nn.Flatten(), forward=lambda model, x: 4 * model(x))
    accuracy, loss = measure_accuracy(classifier, (images, torch.tensor([0, 1, 1]))).records
    assert (accuracy.metric, accuracy.value, accuracy.n) == ("clean_accuracy", 2 / 3, 3)
    assert (accuracy.low, accuracy.high) == wilson(2, 3)
    expected = np.mean([np.log1p(np.exp(-4)), np.log1p(np.exp(-1)), np.log1p(np.exp(4))])
    assert (loss.metric, loss.n) == ("clean_cross_entropy", 3)
    assert loss.value == pytest.approx(expected, rel=1e-6)
    assert loss.low < loss.value < loss.high
    assert [record.chart for record in (accuracy, loss)] == ["clean/accuracy", "clean/cross_entropy"]


def test_on_a_real_model(digits):
    digits.model.eval()
    with torch.no_grad():
        share = (digits.model(digits.images).argmax(1) == digits.labels).float().mean().item()
    digits.model.train()
    accuracy, _ = measure_accuracy(digits.model, (digits.images, digits.labels)).records
    assert accuracy.value == pytest.approx(share)
    assert accuracy.value > 0.9


def test_batch_size_does_not_matter(digits):
    data = (digits.images, digits.labels)
    whole, parts = (measure_accuracy(digits.model, data, batch_size=b).records for b in (512, 7))
    assert whole[0] == parts[0]
    assert whole[1].value == pytest.approx(parts[1].value, rel=1e-5)


def test_bad_images_and_labels_are_refused(digits):
    with pytest.raises(SparsityError, match="images / 255"):
        measure_accuracy(digits.model, (digits.images * 255, digits.labels))
    with pytest.raises(SparsityError, match="reach -1"):
        measure_accuracy(digits.model, (digits.images, digits.labels - digits.labels.min() - 1))
    with pytest.raises(SparsityError, match="has 10 classes"):
        measure_accuracy(digits.model, (digits.images, digits.labels + 1))
    with pytest.raises(SparsityError, match="NaN"):
        measure_accuracy(
            as_classifier(digits.model, forward=lambda m, x: m(x) * float("nan")), (digits.images, digits.labels)
        )
