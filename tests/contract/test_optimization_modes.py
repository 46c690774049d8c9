"""Every callback, however the steps are taken: accumulated, clipped, by hand. At sparsity 0 it changes nothing."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import settings
from lightning_sparse import SparseTraining, SparsityError
from lightning_sparse.engine.scores.of_layer import gradient, needs_gradient


class Watched(settings.Module):
    """Looks at the dead weights in every forward pass, and counts the steps that its optimizer really takes."""

    def __init__(self, method, **arguments):
        super().__init__(**arguments)
        self.method, self.steps, self.looked = method, 0, 0

    def forward(self, x):
        assert settings.dead_are_zero(self, self.method.masks)
        self.looked += 1
        return super().forward(x)

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        optimizer.register_step_post_hook(self.count)
        return optimizer

    def count(self, *args):
        self.steps += 1


def check(model, method, steps, looked):
    assert model.looked == looked
    assert method.engine.clock == model.steps == steps
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)


def test_the_clock_counts_steps_and_the_last_partial_window_is_one(make_method, make_trainer):
    method = make_method(0.9)
    model = Watched(method)
    make_trainer(method, accumulate_grad_batches=4).fit(model, settings.batches())
    check(model, method, steps=4 * 3, looked=40)  # 4 + 4 + a last window of 2 batches, four epochs
    assert method.engine.plan == method.recipe.resolve(12)


def test_growth_reads_the_gradient_of_the_whole_window(make_trainer):
    read, whole = {}, {}

    @needs_gradient
    def reading(layer):
        read[method.engine.clock, layer.name] = layer.gradient.clone()
        return gradient(layer)

    class Windows(Watched):
        def on_after_backward(self):
            for name in method.masks:  # what the last batch of the window leaves counts
                whole[method.engine.clock + 1, name] = self.get_parameter(name).grad.clone()

    method = SparseTraining(0.9, turnover=0.2, every=2, grow=reading)
    make_trainer(method, accumulate_grad_batches=4, gradient_clip_val=0.1).fit(Windows(method), settings.batches())
    assert {clock for clock, _ in read} == {2, 4, 6, 8, 10, 12}
    assert all(torch.equal(read[key], whole[key]) for key in read)


class Clipped(Watched):
    """Keeps the dense gradients of a step, its masks, and the gradients that the optimizer was given instead."""

    def __init__(self, method):
        super().__init__(method)
        self.given = []

    def on_after_backward(self):
        self.dense = {name: parameter.grad.clone() for name, parameter in self.named_parameters()}
        self.alive = {name: mask.clone() for name, mask in self.method.masks.items()}

    def count(self, *args):
        super().count()
        living = {name: gradient * self.alive.get(name, 1.0) for name, gradient in self.dense.items()}
        clipped = {name: parameter.grad.clone() for name, parameter in self.named_parameters()}
        self.given.append((self.dense, living, clipped))


class ClippedByItself(Clipped):
    """Overrides Lightning's hook, as is done to clip some parameters and not others."""

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, gradient_clip_val=NORM, gradient_clip_algorithm="norm")


NORM = 0.3


def norm(gradients):
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).double().norm())


@pytest.mark.parametrize("by", ["trainer", "module"])
def test_the_norm_that_is_clipped_is_the_norm_of_the_living(by, make_method, make_trainer):
    method = make_method(0.9)
    model = (Clipped if by == "trainer" else ClippedByItself)(method)
    arguments = {"gradient_clip_val": NORM} if by == "trainer" else {}
    make_trainer(method, max_epochs=2, **arguments).fit(model, settings.batches())
    for _, living, clipped in model.given:
        share = min(1.0, NORM / norm(living))
        for name in living:
            torch.testing.assert_close(clipped[name], share * living[name], rtol=1e-4, atol=1e-7)
    # The test would see no difference if the gradients of dead connections were small.
    assert max(norm(dense) / norm(living) for dense, living, _ in model.given) > 1.2
    check(model, method, steps=20, looked=20)


def test_clipping_by_value_hides_the_dead_and_clamps_the_living(make_method, make_trainer):
    method = make_method(0.9)
    model = Clipped(method)
    trainer = make_trainer(method, max_epochs=2, gradient_clip_val=0.01, gradient_clip_algorithm="value")
    trainer.fit(model, settings.batches())
    for _, living, clipped in model.given:
        assert all(torch.equal(clipped[name], living[name].clamp(-0.01, 0.01)) for name in living)
    check(model, method, steps=20, looked=20)


@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_clipping_that_never_bites_changes_nothing(algorithm, make_method, make_trainer):
    models, methods = [], []
    for arguments in ({}, {"gradient_clip_val": 1e9, "gradient_clip_algorithm": algorithm}):
        methods.append(make_method(0.9))
        models.append(Watched(methods[-1]))
        make_trainer(methods[-1], max_epochs=2, **arguments).fit(models[-1], settings.batches())
    assert methods[0].history == methods[1].history
    assert settings.same_state(*models)


class Drawing(settings.Module):
    """Draws random numbers of every kind in every step, so that any other draw shows."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.drop = nn.Dropout(0.3)
        self.drawn = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.drawn.append((random.random(), np.random.rand(), float(torch.rand(()))))
        return super().training_step((self.drop(x), y), batch_idx)


def draw(make_trainer, *callbacks, workers=0):
    """Train one such module, shuffled, from the same random state every time."""
    model = Drawing()
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    loader = settings.batches(shuffle=True, num_workers=workers)
    make_trainer(*callbacks, max_epochs=2).fit(model, loader, settings.batches())
    return model


def test_no_method_draws_from_the_global_generators(make_method, make_trainer):
    assert draw(make_trainer, make_method(0.9)).drawn == draw(make_trainer).drawn


# What a method needs so that it stays at sparsity 0 all the time.
BORN_DENSE = {"birth_sparsity": 0.0, "sparsity_at_densest": 0.0}
DENSE = {name: BORN_DENSE if name.startswith("brain") else {} for name in settings.METHODS}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", DENSE)
def test_sparsity_zero_is_the_run_without_the_callback_bit_for_bit(name, workers, make_trainer):
    method = settings.METHODS[name](0.0, **DENSE[name])
    with_it, without = draw(make_trainer, method, workers=workers), draw(make_trainer, workers=workers)
    assert with_it.drawn == without.drawn
    assert settings.same_state(with_it, without)
    assert (method.sparsity, method.engine.clock) == (0.0, 20)


class ByHand(Watched):
    """Takes its steps itself, one every few batches and one for the batches left over at the end of an epoch."""

    def __init__(self, method, every=1, raw=False, clip=None):
        super().__init__(method)
        self.automatic_optimization = False
        self.every, self.raw, self.clip, self.given = every, raw, clip, []

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        self.manual_backward(super().training_step(batch, batch_idx) / self.every)
        if (batch_idx + 1) % self.every and not self.trainer.is_last_batch:
            return
        if self.clip:
            dense = {name: parameter.grad.clone() for name, parameter in self.named_parameters()}
            living = {name: gradient * self.method.masks.get(name, 1.0) for name, gradient in dense.items()}
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
            clipped = {name: parameter.grad.clone() for name, parameter in self.named_parameters()}
            self.given.append((dense, living, clipped))
        (optimizer.optimizer if self.raw else optimizer).step()
        optimizer.zero_grad()


@pytest.mark.parametrize("raw", [False, True], ids=["lightning's step", "the raw step"])
@pytest.mark.parametrize(("every", "steps"), [(1, 20), (3, 8)])
def test_steps_taken_by_hand_are_counted_one_by_one(every, steps, raw, make_method, make_trainer):
    method = make_method(0.9, total_steps=steps)
    model = ByHand(method, every=every, raw=raw)
    make_trainer(method, max_epochs=2).fit(model, settings.batches())
    check(model, method, steps=steps, looked=20)


def test_a_step_by_hand_is_the_step_that_lightning_would_take(make_method, make_trainer):
    models, methods = [], []
    for make in (Watched, ByHand, lambda method: ByHand(method, raw=True)):
        methods.append(make_method(0.9, total_steps=20))
        models.append(make(methods[-1]))
        make_trainer(methods[-1], max_epochs=2).fit(models[-1], settings.batches())
    assert methods[0].history == methods[1].history == methods[2].history
    assert settings.same_state(models[0], models[1])
    assert settings.same_state(models[0], models[2])


@pytest.mark.parametrize("name", [name for name, make in settings.METHODS.items() if make(0.9).recipe.needs_total])
def test_shares_of_steps_by_hand_need_their_number_and_the_error_says_so(name, make_trainer):
    method = settings.METHODS[name](0.9)
    model = ByHand(method)
    with pytest.raises(SparsityError, match="total_steps="):
        make_trainer(method).fit(model, settings.batches())
    assert model.steps == model.looked == 0


def test_clipping_by_hand_sees_the_gradients_of_the_dead_too(make_method, make_trainer):
    """The callback hears of a step when it is taken, which is later than here: masks are exact all the same."""
    method = make_method(0.9, total_steps=20)
    model = ByHand(method, clip=NORM)
    make_trainer(method, max_epochs=2).fit(model, settings.batches())
    for dense, _, clipped in model.given:
        share = min(1.0, NORM / norm(dense))
        for name in dense:
            torch.testing.assert_close(clipped[name], share * dense[name], rtol=1e-4, atol=1e-7)
    assert max(norm(dense) / norm(living) for dense, living, _ in model.given) > 1.2
    check(model, method, steps=20, looked=20)
