"""One door: every form is timed beside dense, and what is returned gives the same outputs and is not slower."""

import pytest
import torch
from torch import nn

from lightning_sparse import SparsityError
from lightning_sparse.export import finalise
from lightning_sparse.models import lenet_300_100


def pruned(share=0.9, seed=0):
    """LeNet-300-100 on 28 x 28, most of whose units carry nothing."""
    torch.manual_seed(seed)
    net = lenet_300_100((1, 28, 28), 10)
    with torch.no_grad():
        for layer in [module for module in net.modules() if isinstance(module, nn.Linear)][:-1]:
            gone = torch.rand(layer.out_features) < share
            layer.weight[gone], layer.bias[gone] = 0.0, 0.0
    return net


def masks_of(net):
    return {name: weight != 0 for name, weight in net.named_parameters() if weight.dim() > 1}


def test_the_fastest_is_returned_with_its_table_and_the_same_outputs():
    net, images = pruned(), torch.rand(64, 1, 28, 28)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    found = finalise(net, masks_of(net), images, seconds=0.3)
    assert "shrunk" in found.form  # a tenth of the units
    assert found.speedups[found.form] == max(found.speedups.values()) > 1
    assert found.speedups["dense"] == 1
    (line,) = [line for line in found.table().splitlines() if line.endswith("chosen")]
    assert line.startswith(found.form)
    fresh = torch.rand(200, 1, 28, 28)
    assert torch.allclose(found.model(fresh), net.eval()(fresh), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("form", ["dense", "shrunk", "sparse", "shrunk and sparse"])
def test_a_form_can_be_asked_for(form):
    net, images = pruned(), torch.rand(4, 1, 28, 28)
    found = finalise(net, None, images, form, seconds=0.05)
    assert found.form == form
    assert set(found.speedups) == {"dense", form}
    assert torch.allclose(found.model(images), net(images), rtol=1e-4, atol=1e-5)


def test_a_dense_network_stays_dense_where_nothing_is_faster():
    found = finalise(
        nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), None, torch.rand(8, 64), seconds=0.3
    )
    assert all(value <= 1 + 2 * abs(found.noise - 1) + 0.1 for value in found.speedups.values())


def test_what_cannot_be_made_is_named_and_the_others_are_timed():
    class Concrete(nn.Module):
        """Its forward pass knows the size of its layer."""

        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 2)
            nn.init.zeros_(self.first.weight[:3])

        def forward(self, x):
            return self.second(torch.relu(self.first(x)).view(-1, 6))

    net = Concrete()
    found = finalise(net, None, torch.rand(4, 8), seconds=0.05)
    assert {"dense", "sparse"} <= set(found.speedups)
    assert set(found.speedups) | set(found.failed) == {"dense", "shrunk", "sparse", "shrunk and sparse"}
    assert torch.allclose(found.model(torch.ones(4, 8)), net(torch.ones(4, 8)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"to": "fast"}, "to='fast'"),
        ({"seconds": 0}, "seconds=0 is not a number above 0"),
        ({"example": torch.tensor(1.0)}, "is not a batch"),
        ({"masks": {"1.weight": torch.zeros(300, 784, dtype=torch.bool)}}, r"masks.apply\(\)"),
    ],
)
def test_odd_arguments_are_refused_before_work(arguments, says):
    with pytest.raises(SparsityError, match=says):
        finalise(**{"model": pruned(), "masks": None, "example": torch.rand(2, 1, 28, 28)} | arguments)
