import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.anatomy.layer_order import LayerOrder, layer_order
from lightning_sparse.models.networks import lenet_300_100, resnet18, resnet20, small_cnn


class Net(nn.Module):
    """Layers a to e of 8 units, joined as a function says."""

    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.join = join
        self.norm = nn.BatchNorm1d(8)
        self.layer_norm = nn.LayerNorm(8)

    def forward(self, x):
        return self.join(self, x)


def read(net, x, loss=torch.sum):
    with CallRecorder(net) as recorder:
        losses = loss(net(x))
        losses = [losses] if isinstance(losses, torch.Tensor) else losses
        for one in losses:  # afterwards, as a Trainer's batch has ended
            one.backward(retain_graph=True)
        return layer_order(net, recorder.calls, losses)


def plain(net, x):
    return net.c(torch.tanh(net.norm(net.b(F.dropout(F.relu(net.a(x)))))))


def residual(net, x):
    x = net.a(x)
    return net.c(x + torch.relu(net.b(x)))


def residual_of_data(net, x):
    return net.c(torch.relu(net.b(net.a(x) + x)))


def two_heads(net, x):
    x = torch.relu(net.a(x))
    return net.b(x) + net.c(x)


def auxiliary_loss(net, x):
    hidden = net.a(x)
    return net.c(net.b(hidden)).sum() + hidden.square().sum()


def normed(net, x):
    return net.c(net.b(net.layer_norm(net.a(x))))


def gated(net, x):
    return net.c(net.a(x) * torch.sigmoid(net.b(x)))


def side_by_side(net, x):
    return net.c(torch.cat([net.a(x)[:, :4], net.b(x)[:, 4:]], 1))


def detached(net, x):
    return net.c(torch.relu(net.b(net.a(x).detach())))


def twice_in_a_row(net, x):
    return net.c(net.b(torch.relu(net.b(net.a(x)))))


def two_passes(net, x):
    return plain(net, x) + plain(net, -x)


def of_data_and_of_a_layer(net, x):
    return net.c(net.b(x)) + net.c(net.b(torch.relu(net.a(x))))


def by_keyword(net, x):
    return net.c(torch.relu(net.b(input=torch.relu(net.a(x)))))


def read_twice_by_keyword(net, x):
    hidden = torch.relu(net.a(x))
    return net.b(hidden) + net.c(input=hidden)


def recomputed(net, x):
    return net.c(checkpoint(lambda x: torch.relu(net.b(x)), net.a(x), use_reentrant=True))


def transposed_flat(net, x):
    return net.c(net.b(net.a(x).view(-1, 2, 4).transpose(1, 2).reshape(-1, 8)))


def within_autocast(net, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.c(torch.relu(net.b(torch.relu(net.a(x))))).float()


@pytest.mark.parametrize(
    ("join", "chains", "outputs"),
    [
        (plain, [("a", "b", "c")], ["c"]),
        (two_passes, [("a", "b", "c")], ["c"]),
        (within_autocast, [("a", "b", "c")], ["c"]),
        (residual, [], ["c"]),
        (residual_of_data, [("b", "c")], ["c"]),
        (two_heads, [], ["b", "c"]),
        (auxiliary_loss, [("b", "c")], ["c"]),
        (normed, [("b", "c")], ["c"]),
        (gated, [], ["c"]),
        (side_by_side, [], ["c"]),
        (detached, [("b", "c")], ["c"]),
        (twice_in_a_row, [], ["c"]),
        (of_data_and_of_a_layer, [("b", "c")], ["c"]),
        (by_keyword, [("b", "c")], ["c"]),
        (read_twice_by_keyword, [], ["b", "c"]),
        (recomputed, [], ["c"]),
        (transposed_flat, [("b", "c")], ["c"]),
    ],
)
def test_only_what_is_certain_is_a_chain(join, chains, outputs):
    found = read(Net(join), torch.rand(4, 8))
    assert found.chains == tuple(tuple(f"{name}.weight" for name in chain) for chain in chains)
    assert sorted(found.outputs) == [f"{name}.weight" for name in outputs]


def test_a_layer_that_a_second_loss_reads_too_ends_the_chain():
    net = Net(lambda net, x: (net.b(net.a(x)), net.c(net.a(x))))
    # what reads a layer counts even before its own loss is known
    assert read(net, torch.rand(4, 8), lambda pair: [pair[0].sum()]) == LayerOrder((), ("b.weight",))
    both = read(net, torch.rand(4, 8), lambda pair: [pair[0].sum(), pair[1].square().sum()])
    assert both == LayerOrder((), ("b.weight", "c.weight"))


def test_the_reference_networks():
    assert read(lenet_300_100((1, 8, 8), 10), torch.rand(2, 1, 8, 8)).chains == (("1.weight", "3.weight", "5.weight"),)
    names = tuple(f"{number}.weight" for number in (0, 3, 7, 9))
    assert read(small_cnn((1, 8, 8), 10), torch.rand(2, 1, 8, 8)) == LayerOrder((names,), ("9.weight",))


def test_residual_networks_have_chains_inside_their_blocks():
    pytest.importorskip("torchvision")
    for net, blocks in ((resnet20((3, 8, 8), 10), 9), (resnet18((3, 8, 8), 10), 8)):
        found = read(net, torch.rand(2, 3, 8, 8))
        assert len(found.chains) == blocks
        assert all(one.endswith("conv1.weight") and two == one.replace("conv1", "conv2") for one, two in found.chains)
        assert found.outputs == (list(net.state_dict())[-2],)


def test_a_reshape_to_other_units_is_not_a_chain():
    images = nn.Sequential(
        nn.Linear(4, 2 * 9), nn.Unflatten(1, (2, 3, 3)), nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 2)
    )
    assert read(images, torch.rand(5, 4)).chains == (("2.weight", "4.weight"),)
    tokens = nn.Sequential(nn.Linear(4, 6), nn.Flatten(), nn.Linear(30, 2))  # five positions of six units
    assert read(tokens, torch.rand(3, 5, 4)).chains == ()


def test_without_a_loss_nothing_is_certain():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with CallRecorder(net) as recorder:
        net(torch.rand(2, 4))
    assert layer_order(net, recorder.calls, []) == LayerOrder()


def test_a_tied_weight_is_not_a_chain():
    embed, body = nn.Embedding(9, 4), nn.Linear(4, 4)
    head = nn.Linear(4, 9, bias=False)
    head.weight = embed.weight
    found = read(nn.Sequential(embed, body, head), torch.randint(0, 9, (2, 3)))
    assert found == LayerOrder((), ("0.weight",))
