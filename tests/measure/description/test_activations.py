"""What layers read, counted by loops."""

import math

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.ephemeral import Selection, winners
from lightning_sparse.measure import measure_activations, measure_cost

LABELS = torch.zeros(12, dtype=torch.long)


def rows(net, images, **more):
    found = measure_activations(net, (images, LABELS), **more).records
    return {(row.metric, row.condition): row for row in found}


def h(p):
    return 0.0 if p in (0, 1) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def test_forced_and_natural_zeros_duties_and_joint_flops_of_linear_layers():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(9, 20), nn.ReLU(), nn.Linear(20, 5)).eval()
    with torch.no_grad():
        net[3].weight[torch.rand(5, 20) < 0.6] = 0
    images = torch.rand(12, 1, 3, 3)
    natural = net[:3](images)
    selection = Selection(net[3], "top_k", 1000)
    selection.eval_density.fill_(0.2)
    net[3].register_forward_pre_hook(selection)
    read = natural * winners(natural, 0.2)
    found = rows(net, images)
    name = "3.weight"
    assert found["activation_sparsity", name].value == pytest.approx(float((read == 0).float().mean()))
    assert found["activation_sparsity", name].value >= 0.8
    assert found["activation_sparsity_natural", name].value == pytest.approx(float((natural == 0).float().mean()))
    duty = [(read[:, unit] != 0).float().mean().item() for unit in range(20)]
    even = h(sum(duty) / 20)
    assert found["activation_duty_entropy", name].value == pytest.approx(sum(map(h, duty)) / 20 / even, abs=1e-6)
    assert found["activation_dead_units", name].value == sum(share == 0 for share in duty) / 20
    products = sum(
        2 * int((net[3].weight[out, unit] != 0) & (read[image, unit] != 0))
        for image in range(12)
        for out in range(5)
        for unit in range(20)
    )
    assert found["cost_flops_joint", name].value == pytest.approx(products / 12)
    assert found["cost_flops_joint", "1.weight"].value == pytest.approx(2 * 9 * 20)  # all pixels are positive
    assert found["cost_flops_joint", ""].value == pytest.approx(products / 12 + 360)
    assert len(net[3]._forward_pre_hooks) == 1  # and no trace is left


@pytest.mark.parametrize("groups", [1, 2])
def test_where_nothing_is_zero_joint_flops_are_those_of_the_living_weights(groups):
    torch.manual_seed(0)
    convs = [nn.Conv2d(2, 4, 3, groups=groups), nn.Sigmoid(), nn.ConvTranspose2d(4, 4, 2, groups=groups), nn.Sigmoid()]
    net = nn.Sequential(*convs, nn.Flatten(), nn.Linear(100, 3))
    masks = {name: torch.rand_like(w) < 0.3 for name, w in net.named_parameters() if w.dim() > 1}
    with torch.no_grad():
        for name, mask in masks.items():
            net.get_parameter(name)[~mask] = 0
    images = torch.rand(12, 2, 6, 6) + 0.001
    images = images.clamp(max=1)
    cost = {row.metric: row.value for row in measure_cost(net, (images, LABELS), masks=masks).records}
    assert rows(net, images, masks=masks)["cost_flops_joint", ""].value == pytest.approx(cost["cost_flops"])
    assert rows(net, images)["cost_flops_joint", ""].value == pytest.approx(cost["cost_flops"])


def test_in_a_grouped_convolution_an_idle_channel_takes_its_own_weights_along():
    net = nn.Sequential(nn.Conv2d(4, 2, 1, groups=2, bias=False), nn.Flatten())
    with torch.no_grad():
        net[0].weight[0, 1] = 0  # the second channel's only weight
    images = torch.ones(12, 4, 2, 2)
    images[:, 0] = 0
    # Of the four weights, one each for four channels: channel 0 is zero, the weight of channel 1 is dead.
    assert rows(net, images)["cost_flops_joint", ""].value == 2 * 2 * 4


def test_a_model_without_layers_is_refused():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(2, 2)

        def forward(self, x):
            return x.flatten(1)[:, :3]

    with pytest.raises(SparsityError, match="calls no Linear or Conv layer"):
        measure_activations(Sum(), (torch.rand(12, 1, 2, 2), LABELS))
