"""Jacobian norms against torch's own Jacobian, in closed form, and freed of the logits' scale."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.calibration import fit_temperature
from lightning_sparse.measure.stability.jacobian import measure_jacobian
from lightning_sparse.statistics.intervals import mean_interval

PLAIN, CALIBRATED = "curvature_jacobian_norm", "curvature_jacobian_norm_calibrated"


def values(measured):
    return {record.metric: record.value for record in measured.records}


def test_equals_the_full_jacobian_of_each_image(digits):
    found = measure_jacobian(digits.model, (digits.images, digits.labels), batch_size=64)
    model = digits.model.eval()
    full = [torch.autograd.functional.jacobian(lambda x: model(x[None])[0], image) for image in digits.images[:40]]
    expected = [jacobian.norm().item() for jacobian in full]
    assert found.arrays["jacobian_norm"][:40] == pytest.approx(expected, rel=1e-4)
    record = found.records[0]
    assert record.metric == PLAIN
    assert (record.value, record.low, record.high) == pytest.approx(mean_interval(found.arrays["jacobian_norm"]))


def test_of_a_linear_model_it_is_the_norm_of_the_weights_over_the_deviation_of_the_pixels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data = torch.tensor([[1.0, -2.0, 0.0, 2.0], [0.0, 4.0, 0.0, 0.0]])  # norm 5
    data = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    assert measure_jacobian(model, data).records[0].value == pytest.approx(5.0)
    assert measure_jacobian(as_classifier(model, mean=[0.5], std=[0.25]), data).records[0].value == pytest.approx(20.0)


@pytest.mark.parametrize("factor", [0.1, 100.0])
def test_logit_scale_moves_the_plain_norm_and_not_the_calibrated(digits, times, factor):
    data = (digits.images, digits.labels)
    plain, scaled = (
        values(measure_jacobian(times(digits.model, f), data, calibration=digits.calibration)) for f in (1.0, factor)
    )
    assert scaled[PLAIN] == pytest.approx(factor * plain[PLAIN], rel=1e-4)
    assert scaled[CALIBRATED] == pytest.approx(plain[CALIBRATED], rel=1e-4)


def test_the_temperature_is_that_of_the_calibration_images(digits):
    with torch.no_grad():
        temperature = fit_temperature(digits.model.eval()(digits.calibration[0]), digits.calibration[1])
    measured = measure_jacobian(digits.model, (digits.images, digits.labels), calibration=digits.calibration)
    found = values(measured)
    assert found[PLAIN] / found[CALIBRATED] == pytest.approx(temperature, rel=1e-5)
    assert f"temperature {temperature:.4g} fitted on 250 calibration images" in measured.records[1].detail


def test_a_dead_network_has_a_norm_of_zero_and_says_for_how_many(digits):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU(), nn.Linear(10, 10))
    for parameter in model.parameters():
        parameter.data.zero_()
    record = measure_jacobian(model, (digits.images[:6], digits.labels[:6])).records[0]
    assert record.value == 0
    assert "exactly 0 for 6 of 6 images" in record.detail


def test_models_that_write_into_their_input_and_compiled_ones():
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    data = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    before = data[0].clone()
    plain = measure_jacobian(nn.Sequential(nn.ReLU(), nn.Flatten(), linear), data)
    inplace = measure_jacobian(nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), linear), data)
    compiled = torch.compile(nn.Sequential(nn.ReLU(), nn.Flatten(), linear), backend="aot_eager")
    assert values(inplace) == values(plain)
    assert values(measure_jacobian(compiled, data)) == values(plain)
    assert torch.equal(data[0], before)


def test_inference_mode_changes_nothing_and_no_trace_is_left(digits):
    model = digits.model.train()
    waiting = torch.ones_like(model[0].weight)
    model[0].weight.grad = waiting
    plain = measure_jacobian(model, (digits.images, digits.labels))
    with torch.inference_mode():
        inside = measure_jacobian(model, (digits.images.clone(), digits.labels.clone()))
    assert values(inside) == values(plain)
    assert np.array_equal(inside.arrays["jacobian_norm"], plain.arrays["jacobian_norm"])
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model[0].weight.grad is waiting
    assert bool((waiting == 1).all())
    model[0].weight.grad = None


@pytest.mark.parametrize(
    "forward",
    [
        lambda model, x: model(x).detach(),
        lambda model, x: model(x.detach()) + nn.Parameter(torch.zeros(3)),
    ],
)
def test_logits_without_a_gradient_are_no_flat_model(forward):
    classifier = as_classifier(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), forward=forward)
    with pytest.raises(SparsityError, match="no gradient in the pixels"):
        measure_jacobian(classifier, (torch.rand(2, 1, 2, 2), torch.tensor([0, 1])))
