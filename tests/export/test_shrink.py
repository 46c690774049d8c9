"""What carries nothing is removed, and the outputs stay: networks worked out by hand."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from export.smaller_network import assert_same, zero
from lightning_sparse.export import shrink

pytest.importorskip("torch_pruning")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize(("activation", "value"), [(nn.ReLU, 3.0), (nn.GELU, float(gelu(torch.tensor(3.0))))])
def test_a_dead_unit_with_a_bias_goes_into_the_bias_of_its_reader(activation, value):
    net = nn.Sequential(nn.Linear(4, 3), activation(), nn.Linear(3, 2))
    zero(net[0].weight[1])
    net[0].bias.data[1] = 3.0
    small = shrink(net, torch.rand(5, 4)).model
    assert (small[0].out_features, small[2].in_features) == (2, 2)
    torch.testing.assert_close(small[2].bias, net[2].bias + value * net[2].weight[:, 1])
    torch.testing.assert_close(small[2].weight, net[2].weight[:, [0, 2]])
    assert_same(net, small, torch.rand(5, 4))


def test_a_reader_without_a_bias_is_given_one_that_is_as_frozen_as_its_weight():
    for required in (True, False):
        net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2, bias=False)).requires_grad_(required)
        zero(net[0].weight[1])
        small = shrink(net, torch.rand(5, 4)).model
        torch.testing.assert_close(small[1].bias.data, net[0].bias[1].item() * net[1].weight[:, 1].data)
        assert [parameter.requires_grad for parameter in small.parameters()] == [required] * 4


@pytest.mark.parametrize(("bias", "channels"), [(0.5, 4), (0.0, 3)])
def test_a_padded_convolution_keeps_a_constant_that_is_not_zero(bias, channels):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    zero(net[0].weight[2])
    net[0].bias.data[2] = bias
    shrunk = shrink(net, torch.rand(2, 1, 6, 6))
    assert shrunk.model[0].out_channels == channels
    why = "1 of 4 channels are dead and stay: constants other than 0 cannot be folded into '2' (its padding is 0)"
    assert dict(shrunk.left) == ({"0": why} if bias else {})


def test_without_fold_only_zeros_go():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight[:2], net[0].bias[0])
    net[0].bias.data[1] = 1.0
    shrunk = shrink(net, torch.rand(5, 4), fold=False)
    assert shrunk.model[0].out_features == 2
    assert shrunk.left["0"].endswith("constants other than 0 cannot be folded into '2' (fold=False)")
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 1


def test_constants_of_a_flattened_map_differ_from_place_to_place_and_are_folded_each():
    net = nn.Sequential(
        nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Flatten(), nn.Linear(48, 2)
    ).double()
    zero(net[0].weight, net[2].weight[0])
    net[0].bias.data.fill_(1.0)  # the second convolution gives less at its borders
    shrunk = shrink(net, torch.rand(2, 1, 4, 4, dtype=torch.float64))
    assert shrunk.model[4].in_features == 16
    assert "one has to" in shrunk.left["2"]
    assert_same(net, shrunk.model, torch.rand(2, 1, 4, 4, dtype=torch.float64))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.inner, self.outer, self.last = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.outer(torch.relu(self.inner(x))))


def test_a_sum_keeps_a_slot_until_all_that_write_it_are_dead():
    net = Residual()
    zero(net.first.weight[2])
    assert shrink(net, torch.rand(5, 4)).model.first.out_features == 4
    zero(net.outer.weight[2])
    small = shrink(net, torch.rand(5, 4)).model
    assert (small.first.out_features, small.outer.out_features, small.inner.in_features) == (3, 3, 3)
    assert_same(net, small, torch.rand(5, 4))


def test_what_only_unread_units_read_is_unread():
    net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 2))
    zero(net[4].weight[:, :4], net[2].weight[4:, :3])  # units 0 to 2 of the first layer lead to unread ones only
    small = shrink(net, torch.rand(5, 4)).model
    assert [tuple(small[i].weight.shape) for i in (0, 2, 4)] == [(2, 4), (2, 2), (2, 2)]


class AroundDepthwise(nn.Module):
    def __init__(self, around):
        super().__init__()
        self.first, self.deep = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.last, self.around = nn.Conv2d(4, 2, 1), around

    def forward(self, x):
        x = torch.relu(self.first(x) - 3)
        return self.last(x * self.around + self.deep(x))


@pytest.mark.parametrize(("around", "channels"), [(1, 4), (0, 2)])
def test_a_depthwise_kernel_of_zeros_silences_a_channel_only_if_there_is_no_way_around(around, channels):
    net, example = AroundDepthwise(around), torch.zeros(1, 3, 4, 4)
    zero(net.deep.weight[:2])  # and ReLU lets nothing through on this example, or on noise like it
    assert shrink(net, example).model.first.out_channels == channels


def test_a_norm_whose_weight_is_zero_silences_a_channel():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    zero(net[1].weight[1])
    net[1].bias.data[1] = 2.0
    small = shrink(net, torch.rand(1, 3, 4, 4)).model
    assert small[1].num_features == 3
    assert_same(net, small, torch.rand(1, 3, 4, 4))


class Mixing(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.first, self.last, self.mix = nn.Linear(4, 4), nn.Linear(4, 2), mix

    def forward(self, x):
        return self.last(self.mix(self.first(x)))


@pytest.mark.parametrize("mix", [lambda x: x.softmax(-1), lambda x: x * x.amax(1, keepdim=True), nn.LayerNorm(4)])
def test_what_is_unread_stays_where_channels_mix(mix):
    net = Mixing(mix)
    zero(net.last.weight[:, 0])
    net.first.bias.data[0] = -50.0  # softmax makes so little of it that the outputs hardly change
    shrunk = shrink(net, torch.rand(5, 4))
    assert shrunk.model.first.out_features == 4


def test_grouped_convolutions_keep_as_many_channels_in_every_group():
    net = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1))
    zero(
        net[0].weight[:3], net[0].bias[:3], net[0].weight[5], net[0].bias[5]
    )  # three of the first group, one of the second
    shrunk = shrink(net, torch.rand(1, 2, 4, 4))
    assert (shrunk.model[1].in_channels, shrunk.model[1].groups) == (6, 2)
    assert shrunk.left["0"] == "2 of 8 channels are dead and stay: every group of '1' has to keep as many"
    assert_same(net, shrunk.model, torch.rand(1, 2, 4, 4))


def test_one_unit_stays_of_a_layer_that_is_dead():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    zero(net[0].weight)
    shrunk = shrink(net, torch.rand(5, 4))
    assert shrunk.model[0].out_features == 1
    assert shrunk.left["0"] == "1 of 3 channels are dead and stay: one has to"


def test_an_output_keeps_its_number():
    net = nn.Linear(4, 3)
    zero(net.weight[0])
    assert shrink(nn.Sequential(net), torch.rand(5, 4)).left["0"].endswith("reads it: it is an output")


def test_a_layer_that_is_called_twice_keeps_what_either_call_needs():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), shared, nn.ReLU(), shared, nn.Linear(4, 2))
    zero(net[0].weight[1])
    assert shrink(net, torch.rand(5, 4)).model[0].out_features == 4
    zero(shared.weight[1], shared.bias[1], net[0].bias[1])
    small = shrink(net, torch.rand(5, 4)).model
    assert small[2] is small[4]
    assert tuple(small[2].weight.shape) == (3, 3)
    assert_same(net, small, torch.rand(5, 4))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_inputs_of_an_lstm_go(bidirectional):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 6)
            self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=bidirectional)

        def forward(self, x):
            return self.lstm(self.first(x))[0]

    net = Recurrent()
    zero(net.first.weight[:4])
    small = shrink(net, torch.rand(2, 7, 4)).model
    assert (small.lstm.input_size, small.first.out_features) == (2, 2)
    assert_same(net, small, torch.rand(2, 7, 4))
