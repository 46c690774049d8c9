"""Gini and agreement against independent implementations, and the records and arrays of a real model."""

import io
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import agreement, agreement_record, as_classifier, attribute, gini, measure_saliency

METHODS = ("gradient", "integrated_gradients")


@pytest.fixture(scope="module")
def measured(digits):
    return measure_saliency(digits.model, digits.images, digits.labels, calibration=digits.calibration)


def test_records(measured):
    records, _ = measured
    assert [(record.attribution, record.metric) for record in records] == [
        ("gradient", "gini"),
        ("gradient", "insertion_deletion_gap"),
        ("integrated_gradients", "gini"),
        ("integrated_gradients", "insertion_deletion_gap"),
        ("integrated_gradients", "convergence_delta"),
    ]
    for record in records:
        assert record.n == 150
        assert record.low < record.value < record.high
    assert "fitted on 250 calibration images" in records[1].detail
    assert records[1].value > 0.3
    assert records[4].value < 0.1


def test_arrays_can_be_saved_and_compared_later(measured, digits):
    _, arrays = measured
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    loaded = np.load(file)
    assert set(loaded) == {"images", "labels", "prediction", "confidence", *METHODS}
    assert loaded["images"].dtype == np.float16
    assert np.array_equal(loaded["images"].astype(np.float32), digits.images.numpy())
    assert np.array_equal(loaded["labels"], digits.labels.numpy())
    assert loaded["confidence"].dtype == np.float32
    digits.model.eval()
    assert np.array_equal(loaded["prediction"], digits.model(digits.images).argmax(1).numpy())
    for method in METHODS:
        assert (loaded[method].dtype, loaded[method].shape) == (np.float32, (150, 8, 8))
        expected, _ = attribute(as_classifier(digits.model), digits.images, digits.labels, method)
        np.testing.assert_allclose(loaded[method], expected, rtol=1e-6)
        assert agreement_record(loaded[method], loaded[method], method).value == pytest.approx(1)


def test_logit_scale_changes_neither_gap_nor_gini_nor_confidence(measured, digits, times):
    records, arrays = measure_saliency(
        times(digits.model, 100.0), digits.images, digits.labels, calibration=digits.calibration
    )
    for loud, plain in zip(records[:4], measured[0][:4], strict=True):
        assert loud.value == pytest.approx(plain.value, abs=1e-5)
    np.testing.assert_allclose(arrays["confidence"], measured[1]["confidence"], atol=1e-5)


def test_a_dead_network_has_no_saliency_and_says_so(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(model[1].weight)
    records, _ = measure_saliency(model, digits.images, digits.labels)
    for record in records[:4]:
        assert math.isnan(record.value)
        assert record.n == 0
        assert "undefined for 150 of 150 images" in record.detail


def test_wrong_settings_are_refused(digits):
    with pytest.raises(SparsityError, match="methods='gradient'"):
        measure_saliency(digits.model, digits.images, digits.labels, methods="gradient")
    with pytest.raises(SparsityError, match="methods='gradcam' does not exist"):
        measure_saliency(digits.model, digits.images, digits.labels, methods=["gradcam"])
    with pytest.raises(SparsityError, match="images / 255"):
        measure_saliency(digits.model, digits.images, digits.labels, calibration=(digits.images * 255, digits.labels))


def test_gini_equals_the_mean_difference():
    """Half the relative mean absolute difference of all pairs, by a loop."""
    maps = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0))
    for value, one in zip(gini(maps), maps.abs().flatten(1).numpy().astype(float), strict=True):
        pairs = sum(abs(a - b) for a in one for b in one) / len(one) ** 2
        assert value == pytest.approx(pairs / (2 * one.mean()))


def test_gini_of_a_map_does_not_depend_on_its_scale_and_a_zero_map_has_none():
    maps = np.random.default_rng(0).normal(size=(3, 5, 5))
    np.testing.assert_allclose(gini(maps), gini(-1e6 * maps))
    maps[1] = 0
    assert np.isnan(gini(maps)).tolist() == [False, True, False]


def test_agreement_equals_scipy_with_ties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (6, 5, 5)).astype(float), rng.normal(size=(6, 5, 5))
    expected = [stats.spearmanr(np.abs(x).ravel(), np.abs(y).ravel()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(agreement(torch.tensor(a), b), expected)


def test_agreement_with_a_constant_map_is_undefined():
    a = np.random.default_rng(0).normal(size=(3, 2, 2))
    b = a.copy()
    b[1] = 7.0
    assert np.isnan(agreement(a, b)).tolist() == [False, True, False]
    record = agreement_record(a, b, "gradient")
    assert (record.metric, record.attribution, record.n) == ("dense_agreement", "gradient", 2)
    assert record.value == pytest.approx(1)


def test_maps_that_do_not_fit_are_refused():
    with pytest.raises(SparsityError, match="differ"):
        agreement(np.zeros((2, 3, 3)), np.zeros((3, 3, 3)))
    with pytest.raises(SparsityError, match="one map per image"):
        gini(np.zeros((3, 3)))
