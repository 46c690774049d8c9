"""What state a model is in when it is measured."""

import pytest
import torch

from lightning_sparse.app.measuring.clean import CLEAN
from lightning_sparse.app.measuring.measure_job import prepare
from lightning_sparse.app.measuring.measurements import Measurement
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.data.images import ImageData


def test_recalibrated_batchnorm_is_measured_and_said():
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10))
    trained = Trained(model, None, data, torch.device("cpu"))
    images = data.split("train")[0]
    assert prepare(trained, [Measurement(CLEAN, {}, "clean-a")]) == "BatchNorm as trained"
    assert (model[0].running_mean.item(), model[0].running_var.item()) == (0.0, 1.0)
    said = prepare(trained, [Measurement(CLEAN, {"batchnorm": "recalibrated"}, "clean-b")])
    assert model[0].running_mean.item() == pytest.approx(images.mean().item(), rel=1e-3)
    assert said == f"BatchNorm statistics estimated anew on {len(images)} training images"
    without = Trained(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), None, data, torch.device("cpu"))
    assert prepare(without, []) == ""
