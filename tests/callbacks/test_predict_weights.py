"""Layers are W = V U while they train, and ordinary ones afterwards; checkpoints hold whole weights at any time."""

import copy
import pickle

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import settings
from lightning_sparse import GradualPruning, PredictWeights, SparsityError, SparsityMonitor


def fit(*callbacks, model=None, epochs=3, **resume):
    model = model or settings.Module()
    trainer = settings.quiet(*callbacks, max_epochs=epochs)
    trainer.fit(model, settings.batches(shuffle=True, generator=torch.Generator().manual_seed(0)), **resume)
    return model, trainer


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])


class Watch(Callback):
    """What an optimizer trains, and what a state dict holds, while the training runs."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 3:
            self.trained = [p.shape for group in trainer.optimizers[0].param_groups for p in group["params"]]
            self.state = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
            self.weight = pl_module.body[0].weight.detach().clone()


def test_a_few_weights_of_every_unit_are_trained_and_the_layers_end_as_ordinary_ones():
    callback, watch, plain = PredictWeights(0.9), Watch(), settings.Module()
    model, _ = fit(callback, watch, SparsityMonitor())
    assert torch.Size([60, 6]) in watch.trained  # of 64
    assert torch.Size([30, 6]) in watch.trained  # of 60
    assert torch.Size([10, 30]) in watch.trained  # the output layer
    assert callback.sparsity == pytest.approx(1 - (60 * 6 + 30 * 6) / (60 * 64 + 30 * 60))
    assert watch.state.keys() == plain.state_dict().keys() == model.state_dict().keys()
    assert torch.allclose(watch.state["body.0.weight"], watch.weight)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert type(model.body[0]) is nn.Linear
    for name, rank in (("body.0.weight", 6), ("body.3.weight", 6)):
        values = torch.linalg.svdvals(model.get_parameter(name).detach().double())
        assert values[rank] < 1e-5 * values[0]
    assert not model.body[0]._state_dict_hooks
    pickle.dumps(model.body), copy.deepcopy(callback)


def test_the_weights_at_the_coordinates_are_those_trained_and_the_others_follow():
    watch, callback = Watch(), PredictWeights(0.9)
    model, _ = fit(callback, watch)
    coordinates, dictionary = callback.state_dict()["dictionaries"]["body.0"]
    for weight in (watch.state["body.0.weight"], model.body[0].weight.detach()):
        assert torch.allclose(weight[:, coordinates] @ dictionary, weight, atol=1e-6)


class SaveAt(Callback):
    """Saves a checkpoint when an epoch has ended."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def deterministic():
    return DataLoader(settings.digits(), batch_size=64)


def test_a_resumed_training_is_that_of_one_that_was_not_stopped(tmp_path):
    path = tmp_path / "half.ckpt"
    trainer = settings.quiet(PredictWeights(0.9), SaveAt(path, 1))
    trainer.fit(whole := settings.Module(), deterministic())
    other = settings.Module(seed=7)  # other first weights, and so another dictionary until it is restored
    resumed_by = PredictWeights(0.9)
    settings.quiet(resumed_by).fit(other, deterministic(), ckpt_path=path, **settings.SAFE)
    assert same(other, whole)
    assert resumed_by.sparsity == trainer.callbacks[0].sparsity
    plain = settings.Module(seed=8)
    settings.quiet(PredictWeights(0.9)).validate(plain, deterministic(), ckpt_path=path, **settings.SAFE)
    assert type(plain.body[0]) is nn.Linear


def test_a_second_fit_goes_on_with_the_same_dictionaries():
    callback = PredictWeights(0.9)
    model, _ = fit(callback, epochs=1)
    before = callback.state_dict()["dictionaries"]["body.0"]
    fit(callback, model=model, epochs=1)
    after = callback.state_dict()["dictionaries"]["body.0"]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    weight = model.body[0].weight.detach()
    assert torch.allclose(weight[:, before[0]] @ before[1], weight, atol=1e-6)


class Early(settings.Module):
    """Makes its optimizer before there is a Trainer."""

    def __init__(self):
        super().__init__()
        self.early = torch.optim.Adam(self.parameters())

    def configure_optimizers(self):
        return self.early


def test_an_optimizer_may_be_made_before():
    model, first = Early(), settings.Module().body[0].weight
    fit(PredictWeights(0.9), model=model)
    assert model.body[0].weight.shape == first.shape
    assert not torch.equal(model.body[0].weight, first)


class Convolutions(settings.Module):
    def __init__(self, groups=1):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            *(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=groups), nn.ReLU(), nn.Flatten()),
        )
        self.head = nn.Linear(96, 10)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(groups):
    callback = PredictWeights(0.75)
    model, _ = fit(callback, model=Convolutions(groups), epochs=1)
    assert set(callback.state_dict()["dictionaries"]) == ({"body.1", "body.3"} if groups == 1 else {"body.1"})
    assert list(callback.left_alone) == ([] if groups == 1 else ["body.3"])
    values = torch.linalg.svdvals(model.body[1].weight.detach().flatten(1))
    assert values[2] < 1e-5 * values[0]  # 2 of 9 weights


def test_a_fit_without_a_step_leaves_ordinary_layers():
    model, _ = fit(PredictWeights(0.9), epochs=0)
    assert type(model.body[0]) is nn.Linear


def test_layers_may_be_left_out():
    callback = PredictWeights(0.9, exclude=["body.0.*"])
    fit(callback, epochs=1)
    assert list(callback.state_dict()["dictionaries"]) == ["body.3"]


class ByRank(TensorDataset):
    """The second rank sees every image upside down."""

    def __getitem__(self, place):
        pixels, label = super().__getitem__(place)
        return (pixels.flip(0) if dist.is_initialized() and dist.get_rank() else pixels), label


class Alike(Callback):
    """Fails where the ranks' weights differ, or would not have differed without DDP."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        first, second = trainer.strategy.all_gather(pl_module.body[0].weight.detach())
        assert torch.equal(first, second)
        found = trainer.callbacks[0].state_dict()["dictionaries"]["body.0"][1]
        first, second = trainer.strategy.all_gather(found)
        assert not torch.equal(first, second)


def test_ranks_that_see_other_data_train_with_the_dictionaries_of_rank_zero():
    model, callback = settings.Module(), PredictWeights(0.9)
    trainer = settings.quiet(callback, Alike(), strategy="ddp_spawn", devices=2, max_epochs=1)
    trainer.fit(model, DataLoader(ByRank(*settings.digits().tensors), batch_size=64))
    assert type(model.body[0]) is nn.Linear
    values = torch.linalg.svdvals(model.body[0].weight.detach())
    assert values[6] < 1e-5 * values[0]


class NoForward(settings.Module):
    def forward(self, x):
        raise NotImplementedError("no forward")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PredictWeights(95), "write 0.95 for 95 percent"),
        (lambda: PredictWeights(1.0), "write a number such as 0.9"),
        (lambda: fit(PredictWeights(0.9), PredictWeights(0.9)), "leave one out"),
        (lambda: fit(PredictWeights(0.9, exclude=["body.*"])), "can predict no hidden layer"),
        (lambda: fit(PredictWeights(0.9, exclude=["bode.*"])), "bode"),
        (lambda: fit(PredictWeights(0.9), model=NoForward()), "let its forward"),
        (lambda: fit(PredictWeights(0.9), GradualPruning(0.9)), "exclude"),
        (lambda: fit(GradualPruning(0.9), PredictWeights(0.9)), "parametri"),
        (
            lambda: settings.quiet(PredictWeights()).fit(settings.Module(), DataLoader(["a", "b"])),
            "let it come first in a batch",
        ),
    ],
)
def test_refused(make, words):
    with pytest.raises(SparsityError, match=words):
        make()


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    _, trainer = fit(epochs=1)
    trainer.save_checkpoint(tmp_path / "dense.ckpt")
    with pytest.raises(SparsityError, match="or leave PredictWeights out"):
        fit(PredictWeights(0.9), epochs=2, ckpt_path=tmp_path / "dense.ckpt", **settings.SAFE)
    _, trainer = fit(PredictWeights(0.8), epochs=1)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    with pytest.raises(SparsityError, match=r"write PredictWeights\(0.8\)"):
        fit(PredictWeights(0.9), epochs=2, ckpt_path=tmp_path / "other.ckpt", **settings.SAFE)
