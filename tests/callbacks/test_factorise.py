"""Layers are replaced before the optimizers are made; what is trained, saved and resumed are their factors."""

import pickle

import pytest
import torch
from lightning.pytorch import Callback
from torch.multiprocessing import ProcessRaisedException

import settings
from lightning_sparse import Factorise, GradualPruning, Quantise, SparsityError, load_masks, sparsifiable

pytest.importorskip("tltorch")


def fit(*callbacks, model=None, epochs=3, **resume):
    model = model or settings.Module()
    trainer = settings.quiet(*callbacks, max_epochs=epochs)
    trainer.fit(model, settings.batches(), **resume)
    return model, trainer


def same(one, other):
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(states[0][n], states[1][n]) for n in states[0])


@pytest.mark.parametrize("kind", ["svd", "tensor_train"])
def test_factors_are_trained_in_place_of_the_layers(kind):
    torch.manual_seed(0)
    callback = Factorise(share=0.5, kind=kind)
    dense = sum(weight.numel() for weight in sparsifiable(settings.Module()).values())
    model, trainer = fit(callback, epochs=1)
    weights = sparsifiable(model)
    assert callback.factors
    assert sum(weight.numel() for weight in weights.values()) < 0.7 * dense
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert {id(weight) for weight in weights.values()} <= trained


def test_a_sparsity_callback_and_a_quantiser_take_the_factors():
    pruning, quantise = GradualPruning(0.8, end=0.5), Quantise(bits=3, begin=0.6)
    model, _ = fit(Factorise(rank=3), pruning, quantise)
    weights = sparsifiable(model)
    assert set(pruning.masks) == set(weights)
    assert any(".0.weight" in name for name in weights)
    dead = sum(int((weight == 0).sum()) for weight in weights.values())
    assert dead / sum(weight.numel() for weight in weights.values()) == pytest.approx(0.8, abs=0.01)
    assert max(quantise.distinct_values.values()) <= 8


class SaveAt(Callback):
    """Saves a checkpoint when an epoch has ended."""

    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


def test_a_resumed_training_is_that_of_one_that_was_not_stopped(tmp_path):
    def callbacks():
        return Factorise(rank=3), GradualPruning(0.8)

    torch.manual_seed(1)
    path = tmp_path / "half.ckpt"
    whole, trainer = fit(*callbacks(), SaveAt(path, 1), epochs=4)
    resumed, _ = fit(*callbacks(), epochs=4, ckpt_path=path, **settings.SAFE)
    assert same(resumed, whole)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    validated = settings.Module()
    settings.quiet(*callbacks()).validate(validated, settings.batches(), ckpt_path=tmp_path / "end.ckpt")
    assert same(validated, whole)
    assert load_masks(tmp_path / "end.ckpt").sparsity == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("method", [*settings.METHODS, *settings.RECIPES])
@pytest.mark.filterwarnings("ignore:no connection")
def test_every_sparsity_callback_prunes_the_factors_in_number(method):
    pruning = (settings.METHODS | settings.RECIPES)[method](0.8)
    model, _ = fit(Factorise(share=0.5), pruning, epochs=2)
    assert set(pruning.masks) == set(sparsifiable(model))
    assert settings.exact(pruning.masks, pruning.recipe.sparsity.final)
    assert settings.dead_are_zero(model, pruning.masks)


class Compiled(settings.Module):
    def __init__(self):
        super().__init__()
        self.compile(backend="eager")


MODES = [{}, {"precision": "bf16-mixed"}, {"precision": "64-true"}, {"fast_dev_run": 2}]
BY_THE_TRAINER = [{"accumulate_grad_batches": 3}, {"gradient_clip_val": 0.1}]  # refused beside manual optimization


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        *[(module, arguments) for module in (settings.Module, settings.ByHand, Compiled) for arguments in MODES],
        *[(module, arguments) for module in (settings.Module, Compiled) for arguments in BY_THE_TRAINER],
    ],
    ids=str,
)
def test_modes_of_the_trainer(module, arguments):
    callback, pruning, quantise = Factorise(rank=4), GradualPruning(0.8, begin=0, end=8, every=1), Quantise(4, begin=0)
    model = module()
    dense = model.body[0].weight
    before = [p.numel() for p in model.parameters()]
    trainer = settings.quiet(callback, pruning, quantise, **{"max_epochs": 2, **arguments})
    trainer.fit(model, settings.batches())
    assert sum(p.numel() for p in model.parameters()) < 0.6 * sum(before)
    assert all(p is not dense for p in model.parameters())
    assert settings.dead_are_zero(model, pruning.masks)
    assert max(quantise.distinct_values.values()) <= 16
    if "fast_dev_run" not in arguments:
        assert settings.exact(pruning.masks, 0.8)


def test_a_second_fit_goes_on_and_another_module_is_factorised_anew():
    callback = Factorise(rank=3)
    model, _ = fit(callback, epochs=1)
    names = list(model.state_dict())
    fit(callback, model=model, epochs=1)
    assert list(model.state_dict()) == names
    assert list(fit(pickle.loads(pickle.dumps(callback)), epochs=1)[0].state_dict()) == names


def test_decomposed_weights_are_near_those_of_the_module():
    model = settings.Module()
    before = model(next(iter(settings.batches()))[0]).detach()
    trainer = settings.quiet(Factorise(share=0.9, fresh=False), max_epochs=1, limit_train_batches=0)
    trainer.fit(model, settings.batches())
    after = model(next(iter(settings.batches()))[0]).detach()
    assert (after - before).norm() < 0.5 * before.norm()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Factorise(rank=2, share=0.5), "leave one out"),
        (lambda: Factorise(rank=2, kind="qr"), "kind='qr'"),
        (lambda: Factorise(rank=2, fresh=1), "fresh=1"),
        (lambda: fit(Factorise(rank=10**6)), "makes no layer smaller"),
        (lambda: fit(Factorise(rank=2), Factorise(rank=3)), "leave one out"),
    ],
)
def test_refused(make, words):
    with pytest.raises(SparsityError, match=words):
        make()


def test_spawned_processes_are_refused():
    trainer = settings.quiet(Factorise(rank=2), strategy="ddp_spawn", devices=2)
    with pytest.raises(ProcessRaisedException, match="strategy='ddp', or devices=1"):
        trainer.fit(settings.Module(), settings.batches())
