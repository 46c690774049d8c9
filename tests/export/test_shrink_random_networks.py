"""Networks at random lose what is dead, their outputs stay, and the model is untouched."""

import copy
import io
import pickle
import random

import pytest
import torch

from export.random_networks import Net, kill
from export.smaller_network import assert_same, parameters
from lightning_sparse.export import shrink

pytest.importorskip("torch_pruning")


def state(model):
    return {
        "tensors": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "needs": [parameter.requires_grad for parameter in model.parameters()],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()],
        "grad": [parameter.grad for parameter in model.parameters()],
        "random": (torch.get_rng_state(), random.getstate()),
    }


def assert_untouched(before, after):
    assert before["tensors"].keys() == after["tensors"].keys()
    assert all(torch.equal(tensor, after["tensors"][name]) for name, tensor in before["tensors"].items())
    assert torch.equal(before["random"][0], after["random"][0])
    assert before["random"][1] == after["random"][1]
    assert all(before[key] == after[key] for key in ("modes", "needs", "hooks", "grad"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch: a hook of its own in InstanceNorm of one place
@pytest.mark.parametrize("seed", range(200))
def test_outputs_of_random_networks_stay_and_the_model_is_untouched(seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    net = Net(draw)
    kill(net, draw, draw.choice([0.0, 0.3, 0.6, 0.9]))
    net.train(draw.random() < 0.5)
    next(net.parameters()).requires_grad_(draw.random() < 0.5)
    example = torch.randn(2, 3, 8, 8)
    before = state(net)
    shrunk = shrink(net, example)
    assert_untouched(before, state(net))
    small = shrunk.model
    assert [module.training for module in small.modules()] == before["modes"]
    assert parameters(small) <= parameters(net) + sum(layer.after[0] for layer in shrunk.layers)  # with new biases
    assert_same(net, small, example)
    shrunk.table()

    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    copy.deepcopy(small).load_state_dict(torch.load(file))
    assert_same(small, pickle.loads(pickle.dumps(small)), example)
    optimizer = torch.optim.SGD(small.parameters(), 0.1)
    small.train()(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in small.parameters())


def test_random_networks_lose_what_is_dead():
    """The property holds for a shrink that removes nothing, too."""
    shares = []
    for seed in range(20):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        net = Net(draw)
        kill(net, draw, 0.6)
        shares.append(parameters(shrink(net, torch.randn(2, 3, 8, 8)).model) / parameters(net))
    assert sum(shares) / len(shares) < 0.6
