"""Through a reentrant checkpoint, whose weights are not in the graph of the loss, scores are the same or refused."""

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_sparse import SNIP, GraSP, SparsityError
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.engine.scores.of_network import Network, grasp, looking_at, snip, synflow
from settings import Module, batches, exact, quiet

PLAIN, REENTRANT, WITHOUT = None, True, False


class Net(nn.Module):
    """An embedding, so that the first checkpoint's input has a gradient; ``twice`` is used inside and outside of one."""

    def __init__(self, mode):
        super().__init__()
        torch.manual_seed(1)
        self.mode, self.first = mode, nn.Linear(6, 6)
        self.inside, self.twice, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def through(self, layer, x):
        return layer(x) if self.mode is None else checkpoint(layer, x, use_reentrant=self.mode)

    def forward(self, x):
        x = self.through(self.inside, self.first(x).tanh()).tanh()
        return self.head(self.twice(self.through(self.twice, x).tanh()).tanh())


BATCHES = [(torch.randn(8, 6, generator=torch.Generator().manual_seed(s)), torch.arange(8) % 3) for s in range(2)]


def loss(net, batch):
    return F.cross_entropy(net(batch[0]), batch[1])


def scores(score, mode):
    net = Net(mode)
    with looking_at(net, sparsifiable(net), BATCHES, loss) as network:
        return score(network)


@pytest.mark.parametrize("mode", [REENTRANT, WITHOUT])
def test_snip_sees_through_it(mode):
    plain, through = scores(snip, PLAIN), scores(snip, mode)
    for name in plain:
        assert plain[name].any()
        torch.testing.assert_close(through[name], plain[name], rtol=1e-6, atol=1e-9)


def test_grasp_sees_through_the_one_and_refuses_the_other():
    plain, through = scores(grasp, PLAIN), scores(grasp, WITHOUT)
    for name in plain:
        torch.testing.assert_close(through[name], plain[name], rtol=1e-4, atol=1e-8)
    with pytest.raises(SparsityError, match=r"reentrant checkpoint.*use_reentrant=False"):
        scores(grasp, REENTRANT)


def test_synflow_refuses_it_even_in_the_first_layer():
    assert scores(synflow, PLAIN)["inside.weight"].all()
    with pytest.raises(SparsityError, match=r"synflow .* reentrant checkpoint: write .*use_reentrant=False"):
        scores(synflow, REENTRANT)

    class First(nn.Linear):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=True)

    net = nn.Sequential(First(6, 6), nn.Linear(6, 3))
    with looking_at(net, sparsifiable(net), BATCHES, loss) as network, pytest.raises(SparsityError, match="reentrant"):
        synflow(network)


def test_gradients_that_were_there_are_put_back():
    net = Net(REENTRANT)
    before = {}
    for name, parameter in net.named_parameters():
        if name != "first.bias":
            before[name] = parameter.grad = torch.full_like(parameter, 3.0)
    Network(net, sparsifiable(net), BATCHES, loss).gradient()
    for name, parameter in net.named_parameters():
        assert parameter.grad is before.get(name)
        assert parameter.grad is None or (parameter.grad == 3.0).all()


def test_what_would_step_in_the_backward_pass_is_refused():
    net, stepped = Net(REENTRANT), []
    net.inside.weight.register_post_accumulate_grad_hook(stepped.append)
    with pytest.raises(SparsityError, match=r"hooks of the parameters.*use_reentrant=False"):
        snip(Network(net, sparsifiable(net), BATCHES, loss))
    net.mode = WITHOUT
    assert snip(Network(net, sparsifiable(net), BATCHES, loss))["inside.weight"].any()
    assert not stepped


def test_where_ddp_has_hooks_it_is_refused(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        with pytest.raises(SparsityError, match=r"DDP.*use_reentrant=False"):
            scores(snip, REENTRANT)
        assert scores(snip, WITHOUT)["inside.weight"].any()
    finally:
        distributed.destroy_process_group()


class Trained(Module):
    def __init__(self, mode):
        super().__init__()
        self.mode = mode

    def forward(self, x):
        x = self.body[:3](x)
        return self.head(
            self.body[3:](x) if self.mode is None else checkpoint(self.body[3:], x, use_reentrant=self.mode)
        )


def masks_of(method, mode):
    callback = method(0.9)
    quiet(callback, max_epochs=1).fit(Trained(mode), batches())
    assert exact(callback.masks, 0.9)
    return callback.masks.checksum()


def test_a_trainer_gets_the_masks_of_the_network_without_checkpoints():
    assert masks_of(SNIP, PLAIN) == masks_of(SNIP, REENTRANT) == masks_of(SNIP, WITHOUT)
    with pytest.raises(SparsityError, match="use_reentrant=False"):
        masks_of(GraSP, REENTRANT)
    assert masks_of(GraSP, PLAIN) == masks_of(GraSP, WITHOUT)
