"""Predictability as a sweep measures it, and networks of which a few weights were trained, from the command to the rows."""

import json

import pytest
import torch
from hydra import compose, initialize_config_module
from torch import nn

from lightning_sparse.app import hydra_parts  # registers the resolvers
from lightning_sparse.app.measuring.measurements import measurements_of
from lightning_sparse.app.measuring.predictability import PREDICTABILITY
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.settings.check import check_settings
from lightning_sparse.app.settings.normal import normal
from lightning_sparse.data.images import ImageData
from lightning_sparse.errors import SparsityError

SETTINGS = {"images": 40, "train_images": 100, "shares": [0.1, 0.5], "seed": 0}


def checked(changes, *overrides):
    """A configuration as the command line composes it, with some settings changed, checked."""
    with initialize_config_module("lightning_sparse.conf", version_base="1.3"):
        config = hydra_parts.plain(compose("config", overrides=list(overrides)))
    config["predictability"] |= changes
    written = normal(config)
    check_settings(written)
    return written


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))


def test_rows_of_a_trained_model():
    torch.manual_seed(0)
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4])
    trained = Trained(net(), None, data, torch.device("cpu"), untrained=net)
    ((key, found),) = PREDICTABILITY.measure(trained, SETTINGS, None, {"key"})
    assert key == "key"
    kinds = ("", " random", " zeros", " low rank", " untrained")
    explained = {row.condition: row for row in found.records if row.metric == "predictability_explained"}
    assert set(explained) == {f"1.weight {share}{how}" for share in (0.1, 0.5) for how in kinds}
    assert all(row.n == 40 and "100 training images" in row.detail for row in explained.values())


def test_it_is_off_unless_asked_for():
    def kinds(config):
        return {measurement.kind.name for measurement in measurements_of(config)}

    assert "predictability" not in kinds(checked({}))
    assert "predictability" in kinds(checked({}, "predictability=default"))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("shares", 0.1, r"write predictability.shares=\[0.05,0.25\]"),
        ("shares", [0], r"write predictability.shares=\[0.05,0.25\]"),
        ("shares", [5], "write 0.05 for 5 percent"),
        ("images", -1, "write 1000"),
        ("train_images", 0, "write 2000"),
        ("sares", [0.1], "shares"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name, value, message):
    with pytest.raises(SparsityError, match=message) as error:
        checked({name: value}, "predictability=default")
    assert "predictability." in str(error.value)


def test_the_command_trains_a_few_weights_and_measures_how_many(command, tmp_path):
    off = [f"{group}=none" for group in ("attack", "saliency", "stability", "transfer", "cost", "logger")]
    asked = [*off, "sparsity=predict_weights", "sparsity.final_sparsity=0.9", "trainer.max_epochs=1"]
    for images in (50, 60):  # the second is measured of the network on disk
        done = command(*asked, "predictability=default", f"predictability.images={images}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    (file,) = tmp_path.rglob("predict_weights-0.9-*/records.jsonl")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [row for row in rows if row.get("metric", "").startswith("predictability")]
    assert {row["sparsity"] for row in rows} == {1 - (300 * 6 + 100 * 30) / (300 * 64 + 100 * 300)}
    assert {row["n"] for row in rows if row["condition"] == "net.1.weight 0.05 untrained"} == {50, 60}
