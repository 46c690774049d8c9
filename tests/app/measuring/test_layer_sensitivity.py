"""The sensitivity of layers as a sweep measures it: rows of a trained model, and settings that are refused."""

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from lightning_sparse.app import hydra_parts  # registers the resolvers
from lightning_sparse.app.measuring.layer_sensitivity import LAYER_SENSITIVITY
from lightning_sparse.app.measuring.measurements import measurements_of, try_measurements
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.settings.check import check_settings
from lightning_sparse.app.settings.normal import normal
from lightning_sparse.data.images import ImageData
from lightning_sparse.errors import SparsityError

SETTINGS = {"images": 40, "sparsities": [0.5, 0.9], "granularity": "weights", "seed": 0}


def checked(changes, *overrides):
    """A configuration as the command line composes it, with some settings changed, checked."""
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = hydra_parts.plain(compose("config", overrides=list(overrides)))
    config["layer_sensitivity"] |= changes
    written = normal(config)
    check_settings(written)
    return written


def trained():
    torch.manual_seed(0)
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))
    return Trained(net, None, data, torch.device("cpu"))


@pytest.mark.parametrize(
    ("settings", "words"),
    [({}, "BatchNorm as trained"), ({"batchnorm": "recalibrated"}, "estimated anew on 1000 training images")],
)
def test_rows_of_a_trained_model(settings, words):
    ((key, found),) = LAYER_SENSITIVITY.measure(trained(), SETTINGS | settings, None, {"key"})
    assert key == "key"
    conditions = [row.condition for row in found.records if row.metric == "sensitivity_accuracy"]
    names = ("0.weight", "3.weight", "all layers")
    assert conditions == ["no layer 0", *(f"{name} {share}" for name in names for share in (0.5, 0.9))]
    assert all(row.n == 40 and words in row.detail for row in found.records if row.n)
    assert found.arrays["right"].shape == (40, 7)


def test_it_is_off_unless_asked_for():
    def kinds(config):
        return {measurement.kind.name for measurement in measurements_of(config)}

    assert "layer_sensitivity" not in kinds(checked({}))
    assert "layer_sensitivity" in kinds(checked({}, "layer_sensitivity=default"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("sparsities", 0.5, r"write layer_sensitivity.sparsities=\[0.5,0.9\]"),
        ("sparsities", [50], "write 0.5 for 50 percent"),
        ("sparsities", [0.0], "which is measured in any case"),
        ("images", -1, "layer_sensitivity.images=-1"),
        ("granularity", None, "write layer_sensitivity.granularity=channels"),
        ("sparsity", [0.5], "did you mean layer_sensitivity.sparsities?"),
    ],
)
def test_odd_settings(name, value, message):
    with pytest.raises(SparsityError, match=message):
        checked({name: value}, "layer_sensitivity=default")


def test_what_cannot_be_measured_is_refused_before_the_training():
    config = checked({"granularity": "5x5"}, "layer_sensitivity=default", "attack=none", "saliency=none")
    measurements = [each for each in measurements_of(config) if each.kind is LAYER_SENSITIVITY]
    few = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    with pytest.raises(SparsityError, match=r"granularity='5x5' .* or write layer_sensitivity=none to leave"):
        try_measurements(measurements, trained().model, few)
