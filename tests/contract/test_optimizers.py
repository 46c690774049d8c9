"""Every callback with every optimizer of torch: zeros in every forward pass, and no large first step of newborns."""

import pytest
import torch
from lightning.pytorch import Callback

import lightning_sparse.engine.changing
import settings
from lightning_sparse import SparseTraining

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, foreach=False),
    "sgd-foreach": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, foreach=True),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, foreach=False),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True, foreach=True),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=False),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=1e-2, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, amsgrad=True, fused=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=1e-2),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-2),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-2),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, weight_decay=1e-3),
    "rmsprop-centered": lambda p: torch.optim.RMSprop(p, lr=1e-3, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "adagrad-fused": lambda p: torch.optim.Adagrad(p, lr=1e-2, fused=True),
    "adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.1),
    "rprop": lambda p: torch.optim.Rprop(p, lr=1e-3),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.3, max_iter=4),
    "lbfgs-wolfe": lambda p: torch.optim.LBFGS(p, lr=1.0, max_iter=4, line_search_fn="strong_wolfe"),
}
# One of each kind of state: what foreach and fused remember is the same.
NO_LEAP = [
    name for name in OPTIMIZERS if name.partition("-")[2] not in ("foreach", "fused", "wolfe") and name != "lbfgs"
]


class Watched(settings.Module):
    """Looks at the dead weights in every forward pass; the sanity check comes before there are masks."""

    def __init__(self, optimizer, method):
        super().__init__()
        self.make, self.method = OPTIMIZERS[optimizer], method
        self.looked = {"train": 0, "validate": 0}

    def forward(self, x):
        if not self.trainer.sanity_checking:
            assert settings.dead_are_zero(self, self.method.masks)
            dead = self.method.masks.total - self.method.masks.living
            self.looked[self.trainer.state.stage.value] += bool(dead)
        return super().forward(x)

    def configure_optimizers(self):
        return self.make(self.parameters())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_forward_pass_sees_exact_zeros_under_every_optimizer(make_method, optimizer, make_trainer):
    method = make_method(0.9)
    model = Watched(optimizer, method)
    trainer = make_trainer(method, max_epochs=2, limit_val_batches=2)
    trainer.fit(model, settings.batches(), settings.batches())
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert method.engine.clock == 20
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert model.looked["train"] >= 18
    assert model.looked["validate"] == 4


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rprop", "lbfgs"])
def test_newborns_start_at_zero(make_method, optimizer, make_trainer):
    class Newborns(Watched):
        born = 0

        def on_train_batch_start(self, batch, batch_idx):
            self.alive = {name: mask.clone() for name, mask in method.masks.items()}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            for name, mask in method.masks.items():
                newborn = self.get_parameter(name)[mask & ~self.alive[name]]
                assert not newborn.any()
                self.born += len(newborn)

    method = make_method(0.9)
    model = Newborns(optimizer, method)
    make_trainer(method, max_epochs=2).fit(model, settings.batches())
    assert model.born == sum(update.born for update in method.history)


class FirstSteps(Callback):
    """After each update, how far newborns and living connections move in the next step, in steps of a typical living one.

    Typical is the median of the living connections of a layer that moved at all: pixels that are always 0 move none, and
    Rprop holds those still whose gradient has changed its sign.
    """

    def __init__(self, method, warm):
        self.method, self.warm = method, warm
        self.before, self.born = {}, {}
        self.newborn, self.living = {}, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.weights = {name: pl_module.get_parameter(name).detach().clone() for name in self.method.masks}
        self.born = {name: mask & ~self.before.get(name, mask) for name, mask in self.method.masks.items()}
        self.before = {name: mask.clone() for name, mask in self.method.masks.items()}

    def on_train_batch_end(self, trainer, pl_module, *args):
        for name, born in self.born.items():
            if born.any() and self.method.engine.clock > self.warm:
                step = (pl_module.get_parameter(name).detach() - self.weights[name]).abs()
                newborn, living = (step[which & (step > 0)] for which in (born, self.before[name] & ~born))
                self.newborn.setdefault(name, []).append(newborn / living.median())
                self.living.setdefault(name, []).append(living / living.median())


def first_steps(optimizer, growth, make_trainer, clip, steps=120):
    """The first steps of newborns, and the steps of the living beside them, in typical ones, by layer."""
    method = SparseTraining(0.8, turnover=0.3, every=10, grow=growth, allocation="erk")
    watch = FirstSteps(method, warm=steps // 2)
    trainer = make_trainer(method, watch, max_epochs=-1, max_steps=steps, gradient_clip_val=clip)
    model = Watched(optimizer, method)
    trainer.fit(model, settings.batches())
    assert list(watch.newborn) == list(method.masks)
    return {name: (torch.cat(watch.newborn[name]), torch.cat(watch.living[name])) for name in watch.newborn}


# Clipping hides the gradients of the dead, so that their second moments have faded when they are born.
@pytest.mark.parametrize(("growth", "clip"), [("random", 0.5), ("gradient", None)])
@pytest.mark.parametrize("optimizer", [*NO_LEAP, "adam-foreach"])
def test_a_newborns_first_step_is_at_most_three_typical_ones(optimizer, growth, clip, make_trainer):
    for newborn, living in first_steps(optimizer, growth, make_trainer, clip).values():
        assert newborn.quantile(0.95) <= 3 * living.quantile(0.95)
        # ASGD does not scale its gradient, and these connections were born because theirs is large.
        if (optimizer, growth) != ("asgd", "gradient"):
            assert newborn.median() <= 3


def clean(optimizer, parameter, born, living):
    """What looks right and is wrong: to zero everything that the optimizer remembers about a newborn."""
    for moment in optimizer.state[parameter].values():
        if moment.shape == parameter.shape:
            moment.masked_fill_(born, 0.0)


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "adagrad"])
def test_a_newborn_whose_second_moments_are_zeroed_leaps(optimizer, make_trainer, monkeypatch):
    monkeypatch.setattr(lightning_sparse.engine.changing, "start_newborns", clean)
    for newborn, _ in first_steps(optimizer, "random", make_trainer, 0.5, steps=160).values():
        assert newborn.median() > 10


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-foreach", "sgd-fused"])
def test_a_newborn_under_momentum_is_pulled_by_its_own_gradient_alone(optimizer, make_method, make_trainer):
    class Pulled(Watched):
        seen = 0

        def on_train_batch_start(self, batch, batch_idx):
            self.alive = {name: mask.clone() for name, mask in method.masks.items()}

        def on_train_batch_end(self, outputs, batch, batch_idx):
            for name, born in getattr(self, "born", {}).items():
                weight, still = self.get_parameter(name), born & method.masks[name]
                assert torch.equal(weight[still], -0.1 * weight.grad[still])
                self.seen += int(still.sum())
            self.born = {name: mask & ~self.alive[name] for name, mask in method.masks.items()}

    method = make_method(0.9)
    model = Pulled(optimizer, method)
    make_trainer(method, max_epochs=2).fit(model, settings.batches())
    assert (model.seen > 0) == any(update.born for update in method.history)
