"""A layer that rewrites its weight is refused in the first batch, in a Trainer and in a plain loop."""

import re

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from timm.layers import StdConv2d
from torch import nn
from torch.nn.functional import cross_entropy, linear

import settings
from lightning_sparse import GradualPruning, SparsityError, attach


class Scaled(nn.Linear):
    """A layer with an equalised learning rate, and a norm of its own."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.norm = nn.BatchNorm1d(sizes[1])

    def forward(self, x):
        return self.norm(linear(x, self.weight * 0.3, self.bias))


def standardised():
    convs = [nn.Unflatten(1, (1, 8, 8)), StdConv2d(1, 4, 3), nn.ReLU(), StdConv2d(4, 4, 3), nn.Flatten()]
    return nn.Sequential(*convs, nn.Linear(256, 10))


def scaled():
    return nn.Sequential(Scaled(64, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 10))


class Net(LightningModule):
    def __init__(self, make, manual=False):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.losses = make(), []
        self.automatic_optimization = not manual

    def training_step(self, batch, batch_idx):
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.losses.append(loss.item())
        if not self.automatic_optimization:
            self.optimizers().zero_grad()
            self.manual_backward(loss)
            self.optimizers().step()
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def fit(module, callbacks, **arguments):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, accelerator="cpu", callbacks=callbacks, **quiet, **arguments)
    trainer.fit(module, settings.batches())
    return module


def watched(model):
    return [module for module in model.modules() if "forward" in vars(module)]


ADVICE = "Leave such layers out with exclude=['net.1.weight', 'net.3.weight']"


@pytest.mark.parametrize(
    "arguments", [{}, {"accumulate_grad_batches": 2}, {"manual": True}, {"strategy": "ddp"}], ids=str
)
def test_a_trainer_refuses_it_in_the_first_batch(arguments):
    by_hand = arguments.pop("manual", False)
    module = Net(standardised, by_hand)
    if "strategy" in arguments:
        arguments["devices"] = 1
    with pytest.raises(
        SparsityError, match="'net.1.weight' is rewritten by the forward of StdConv2d.*" + re.escape(ADVICE)
    ):
        fit(module, [GradualPruning(0.9, total_steps=10 if by_hand else None)], **arguments)
    assert module.losses == []
    assert not watched(module.net)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # Lightning leaves it to the end of the process


def test_the_advice_trains():
    callback = GradualPruning(0.9, exclude=["net.1.weight", "net.3.weight"])
    module = fit(Net(standardised), [callback])
    assert callback.sparsity == 0.9
    assert int((module.net[5].weight == 0).sum()) == round(0.9 * 2560)


@pytest.mark.parametrize("dense", [True, False])
def test_layers_that_keep_zeros_train_bit_for_bit_as_without_a_watch(dense, monkeypatch):
    callback = GradualPruning(0.0 if dense else 0.9)
    module = fit(Net(scaled), [callback])
    assert not watched(module)
    if not dense:
        monkeypatch.setattr("lightning_sparse.engine.engine.watch_for_rewriting", lambda model, targets: [])
    unwatched = fit(Net(scaled), [] if dense else [GradualPruning(0.9)])
    assert module.losses == unwatched.losses
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, unwatched.state_dict()[name]), name


def test_a_plain_loop_refuses_it_and_detach_leaves_nothing():
    for step in (True, False):
        model = standardised()
        engine = attach(torch.optim.SGD(model.parameters(), 0.1), model, GradualPruning(0.9), total_steps=10)
        assert watched(model) == [model[1], model[3]]
        if step:
            with pytest.raises(SparsityError, match=r"'1.weight' is rewritten by the forward of StdConv2d"):
                model(torch.rand(2, 64))
        engine.detach()
        assert not watched(model)


def test_nothing_is_left_where_training_stops_before_the_layer_is_reached():
    class Fails(Net):
        def training_step(self, batch, batch_idx):
            assert watched(self) == [self.net[0]]
            raise RuntimeError("no batch")

    module = Fails(scaled)
    with pytest.raises(RuntimeError, match="no batch"):
        fit(module, [GradualPruning(0.9)])
    assert not watched(module)
