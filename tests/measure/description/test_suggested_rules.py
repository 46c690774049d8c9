"""Suggested rules: by hand, and written down, read again and trained with."""

import copy
import random

import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import OmegaConf
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_sparse
from advised import call_in
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.description.layer_sensitivity import measure_sensitivity_of_layers
from lightning_sparse.measure.description.suggested_rules import suggest_layer_rules
from lightning_sparse.models.classifier import Classifier
from lightning_sparse.results.records import Measured, Record


def measured(losses, sizes, accuracy=0.9, n=900):
    """Rows of {layer: {sparsity: loss}} and {layer: connections}."""
    rows = [Record("sensitivity_accuracy", accuracy, n, condition="no layer 0")]
    for layer, theirs in losses.items():
        rows += [
            Record("sensitivity_accuracy_change", -loss, n, condition=f"{layer} {sparsity:.6g}")
            for sparsity, loss in theirs.items()
        ]
    return Measured(rows + [Record("sensitivity_connections", size, 0, condition=name) for name, size in sizes.items()])


LOSSES = {
    "a.weight": {0.5: 0.0, 0.9: 0.004, 0.99: 0.009},
    "b.weight": {0.5: -0.01, 0.9: 0.01, 0.99: 0.02},  # pruned by half it is better, and exactly 0.01 is borne
    "c.weight": {0.5: 0.02, 0.9: 0.0, 0.99: 0.0},  # what it gains later is chance
    "all layers": {0.5: 0.5, 0.9: 0.7, 0.99: 0.9},  # not what is asked
}
SIZES = {"a.weight": 1000, "b.weight": 400, "c.weight": 100}


@pytest.mark.parametrize(
    ("tolerance", "bears"),
    [
        (0.01, (0.99, 0.9, 0.0)),
        (0.005, (0.9, 0.5, 0.0)),
        (0.02, (0.99, 0.99, 0.99)),
        ("1se", (0.99, 0.9, 0.0)),  # sqrt(0.9 * 0.1 / 900) is 0.01
        (0, (0.5, 0.5, 0.0)),
    ],
)
def test_by_hand(tolerance, bears):
    found = suggest_layer_rules(measured(LOSSES, SIZES), tolerance)
    assert tuple(found.bears.values()) == bears
    a, b, c = (round(share * size) for share, size in zip(bears, SIZES.values(), strict=True))
    assert round(found.sparsity * 1500) == a + b + c
    # What has no rule bears one sparsity, so that sharing evenly gives it that.
    shares = {"a.weight": bears[0], "b.weight": bears[1], "c.weight": bears[2]}
    assert set(found.rules.sparsity.items()) <= set(shares.items())
    assert len({share for name, share in shares.items() if name not in found.rules.sparsity}) == 1
    assert found.rules.base == "uniform"


@pytest.mark.parametrize("tolerance", [0.01, 0.005, 0.02])
def test_masks_give_each_layer_what_it_bears(tolerance):
    found = suggest_layer_rules(measured(LOSSES, SIZES), tolerance)
    masks = lightning_sparse.allocate(
        {name: torch.randn(size // 10, 10) for name, size in SIZES.items()}, found.sparsity, found.rules
    )
    for name, mask in masks.items():
        assert 1 - float(mask.float().mean()) == pytest.approx(found.bears[name], abs=1.5 / SIZES[name])


def test_random_tables_give_rules_that_can_be_met():
    draw = random.Random(0)
    for _ in range(300):
        sizes = {f"layer{i}.weight": 10 * draw.randint(1, 300) for i in range(draw.randint(1, 8))}
        losses = {name: {s: draw.random() / 30 for s in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)} for name in sizes}
        try:
            found = suggest_layer_rules(measured(losses, sizes), 0.02)
        except SparsityError as error:
            assert "no layer bears the lowest" in str(error)  # noqa: PT017
            continue
        weights = {name: torch.randn(size // 10, 10) for name, size in sizes.items()}
        masks = lightning_sparse.allocate(weights, found.sparsity, found.rules)
        dead = sum(int((~mask).sum()) for mask in masks.values())
        assert dead == round(found.sparsity * sum(sizes.values()))
        for name, mask in masks.items():
            assert abs(int((~mask).sum()) - found.bears[name] * sizes[name]) <= len(sizes) + 1


def names():
    return {name: getattr(lightning_sparse, name) for name in ("GradualPruning", "LayerRules")}


@pytest.mark.parametrize("tolerance", [0.01, 0.02])
def test_both_texts_are_the_same_callback(tolerance):
    found = suggest_layer_rules(
        measured(LOSSES | {"odd[1].weight": {0.5: 0.1}}, SIZES | {"odd[1].weight": 50}), tolerance
    )
    written = eval(found.python, names())
    configured = instantiate(OmegaConf.create(found.yaml))
    direct = lightning_sparse.GradualPruning(found.sparsity, allocation=found.rules)
    assert written.recipe == configured.recipe == direct.recipe
    assert written.recipe.allocation == found.rules
    assert found.rules.sparsity["odd[[]1].weight"] == 0.0


def test_a_training_with_the_text(digits):
    """From the measurement of a dense network to the masks of a sparse one of the same names."""
    dense = Classifier(digits.model, mean=[0.0], std=[1.0])
    losses = measure_sensitivity_of_layers(dense, digits.calibration, sparsities=[0.5, 0.8, 0.9, 0.95])
    found = suggest_layer_rules(losses, 0.05)
    assert len(set(found.bears.values())) > 1
    callback = eval(found.python, names())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    loader = DataLoader(TensorDataset(digits.images, digits.labels), 50)
    Trainer(max_epochs=4, callbacks=[callback], accelerator="cpu", **quiet).fit(copy.deepcopy(dense).train(), loader)
    for name, mask in callback.masks.items():
        assert 1 - float(mask.float().mean()) == pytest.approx(found.bears[name], abs=1.5 / mask.numel())


def test_one_layer_alone_needs_no_rule():
    found = suggest_layer_rules(measured({"w": {0.5: 0.0, 0.9: 0.5}}, {"w": 10}))
    assert (found.python, found.sparsity) == ('GradualPruning(0.5, allocation=LayerRules("uniform"))', 0.5)
    assert "sparsity:" not in found.yaml.replace("final_sparsity:", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"measured": 3},
            r"measured=int holds no sensitivity of layers: write measured=measure_sensitivity_of_layers\(",
        ),
        ({"measured": Measured([])}, "measured=Measured holds no sensitivity of layers"),
        ({"measured": Measured(measured(LOSSES, {}).records)}, "measured holds no 'sensitivity_connections'"),
        ({"tolerance": "2se"}, "tolerance='2se' is no number: write a share such as 0.01, or '1se'"),
        ({"tolerance": 5}, r"tolerance=5 is not a share in \[0, 1\]: write 0.05 for 5 percent"),
        ({"tolerance": None}, "tolerance=None is not a number"),
    ],
)
def test_odd_arguments(arguments, message):
    with pytest.raises(SparsityError, match=message):
        suggest_layer_rules(**{"measured": measured(LOSSES, SIZES)} | arguments)


def test_what_the_messages_say_works():
    frail = measured({"a": {0.5: 0.0301}, "b": {0.5: 0.2}}, {"a": 10, "b": 10})
    with pytest.raises(SparsityError, match=r"the least loss is 0\.0301: write tolerance=0\.031") as error:
        suggest_layer_rules(frail, 0.01)
    tolerance = float(str(error.value).split("write tolerance=")[1].split(",")[0])
    assert suggest_layer_rules(frail, tolerance).bears == {"a": 0.5, "b": 0.0}
    with pytest.raises(SparsityError) as error:
        suggest_layer_rules(Measured([]))
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    scope = {
        "measure_sensitivity_of_layers": measure_sensitivity_of_layers,
        "model": net,
        "images": torch.rand(4, 1, 2, 2),
        "labels": torch.tensor([0, 1, 0, 1]),
    }
    assert suggest_layer_rules(eval(call_in(error, "measure_sensitivity_of_layers("), scope), 1.0)
    lost = Measured([row for row in measured(LOSSES, SIZES).records if row.condition != "no layer 0"])
    with pytest.raises(SparsityError, match=r"write tolerance=0\.01"):
        suggest_layer_rules(lost, "1se")
    assert suggest_layer_rules(lost, tolerance=0.01)
