"""The sensitivity of layers: by hand, and equal to pruning a copy with torch's own functions and measuring that."""

import copy
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.engine.update import allocate
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.accuracy import measure_accuracy
from lightning_sparse.measure.batchnorm import recalibrate_batchnorm
from lightning_sparse.measure.classifier import as_classifier
from lightning_sparse.measure.description.layer_sensitivity import measure_sensitivity_of_layers
from lightning_sparse.models.networks import resnet20


def rows(measured, metric):
    return {row.condition: row for row in measured.records if row.metric == f"sensitivity_{metric}"}


def values(measured, metric):
    return {condition: row.value for condition, row in rows(measured, metric).items()}


def some(n=12, shape=(1, 8, 8), classes=4):
    return torch.rand(n, *shape), torch.arange(n) % classes


def two_layers():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.1, 1.0, 0.1, 0.1]])
    net[2].weight.data = torch.tensor([[3.0, -1.0], [-1.0, 2.0]])
    return net


def loss(right, wrong):
    return -log(exp(right) / (exp(right) + exp(wrong)))


def test_two_layers_by_hand():
    data = torch.eye(4).view(4, 1, 2, 2)[:2].repeat(10, 1, 1, 1), torch.tensor([0, 1]).repeat(10)
    found = measure_sensitivity_of_layers(two_layers(), data, sparsities=[0.75])
    # Hidden units (1, 0.1) and (0.1, 1) of the two images; of six weights that die in the first layer all are 0.1, of three
    # in the second only the 3 lives.
    hidden = [(1, 0.1), (0.1, 1)]
    whole = [loss(3 * a - b, 2 * b - a) if i == 0 else loss(2 * b - a, 3 * a - b) for i, (a, b) in enumerate(hidden)]
    first = [loss(3, -1), loss(2, -1)]
    second = [loss(3.0, 0), loss(0, 0.3)]
    both = [loss(3, 0), loss(0, 0)]
    assert values(found, "accuracy") == {
        "no layer 0": 1.0,
        "1.weight 0.75": 1.0,
        "2.weight 0.75": 0.5,
        "all layers 0.75": 0.5,
    }
    expected = {"no layer 0": whole, "1.weight 0.75": first, "2.weight 0.75": second, "all layers 0.75": both}
    for condition, (a, b) in expected.items():
        assert values(found, "cross_entropy")[condition] == pytest.approx((a + b) / 2, rel=1e-6)
        if condition != "no layer 0":
            change = (a + b - sum(whole)) / 2
            row = rows(found, "cross_entropy_change")[condition]
            assert row.value == pytest.approx(change, rel=1e-5)
            # two values, each ten times among twenty
            half = 1.959964 * abs((a - whole[0]) - (b - whole[1])) / 2 * sqrt(20 / 19) / sqrt(20)
            assert (row.low, row.high) == (
                pytest.approx(change - half, rel=1e-4),
                pytest.approx(change + half, rel=1e-4),
            )
    row = rows(found, "accuracy_change")["2.weight 0.75"]
    # Bonett and Price: no image gained and ten lost, one more of each
    gained, lost = 1 / 22, 11 / 22
    half = 1.959964 * sqrt((gained + lost - (gained - lost) ** 2) / 22)
    assert (row.value, row.n) == (-0.5, 20)
    assert (row.low, row.high) == (pytest.approx(gained - lost - half), pytest.approx(gained - lost + half))
    assert rows(found, "accuracy_change")["1.weight 0.75"].value == 0.0
    assert values(found, "connections") == {"1.weight": 8, "2.weight": 4}
    assert found.arrays["right"].shape == found.arrays["cross_entropy"].shape == (20, 4)
    assert found.arrays["right"].mean(axis=0).tolist() == [1.0, 1.0, 0.5, 0.5]
    assert found.arrays["cross_entropy"][:2, 3].tolist() == pytest.approx(both)


UNSTRUCTURED = (prune.l1_unstructured, {})
CHANNELS = (prune.ln_structured, {"n": 1, "dim": 0})


@pytest.mark.parametrize(("granularity", "how"), [("weights", UNSTRUCTURED), ("channels", CHANNELS)])
@pytest.mark.parametrize("batch_size", [64, 150])
def test_equal_to_pruning_a_copy(digits, granularity, how, batch_size):
    data, (function, arguments) = (digits.images, digits.labels), how
    sparsities = [0.5, 0.7] if granularity == "channels" else [0.3, 0.85, 0.97]
    found = measure_sensitivity_of_layers(
        digits.model, data, sparsities=sparsities, granularity=granularity, batch_size=batch_size
    )
    whole, reference = measure_accuracy(digits.model, data).records
    layers = ["0.weight", "4.weight", "7.weight"]
    points = [("no layer 0", []), *((f"{name} {s}", [name]) for name in layers for s in sparsities)]
    points += [(f"all layers {s}", layers) for s in sparsities]
    assert list(rows(found, "accuracy")) == [condition for condition, _ in points]
    for place, (condition, names) in enumerate(points):
        pruned = copy.deepcopy(digits.model)
        for name in names:
            module = pruned.get_submodule(name.removesuffix(".weight"))
            units = module.weight.shape[0] if granularity == "channels" else module.weight.numel()
            function(module, "weight", amount=round(float(condition.split()[-1]) * units), **arguments)
            prune.remove(module, "weight")
        measured = measure_accuracy(pruned, data)
        accuracy, entropy = measured.records
        row = rows(found, "accuracy")[condition]
        assert (row.value, row.low, row.high, row.n) == (accuracy.value, accuracy.low, accuracy.high, accuracy.n)
        assert rows(found, "cross_entropy")[condition].value == pytest.approx(entropy.value, rel=1e-6)
        right = measured.arrays["prediction"] == measured.arrays["labels"]
        assert np.array_equal(found.arrays["right"][:, place], right)
        if names:
            change = values(found, "accuracy_change")[condition]
            assert change == pytest.approx(accuracy.value - whole.value, abs=1e-12)
            change = values(found, "cross_entropy_change")[condition]
            assert change == pytest.approx(entropy.value - reference.value, abs=1e-6)
    # not all is the same
    assert len(set(values(found, "accuracy").values())) > 3


@pytest.mark.parametrize("train_data", [None, some(16)], ids=["as trained", "anew"])
def test_a_residual_network_is_equal_to_masking_a_copy(train_data):
    torch.manual_seed(0)
    net, data = resnet20((1, 8, 8), 4), some()
    recalibrate_batchnorm(net, data)
    found = measure_sensitivity_of_layers(net, data, sparsities=[0.6], batch_size=5, train_data=train_data)
    differ = 0
    for name, weight in [*sparsifiable(net).items(), ("all layers", None)]:
        pruned = copy.deepcopy(net)
        weights = sparsifiable(pruned)
        for each in weights if weight is None else [name]:
            weights[each].data.mul_(allocate({each: weights[each]}, 0.6)[each])
        if train_data is not None:
            recalibrate_batchnorm(pruned, train_data)
        entropy = measure_accuracy(pruned, data, batch_size=5).records[1].value
        assert values(found, "cross_entropy")[f"{name} 0.6"] == pytest.approx(entropy, rel=1e-6)
        differ += entropy != values(found, "cross_entropy")["no layer 0"]
    assert differ == 23


def test_batchnorm_is_estimated_anew_if_training_images_are_given(digits):
    data, train = (digits.images, digits.labels), digits.calibration
    found = measure_sensitivity_of_layers(digits.model, data, sparsities=[0.8], train_data=train)
    plain = measure_sensitivity_of_layers(digits.model, data, sparsities=[0.8])
    for condition, name in (("no layer 0", None), ("0.weight 0.8", "0.weight"), ("7.weight 0.8", "7.weight")):
        pruned = copy.deepcopy(digits.model)
        if name:
            pruned.get_parameter(name).data.mul_(allocate({name: pruned.get_parameter(name)}, 0.8)[name])
        assert recalibrate_batchnorm(pruned, train)
        entropy = measure_accuracy(pruned, data).records[1].value
        assert values(found, "cross_entropy")[condition] == pytest.approx(entropy, rel=1e-5)
    assert values(found, "cross_entropy") != values(plain, "cross_entropy")
    assert "BatchNorm statistics estimated anew on 250 training images" in found.records[0].detail
    assert "BatchNorm as trained" in plain.records[0].detail
    without = measure_sensitivity_of_layers(two_layers(), some(4, (1, 2, 2), 2), train_data=some(4, (1, 2, 2), 2))
    assert "no BatchNorm" in without.records[0].detail


def test_zeros_die_first_and_cost_no_pass():
    net, calls = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Linear(10, 4)), []
    net[1].weight.data[:8] = 0.0
    counted = as_classifier(net, forward=lambda model, x: calls.append(len(x)) or model(x))
    found = measure_sensitivity_of_layers(counted, some(), sparsities=[0.4, 0.8, 0.9], include=["1.weight"])
    assert (
        values(found, "accuracy_change")["1.weight 0.8"] == values(found, "cross_entropy_change")["1.weight 0.8"] == 0.0
    )
    assert values(found, "cross_entropy_change")["1.weight 0.9"] != 0.0
    assert calls == [12] * 3  # the network as it is, the layer at 0.9, and all layers, which is the same one


@pytest.mark.parametrize("granularity", ["weights", "channels"])
def test_a_layer_keeps_something(granularity):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3, bias=False), nn.Linear(3, 2, bias=False))
    found = measure_sensitivity_of_layers(net, some(classes=2), sparsities=[0.99], granularity=granularity)
    achieved = {"weights": "0.833333", "channels": "0.5"}[granularity]
    detail = rows(found, "accuracy")["2.weight 0.99"].detail
    assert f"2.weight pruned alone by magnitude to {achieved}, not trained" in detail


def test_the_inputs_of_a_conv1d_come_first():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    net = nn.Sequential(nn.Flatten(), conv1d(4, 64))
    net[1].weight.data *= torch.tensor([1.0, 0.1, 1.0, 0.1])  # (inputs, outputs)
    images, labels = some()
    found = measure_sensitivity_of_layers(net, (images, labels), sparsities=[0.5], granularity="channels")
    net[1].weight.data[:, [1, 3]] = 0.0
    # The replayed batch lies otherwise in memory, and sums may round otherwise.
    expected = pytest.approx(measure_accuracy(net, (images, labels)).records[1].value, rel=1e-6)
    assert values(found, "cross_entropy")["1.weight 0.5"] == expected


def test_a_recurrent_network_is_measured_by_the_weights_that_are_named():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, images):
            return self.head(self.lstm(images[:, 0])[0][:, -1])

    net = Rows()
    assert set(values(measure_sensitivity_of_layers(net, some()), "connections")) == {"head.weight"}
    data = some()
    found = measure_sensitivity_of_layers(net, data, sparsities=[0.5], include=["lstm.weight*"])
    assert values(found, "connections") == {"lstm.weight_ih_l0": 256, "lstm.weight_hh_l0": 256}
    pruned = copy.deepcopy(net)
    weight = pruned.lstm.weight_hh_l0
    weight.data.mul_(allocate({"w": weight}, 0.5)["w"])
    entropy = measure_accuracy(pruned, data).records[1].value
    assert values(found, "cross_entropy")["lstm.weight_hh_l0 0.5"] == entropy


def test_a_bar_is_shown_if_asked_for_and_nothing_else(capsys):
    measure_sensitivity_of_layers(two_layers(), some(4, (1, 2, 2), 2), sparsities=[0.5])
    assert capsys.readouterr() == ("", "")
    measure_sensitivity_of_layers(two_layers(), some(4, (1, 2, 2), 2), sparsities=[0.5], batch_size=2, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "layers" in err
    assert "/8" in err  # two batches, four networks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsities": 0.9}, r"sparsities=0.9 is not a list of shares in \(0, 1\): write sparsities=\[0.9\]"),
        ({"sparsities": []}, r"write sparsities=\[0.9\]"),
        ({"sparsities": [90]}, r"sparsities\[0\]=90 is not a share in \[0, 1\): write 0.9 for 90 percent"),
        ({"sparsities": [0.5, 1.0]}, r"sparsities\[1\]=1.0"),
        ({"sparsities": [0.0, 0.5]}, "hold 0, the network as it is, which is measured in any case: leave it out"),
        ({"granularity": "rows"}, "granularity='rows' does not exist"),
        ({"granularity": "2:4"}, "ask for at most 0.5"),
        ({"granularity": "5x5"}, "leave them out with exclude="),
        ({"include": ["head"]}, "include pattern 'head' matches no parameter"),
        ({"batch_size": 0}, "batch_size=0 is not an integer of at least 1: write 128"),
        ({"train_data": 3}, "train_data is a int, not images and labels"),
        ({"data": (torch.rand(2, 1, 2, 2), torch.tensor([0, 7]))}, "labels reach 7, but the model has 2 classes"),
        ({"data": (torch.rand(2, 1, 2, 2) * 2, torch.tensor([0, 1]))}, "images lie in"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Softmax(1))}, "the model gives probabilities"),
        ({"model": 3}, "model=int is not a torch.nn.Module"),
    ],
)
def test_odd_arguments(arguments, message):
    right = {"model": two_layers(), "data": some(2, (1, 2, 2), 2)}
    with pytest.raises(SparsityError, match=message):
        measure_sensitivity_of_layers(**right | arguments)


def test_what_the_messages_say_works():
    def measure(**arguments):
        return measure_sensitivity_of_layers(two_layers(), some(2, (1, 2, 2), 2), **arguments)

    assert measure(sparsities=[0.9]).records
    assert measure(granularity="2:4", sparsities=[0.5], exclude=["2.weight"]).records
    assert measure(sparsities=np.array([0.5])).records  # as a list would
