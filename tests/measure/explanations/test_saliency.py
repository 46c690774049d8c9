"""Rows and arrays of a real model: what they hold, what is left out, and how they are taken over other images."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier, attribute
from lightning_sparse.measure.explanations.agreement import agreement_records
from lightning_sparse.measure.explanations.localisation import mass_accuracy, rank_accuracy
from lightning_sparse.measure.explanations.maps import gini
from lightning_sparse.measure.explanations.saliency import measure_saliency, same_images
from lightning_sparse.measure.explanations.saliency_rows import records_over
from lightning_sparse.statistics.intervals import mean_interval

METHODS = ("gradient", "integrated_gradients", "smoothgrad")
CHEAP = ("gini", "insertion_deletion_gap", "convergence_delta")


@pytest.fixture(scope="module")
def measured(digits):
    return measure_saliency(digits.model, (digits.images[:80], digits.labels[:80]), calibration=digits.calibration)


def rows(measured):
    return {(record.attribution, record.metric): record for record in measured.records}


def test_records(measured):
    always = ["gini", "insertion_deletion_gap", "max_sensitivity", "randomisation_similarity"]
    assert [(row.attribution, row.metric) for row in measured.records] == [
        ("input", "gini"),
        *[("gradient", metric) for metric in [*always, "randomisation_complexity_rise"]],
        *[("integrated_gradients", metric) for metric in always[:3]],
        ("integrated_gradients", "convergence_delta"),
        *[("integrated_gradients", metric) for metric in [always[3], "randomisation_complexity_rise"]],
        *[("smoothgrad", metric) for metric in [*always, "randomisation_complexity_rise"]],
    ]
    for record in measured.records:
        assert record.n == 80
        assert record.low < record.value < record.high
        assert bool(record.trust) == (record.metric == "randomisation_similarity")
    found = rows(measured)
    assert "fitted on 250 calibration images" in found["gradient", "insertion_deletion_gap"].detail
    assert found["gradient", "insertion_deletion_gap"].value > 0.3
    assert found["integrated_gradients", "convergence_delta"].value < 0.1
    assert found["smoothgrad", "max_sensitivity"].value < found["gradient", "max_sensitivity"].value
    assert found["gradient", "randomisation_similarity"].trust == "passed"


def test_arrays_can_be_saved_and_compared_later(measured, digits):
    file = io.BytesIO()
    np.savez(file, **measured.arrays)
    file.seek(0)
    loaded = np.load(file)
    images = {name for name in loaded if "/" not in name}
    assert images == {"images", "labels", "prediction", "confidence", "temperature", *METHODS}
    assert all(len(loaded[name]) == 80 for name in loaded)
    assert loaded["images"].dtype == np.float16
    assert np.array_equal(loaded["images"].astype(np.float32), digits.images[:80].numpy())
    assert np.array_equal(loaded["labels"], digits.labels[:80].numpy())
    assert loaded["confidence"].dtype == np.float32
    digits.model.eval()
    assert np.array_equal(loaded["prediction"], digits.model(digits.images[:80]).argmax(1).numpy())
    for method in METHODS:
        assert (loaded[method].dtype, loaded[method].shape) == (np.float32, (80, 8, 8))
        expected, _ = attribute(as_classifier(digits.model), digits.images[:80], digits.labels[:80], method)
        np.testing.assert_allclose(loaded[method], expected, rtol=1e-6)
        assert agreement_records(loaded[method], loaded[method], method)[0].value == pytest.approx(1)
        assert loaded[f"{method}/gini"].dtype == np.float64
        np.testing.assert_allclose(loaded[f"{method}/gini"], gini(expected))
    again = [(row.metric, row.value, row.n, row.low, row.high) for row in records_over(dict(loaded))]
    assert again == [(row.metric, row.value, row.n, row.low, row.high) for row in measured.records]


def test_gini_of_the_input_is_that_of_its_channels_together():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 3))
    images = torch.tensor([0.5, 0.0, 0.0, 0.0, 0.1, 0.2, 0.0, 0.0]).view(1, 2, 2, 2)
    found = measure_saliency(model, (images, torch.tensor([0])), methods=["gradient"], measures=["gini"])
    # 0.6, 0.2, 0, 0: half the mean absolute difference of all 16 pairs, over the mean.
    differences = 2 * (0.4 + 2 * 0.6 + 2 * 0.2) / 16
    assert rows(found)["input", "gini"].value == pytest.approx(differences / (2 * 0.2))


def test_logit_scale_changes_neither_gap_nor_gini_nor_steadiness(measured, digits, times):
    data = digits.images[:80], digits.labels[:80]
    loud = measure_saliency(times(digits.model, 100.0), data, methods=["gradient"], calibration=digits.calibration)
    for one, other in zip(loud.records, measured.records, strict=False):
        assert one.metric == other.metric
        assert one.value == pytest.approx(other.value, abs=1e-4)
    np.testing.assert_allclose(loud.arrays["confidence"], measured.arrays["confidence"], atol=1e-5)


def test_a_dead_network_has_no_saliency_and_says_so(digits):
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    truth = {"left": torch.arange(8).expand(20, 8, 8) < 4}
    data = digits.images[:20], digits.labels[:20]
    found = measure_saliency(model, data, methods=[*METHODS, "grad_cam"], truth=truth)
    of_maps = [row for row in found.records if row.attribution not in ("input", "uniform")]
    assert len(of_maps) == 4 * 7 + 1
    for record in of_maps:
        assert math.isnan(record.value)
        assert record.n == 0
        assert record.trust == ""
        assert "undefined for 20 of 20" in record.detail
    assert all(row.n == 20 for row in found.records if row.attribution in ("input", "uniform"))


def test_grad_cam_is_left_out_with_a_reason_where_there_is_no_map(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    data = digits.images[:5], digits.labels[:5]
    found = measure_saliency(model, data, methods=["grad_cam", "gradient"], measures=["gini"])
    assert set(found.arrays) >= {"gradient", "gradient/gini"}
    assert not any("grad_cam" in name for name in found.arrays)
    left_out = rows(found)["grad_cam", "gini"]
    assert math.isnan(left_out.value)
    assert left_out.n == 0
    assert left_out.detail.startswith("left out: method='grad_cam' needs a convolution")
    truth = {"left": torch.arange(8).expand(5, 8, 8) < 4}
    everything = measure_saliency(model, data, methods=["gradient", "grad_cam"], truth=truth)
    metrics = {
        method: {row.metric for row in everything.records if row.attribution == method}
        for method in ("gradient", "grad_cam")
    }
    assert metrics["grad_cam"] == metrics["gradient"]
    assert len(metrics["gradient"]) == 7
    only = measure_saliency(digits.model, data, methods=["grad_cam"], measures=["gini"])
    assert rows(only)["grad_cam", "gini"].n == 5


def test_localisation_where_the_truth_is_known(digits):
    left = torch.arange(8).expand(40, 8, 8) < 4
    none = torch.zeros(40, 8, 8, dtype=torch.bool)
    some = none.clone()
    some[:10, 2:4, 2:4] = True
    settings = {"methods": ["gradient"], "measures": ["localisation"], "truth": {"left": left, "spot": some}}
    found = measure_saliency(digits.model, (digits.images[:40], digits.labels[:40]), **settings)
    maps, row = found.arrays["gradient"], rows(found)
    assert row["gradient", "localisation_rank_left"].value == pytest.approx(rank_accuracy(maps, left).mean())
    assert row["gradient", "localisation_mass_left"].value == pytest.approx(mass_accuracy(maps, left).mean())
    assert row["uniform", "localisation_chance_left"].value == 0.5
    assert (row["uniform", "localisation_chance_spot"].value, row["uniform", "localisation_chance_spot"].n) == (
        pytest.approx(4 / 64),
        10,
    )
    assert "true pixels: spot; undefined for 30 of 40" in row["gradient", "localisation_mass_spot"].detail
    assert row["input", "localisation_mass_left"].value == pytest.approx(
        mass_accuracy(digits.images[:40, 0], left).mean()
    )
    with pytest.raises(SparsityError, match=r"truth\['left'\] have shape"):
        measure_saliency(digits.model, (digits.images, digits.labels), **settings)


def test_rows_over_the_images_that_all_models_have_right(measured, digits):
    worse = copy.deepcopy(digits.model)
    with torch.no_grad():
        worse[4].weight[:24] = 0
    data = digits.images[:80], digits.labels[:80]
    other = measure_saliency(worse, data, methods=["gradient"], measures=CHEAP, calibration=digits.calibration)
    several = [measured.arrays, other.arrays]
    keep = same_images(several)
    right = [(arrays["prediction"] == arrays["labels"]) for arrays in several]
    assert keep.tolist() == [bool(a and b) for a, b in zip(*right, strict=True)]
    assert 10 < keep.sum() < right[0].sum()
    found = records_over(measured.arrays, keep, models=2)
    assert [row.metric for row in found] == [row.metric for row in measured.records]
    for row in found:
        values = measured.arrays[f"{row.attribution}/{row.metric}"][keep]
        assert (row.value, row.low, row.high) == mean_interval(values)
        assert f"images right for all 2 models: {keep.sum()} of 80" in row.detail
    nothing = records_over(measured.arrays, np.zeros(80, dtype=bool), models=2)
    assert all(math.isnan(row.value) and row.n == 0 for row in nothing)


def test_models_measured_on_other_images_are_not_compared(measured):
    shuffled = {**measured.arrays, "labels": measured.arrays["labels"][::-1]}
    with pytest.raises(SparsityError, match="labels of model 1"):
        same_images([measured.arrays, shuffled])
    with pytest.raises(SparsityError, match="at least one"):
        same_images([])
    with pytest.raises(SparsityError, match="not booleans"):
        records_over(measured.arrays, np.ones(80))


def test_a_loader_under_inference_mode_with_a_bar_leaves_no_trace(digits, capfd):
    digits.model.train()
    before = copy.deepcopy(digits.model.state_dict())
    random = torch.random.get_rng_state()
    loader = [(digits.images[i : i + 8], digits.labels[i : i + 8]) for i in (0, 8)]
    with torch.inference_mode():
        found = measure_saliency(digits.model, loader, methods=["gradient", "smoothgrad", "grad_cam"], progress=True)
    assert len(found.arrays["labels"]) == 16
    assert "saliency" in capfd.readouterr().err
    assert all(module.training for module in digits.model.modules())
    assert torch.equal(random, torch.random.get_rng_state())
    for name, value in digits.model.state_dict().items():
        assert torch.equal(value, before[name])
    tensors = measure_saliency(
        digits.model, (digits.images[:16], digits.labels[:16]), methods=["gradient", "smoothgrad", "grad_cam"]
    )
    for name, array in tensors.arrays.items():
        np.testing.assert_array_equal(array, found.arrays[name])


def test_wrong_settings_are_refused(digits):
    data = digits.images, digits.labels
    with pytest.raises(SparsityError, match="methods='gradient'"):
        measure_saliency(digits.model, data, methods="gradient")
    with pytest.raises(SparsityError, match="did you mean 'grad_cam'"):
        measure_saliency(digits.model, data, methods=["gradcam"])
    with pytest.raises(SparsityError, match="measures='gin' does not exist"):
        measure_saliency(digits.model, data, measures=["gin"])
    with pytest.raises(SparsityError, match="images / 255"):
        measure_saliency(digits.model, data, calibration=(digits.images * 255, digits.labels))
