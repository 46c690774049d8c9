"""SynFlow and modules without ``forward``, as in Lightning's own examples."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_sparse import SNIP, OneShot, SparsityError, SynFlow, attach
from settings import batches, exact, quiet


class NoForward(LightningModule):
    started = False

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))

    def on_fit_start(self):
        self.started = True

    def training_step(self, batch, index):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class WithForward(NoForward):
    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("callback", [SynFlow(0.9), OneShot(0.9, criterion="synflow")])
def test_synflow_says_what_it_needs_before_training(callback):
    module = NoForward()
    with pytest.raises(SparsityError, match=r"NoForward has no forward: define forward\(self, x\).*SNIP and GraSP"):
        quiet(callback, max_epochs=1).fit(module, batches())
    assert not module.started
    for module, advised in ((WithForward(), callback), (NoForward(), SNIP(0.9))):
        quiet(advised, max_epochs=1).fit(module, batches())
        assert exact(advised.masks, 0.9)


def test_a_forward_that_the_instance_has():
    module = NoForward()
    module.forward = module.net.forward
    callback = SynFlow(0.9)
    quiet(callback, max_epochs=1).fit(module, batches())
    assert exact(callback.masks, 0.9)


def test_attach_says_it_too():
    net = nn.ModuleList([nn.Linear(4, 2)])
    with pytest.raises(SparsityError, match="ModuleList has no forward"):
        attach(torch.optim.SGD(net.parameters(), 0.1), net, SynFlow(0.5), batches=[torch.ones(1, 4)])
