"""The temperature: planted, minimised by scipy, scaled with the logits."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, fit_temperature
from lightning_sparse.measure.classifier import logits_of


def drawn(n=4000, classes=5, temperature=2.5):
    """Logits whose softmax at this temperature is the truth the labels are drawn from."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, classes, generator=generator)
    return logits, torch.multinomial(torch.softmax(logits / temperature, 1), 1, generator=generator).squeeze(1)


def test_finds_the_temperature_that_was_planted():
    assert fit_temperature(*drawn()) == pytest.approx(2.5, rel=0.05)


def test_minimises_the_likelihood_with_one_random_image_more():
    logits, labels = drawn(n=100)

    def loss(temperature):
        z = logits.double() / temperature
        return (F.cross_entropy(z, labels, reduction="sum") - z.log_softmax(1).mean(1).mean()).item()

    def plain(temperature):
        return F.cross_entropy(logits.double() / temperature, labels).item()

    best, unsmoothed = (
        minimize_scalar(f, bounds=(0.1, 50), method="bounded", options={"xatol": 1e-9}).x for f in (loss, plain)
    )
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=1e-5)
    assert fit_temperature(logits, labels) == pytest.approx(unsmoothed, rel=0.05)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_scales_with_the_logits(digits, factor):
    classifier = as_classifier(digits.model.eval())
    images, labels = digits.calibration
    logits = logits_of(classifier, images, labels)
    assert fit_temperature(factor * logits, labels) == pytest.approx(factor * fit_temperature(logits, labels), rel=1e-5)


def test_one_wrong_image_more_changes_little():
    logits = 8 * F.one_hot(torch.arange(300) % 10, 10).float() + torch.randn(
        300, 10, generator=torch.Generator().manual_seed(1)
    )
    right = logits.argmax(1)
    one_wrong = right.clone()
    one_wrong[0] = (right[0] + 1) % 10
    perfect, nearly = fit_temperature(logits, right), fit_temperature(logits, one_wrong)
    assert 0.3 < perfect / nearly < 1


def test_it_stays_finite_where_there_is_nothing_to_fit():
    labels = torch.arange(20) % 2
    assert fit_temperature(torch.zeros(20, 2), labels) == 1.0
    assert fit_temperature(torch.ones(20, 2), labels) == 1.0
    always_wrong = F.one_hot(1 - labels, 2).float()
    assert np.isfinite(fit_temperature(always_wrong, labels))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(SparsityError, match="do not fit"):
        fit_temperature(torch.zeros(3, 2), torch.zeros(4, dtype=torch.long))
