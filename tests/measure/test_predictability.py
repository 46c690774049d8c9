"""Predictability against numbers worked out by hand, and against the same written anew in numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.measure import measure_predictability
from lightning_sparse.measure.predictability.dictionary import RIDGE, chosen_coordinates, dictionary
from lightning_sparse.measure.predictability.layer_inputs import inputs_of, matrix_of


def network(inputs, units=6, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, units), nn.ReLU(), nn.Linear(units, 3))


def flat(rows):
    """Images whose pixels are these rows, and labels."""
    return rows.view(len(rows), 1, 1, -1), torch.arange(len(rows)) % 3


def value(found, condition, metric="predictability_explained"):
    (row,) = [row for row in found.records if (row.metric, row.condition) == (metric, condition)]
    return row.value


def corners(inputs):
    """Every image of zeros and ones: independent pixels, of variance 1/4."""
    return torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * inputs)


def test_of_independent_inputs_nothing_is_predicted():
    net = network(8)
    net[1].weight.data = torch.arange(1.0, 9).repeat(6, 1)
    found = measure_predictability(net, flat(corners(8)), [0.25])
    # Variances are equal, so the first two are chosen. M = 1/4 I + 1/4: w' M w = (sum of squares + square of the sum) / 4.
    missing, whole = [3.0, 4, 5, 6, 7, 8], [1.0, 2, 3, 4, 5, 6, 7, 8]
    squares = [sum(x * x for x in w) + sum(w) ** 2 for w in (missing, whole)]
    assert value(found, "1.weight 0.25") == pytest.approx(1 - squares[0] / squares[1])
    assert value(found, "1.weight 0.25 zeros") == value(found, "1.weight 0.25")


def test_of_independent_centred_inputs_the_chosen_share_is_explained():
    """With M proportional to the identity, the share of the squared weights at the chosen coordinates."""
    weight = torch.arange(1.0, 9).repeat(6, 1)
    covariance = torch.eye(8).double()
    chosen = chosen_coordinates(covariance, 2)
    missing = weight.double() - weight.double()[:, chosen] @ dictionary(covariance, chosen)
    assert chosen.tolist() == [0, 1]
    assert missing.square().sum() / weight.square().sum() == pytest.approx(1 - (1 + 4) / 204)


def test_inputs_that_are_one_number_are_predicted_from_one_weight():
    torch.manual_seed(0)
    net, scales = network(4), torch.tensor([0.2, 1.0, 0.5, 0.7])
    net[1].weight.data = torch.randn(6, 1) * scales  # as the inputs' covariance says: alike where they vary alike
    found = measure_predictability(net, flat(torch.rand(60, 1) * scales), [0.25])
    assert value(found, "1.weight 0.25") == pytest.approx(1, abs=1e-5)
    accuracies = {row.condition: row.value for row in found.records if row.metric == "predictability_accuracy"}
    assert accuracies["1.weight 0.25"] == accuracies["all layers 0.25"] > 0


def test_a_dead_input_is_not_counted_and_never_chosen():
    rows = torch.rand(150, 10)
    rows[:, :6] = 0.7  # constant, and not zero
    found = measure_predictability(network(10), flat(rows), [0.5])
    assert value(found, "1.weight", "predictability_living_inputs") == 4
    covariance = inputs_of(nn.Sequential(net := nn.Linear(10, 1)), {"0": net}, rows)["0"].covariance[0]
    assert covariance[:6].count_nonzero() == 0
    assert set(chosen_coordinates(covariance, 2).tolist()) <= {6, 7, 8, 9}


def by_numpy(weight, rows, share):
    """The same, written anew: each next coordinate by solving for all variances left, and two ways to take the trace."""
    weight, rows = np.float64(weight), np.float64(rows)
    kernel, chosen = np.cov(rows.T, bias=True), []
    for _ in range(max(1, round(share * int((kernel.diagonal() > 0).sum())))):
        left = kernel.diagonal().copy()
        if chosen:
            inner = np.linalg.pinv(kernel[np.ix_(chosen, chosen)])
            left -= np.einsum("ia,ab,bi->i", kernel[:, chosen], inner, kernel[chosen])
            left[chosen] = -1
        chosen.append(int(left.argmax()))
    ridge = RIDGE * kernel.diagonal()[kernel.diagonal() > 0].mean()
    inner = kernel[np.ix_(chosen, chosen)] + ridge * np.eye(len(chosen))
    predicted = weight[:, chosen] @ np.linalg.inv(inner) @ kernel[chosen]
    predicted[:, chosen] = weight[:, chosen]
    return 1 - np.square(rows @ (weight - predicted).T).mean() / np.square(rows @ weight.T).mean(), predicted


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_the_same_in_numpy(share):
    torch.manual_seed(3)
    net, rows = network(20, 12), (torch.rand(200, 5) @ torch.rand(5, 20) / 5 + 0.1 * torch.rand(200, 20)).clamp(0, 1)
    found = measure_predictability(net, flat(rows), [share], batch_size=64)
    expected, predicted = by_numpy(net[1].weight.detach(), rows, share)
    assert value(found, f"1.weight {share:g}") == pytest.approx(expected, abs=1e-6)
    net[1].weight.data = torch.tensor(predicted).float()
    images, labels = flat(rows)
    right = (net(images).argmax(1) == labels).float().mean()
    assert value(found, f"1.weight {share:g}", "predictability_accuracy") == pytest.approx(float(right))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect"])
def test_a_convolution_is_a_matrix_of_its_patches(groups, padding_mode):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, padding=1, stride=2, groups=groups, bias=False, padding_mode=padding_mode)
    images = torch.rand(5, 4, 8, 8)
    inputs = inputs_of(nn.Sequential(conv), {"0": conv}, images)["0"]
    weight = matrix_of(conv, conv.weight).double()
    assert float(((weight @ inputs.moment) * weight).sum()) == pytest.approx(
        float(conv(images).detach().square().mean() * 6)
    )


def test_a_low_rank_is_the_best_there_is_of_as_many_numbers():
    torch.manual_seed(1)
    net, rows = network(30, 30), torch.rand(300, 30)
    found = measure_predictability(net, flat(rows), [0.5])  # 15 * 30 numbers: rank 7 of 60 each
    outputs = rows @ net[1].weight.detach().T
    values = torch.linalg.svdvals(outputs.double())
    best = float(values[:7].square().sum() / values.square().sum())
    assert value(found, "1.weight 0.5 low rank") == pytest.approx(best)
    assert value(found, "1.weight 0.5 low rank") > value(found, "1.weight 0.5")


def test_the_untrained_network_and_training_images():
    torch.manual_seed(0)
    net, other = network(16), network(16, seed=5)
    train, test = flat(torch.rand(100, 16)), flat(torch.rand(40, 16))
    found = measure_predictability(net, test, [0.25], train_data=train, untrained=other)
    alone = measure_predictability(other, test, [0.25], train_data=train)
    assert value(found, "1.weight 0.25 untrained") == value(alone, "1.weight 0.25")
    assert value(found, "1.weight 0.25") != value(measure_predictability(net, test, [0.25]), "1.weight 0.25")
    assert found.records[0].metric == "predictability_mean"
    assert found.records[0].value == value(found, "1.weight 0.25")


def test_nothing_is_changed_and_the_output_layer_is_left_out():
    net = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(256, 20, bias=False), nn.ReLU(), nn.Linear(20, 3)),
    )
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    data = torch.rand(30, 1, 8, 8), torch.arange(30) % 3
    first, again = (measure_predictability(net, data) for _ in range(2))
    assert repr(first.records) == repr(again.records)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    layers = [row.condition for row in first.records if row.metric == "predictability_living_inputs"]
    assert layers == ["0.weight", "4.weight"]
    assert net.training
    assert not net[0]._forward_hooks


def test_a_layer_without_a_living_input():
    found = measure_predictability(network(6), flat(torch.full((20, 6), 0.5)))
    assert value(found, "1.weight", "predictability_living_inputs") == 0
    assert value(found, "1.weight 0.05 random") == 0
    assert -10 < value(found, "1.weight 0.05") < 1  # one weight, by which nothing is known of the others


def test_a_layer_that_computes_nothing_is_not_explained():
    net = network(6)
    net[1].weight.data.zero_()
    assert np.isnan(value(measure_predictability(net, flat(torch.rand(20, 6))), "1.weight 0.05"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"shares": 0.05}, r"write shares=\[0.05\]"),
        ({"shares": [5]}, "write 0.05 for 5 percent"),
        ({"shares": [0, 0.1]}, r"write shares=\[0.05\]"),
        ({"shares": []}, r"write shares=\[0.05\]"),
        ({"seed": -1}, "write 0"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(6, 3))}, "a network with a hidden layer"),
        ({"untrained": network(6, 7)}, "build the same architecture anew"),
        ({"train_data": torch.rand(3, 1, 1, 6)}, "train_data"),
    ],
)
def test_refused(arguments, words):
    with pytest.raises(SparsityError, match=words):
        measure_predictability(**({"model": network(6), "data": flat(torch.rand(12, 6))} | arguments))
