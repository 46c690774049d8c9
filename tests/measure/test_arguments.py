"""Arguments of the wrong kind are refused by name before any work, whatever function they are given to."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError, measure

IMAGES, LABELS = torch.rand(12, 1, 6, 6), torch.arange(12) % 3
DATA, MAPS = (IMAGES, LABELS), torch.rand(12, 6, 6)
SEEDED = {
    measure.recalibrate_batchnorm: {"data": DATA},
    measure.measure_description_length: {"train_data": DATA},
    measure.measure_saliency: {"data": DATA},
    measure.measure_robustness: {"data": DATA, "eps": [0.1]},
    measure.craft: {"data": DATA, "eps": 0.1},
    measure.measure_transfer: {"data": DATA, "eps": 0.1, "sources": {"itself": IMAGES}},
    measure.measure_corruptions: {"data": DATA},
    measure.measure_hessian: {"data": DATA},
    measure.measure_jacobian: {"data": DATA},
    measure.measure_shift_consistency: {"data": DATA},
    measure.measure_sensitivity_of_layers: {"data": DATA},
}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


@pytest.mark.parametrize("function", SEEDED, ids=lambda function: function.__name__)
@pytest.mark.parametrize("seed", ["a", -1, 1.5, True])
def test_a_seed_is_an_integer(function, seed, net):
    with pytest.raises(SparsityError, match=f"seed={seed!r} is not an integer in"):
        function(model=net, **SEEDED[function], seed=seed)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (3, r"masks=3 are not masks by parameter name: write masks=\{'0.weight': weight != 0\}"),
        (torch.ones(3), "masks=Tensor are not masks by parameter name"),
        ({"a": torch.ones(3)}, r"masks\['a'\] is of no parameter: give masks by the names .* such as '0.weight'"),
        ({"0.weight": None}, r"masks\['0.weight'\] is a NoneType: give torch.bool \(3, 1, 3, 3\)"),
        ({"0.weight": torch.ones(3, 1, 3, 3)}, r"masks\['0.weight'\] is torch.float32 \(3, 1, 3, 3\): give torch.bool"),
        ({"0.weight": torch.ones(2, dtype=torch.bool)}, r"is torch.bool \(2,\): give torch.bool \(3, 1, 3, 3\)"),
    ],
)
def test_masks_of_weights(masks, message, net):
    for function in (measure.measure_cost, measure.measure_description_length, measure.measure_hessian):
        with pytest.raises(SparsityError, match=message):
            function(net, DATA, masks=masks)
    with pytest.raises(SparsityError, match=message):
        measure.storage_formats(net, masks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": None}, r"eps=None is not a list of radii: write eps=\[2 / 255"),
        ({"eps": []}, r"eps=\[\] is not a list of radii"),
        ({"eps": "0.1"}, "eps='0.1' is not a list of radii"),
        ({"eps": [float("nan")]}, "eps=nan is not in"),
        ({"eps": [-1]}, "eps=-1 is not in"),
        ({"attacks": "pgd"}, r"attacks='pgd' is not a list of names: write attacks=\['pgd'\]"),
        ({"attacks": 3}, "attacks=3 is not a list of names"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"known": {}}, "known=dict is not what measure_robustness returned"),
        ({"tier": None}, "tier=None does not exist"),
    ],
)
def test_what_attacks_are_asked_for(arguments, message, net):
    with pytest.raises(SparsityError, match=message):
        measure.measure_robustness(net, DATA, **{"eps": [0.1]} | arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: measure.gini("a"), r"maps is a str, not numbers of shape \(n, H, W\)"),
        (lambda net: measure.gini(MAPS[0]), r"maps has shape \(6, 6\), not \(n, H, W\)"),
        (lambda net: measure.mass_accuracy(MAPS, None), "masks are a NoneType, not booleans"),
        (lambda net: measure.records_over({}), "arrays is dict without labels"),
        (lambda net: measure.same_images(3), "several=int are not the arrays of several models"),
        (lambda net: measure.agreement_records(MAPS, MAPS, "gradient", keep=[0]), "keep is a list, not booleans"),
        (lambda net: measure.vog_overlap("a", [True]), "vog is a str, not numbers"),
        (lambda net: measure.class_normalised(["x"], [0]), "scores is a list, not numbers"),
        (lambda net: measure.measure_forgotten(None, None, [0]), "sparse_predictions is a NoneType"),
        (lambda net: measure.fit_temperature(np.ones((2, 2)), LABELS[:2]), r"write torch.as_tensor\(logits\)"),
        (lambda net: measure.fit_temperature(torch.ones(2, 2), torch.tensor([0, 2])), "labels lie in"),
        (lambda net: measure.measure_saliency(net, DATA, truth=3), "truth=int is not masks by name"),
        (lambda net: measure.measure_saliency(net, DATA, truth={"a": None}), r"truth\['a'\] are a NoneType"),
        (lambda net: measure.measure_saliency(net, DATA, calibration=3), "calibration is a int"),
        (lambda net: measure.measure_shortcut(net, DATA), "data holds a tuple: give a dict of aligned"),
        (lambda net: measure.measure_corruptions(net, DATA, severities=None), "severities=None are not from"),
        (lambda net: measure.corrupt(IMAGES.numpy(), "blur", 1), r"write torch.as_tensor\(images\)"),
        (lambda net: measure.pgd(net, IMAGES * 2, LABELS, eps=0.1), "images lie in"),
        (lambda net: measure.pgd(net, IMAGES, LABELS, eps=0.1, start=3), r"start=int \(\) is not like the images"),
        (lambda net: measure.ATTACKS["pgd"](None, IMAGES, LABELS, eps=0.1), "model=NoneType is not a torch"),
        (lambda net: measure.check_images(IMAGES, LABELS, classes="a"), "classes='a' is not an integer"),
        (lambda net: measure.has_batchnorm(3), "model=int is not a torch"),
        (lambda net: measure.GradientVariance(batch_size=0), "batch_size=0"),
        (lambda net: measure.measure_accuracy(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), DATA), "has lazy layers"),
    ],
)
def test_anything_else(call, message, net):
    with pytest.raises(SparsityError, match=message):
        call(net)


def test_lists_and_arrays_are_taken_where_numbers_are():
    assert measure.class_normalised([1.0, 3.0], [0, 0]).tolist() == [-1.0, 1.0]
    assert measure.gini(MAPS.numpy()).tolist() == measure.gini(MAPS).tolist()
    assert measure.vog_overlap(list(range(20)), np.arange(20) >= 18).value == 1.0
