"""Every callback in every precision, and under a GradScaler that skips steps: a skipped step leaves no trace at all."""

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, Subset

import settings
from lightning_sparse import SparseTraining
from lightning_sparse.engine.scores.of_layer import gradient, needs_gradient
from settings import SAFE

# Resuming without the ModelCheckpoint that saved is what a test here is about.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")

DTYPES = {
    "bf16-mixed": torch.float32,
    "bf16-true": torch.bfloat16,
    "16-true": torch.float16,
    "64-true": torch.float64,
}


class Watched(settings.Module):
    """Looks at the dead weights in every forward pass."""

    def __init__(self, method, **arguments):
        super().__init__(**arguments)
        self.method, self.looked = method, 0

    def forward(self, x):
        if not self.trainer.sanity_checking:
            assert settings.dead_are_zero(self, self.method.masks)
            self.looked += 1
        return super().forward(x)


@pytest.mark.parametrize("precision", DTYPES)
def test_zeros_are_exact_in_every_precision(precision, make_method, make_trainer):
    method = make_method(0.9)
    model = Watched(method)
    make_trainer(method, max_epochs=2, precision=precision).fit(model, settings.batches(), settings.batches())
    assert {parameter.dtype for parameter in model.parameters()} == {DTYPES[precision]}
    assert model.looked == 40
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_half_precision_goes_on_from_a_checkpoint_bit_for_bit(precision, make_method, make_trainer, tmp_path):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, one = Watched(method := make_method(0.9)), method
    make_trainer(one, keep, enable_checkpointing=True, max_epochs=2, precision=precision).fit(whole, settings.batches())
    resumed, two = Watched(method := make_method(0.9), seed=9), method
    trainer = make_trainer(two, max_epochs=2, precision=precision)
    trainer.fit(resumed, settings.batches(), ckpt_path=tmp_path / "epoch=0.ckpt", **SAFE)
    assert two.history == one.history
    assert two.masks.checksum() == one.masks.checksum()
    assert settings.same_state(resumed, whole)


# At these of twenty batches the loss is infinite. Where masks are updated at every step, an update would have been due at
# each; turnover every 5 steps would have begun at the batch with index 5.
PLANTED = (0, 5, 6, 9, 10, 13, 19)
REAL = 20 - len(PLANTED)

STEPPERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4),
    "sgd-fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True),
    "adam-clipped": lambda p: torch.optim.Adam(p, lr=1e-2),
    "adam-fused": lambda p: torch.optim.Adam(p, lr=1e-2, fused=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=1e-2, fused=True),
}


def planted(stepper):
    """The same for fused SGD, except that torch starts it from uninitialised momentum if its very first step is skipped."""
    return (1, *PLANTED[1:]) if stepper == "sgd-fused" else PLANTED


class Planted(settings.Module):
    """Some batches give infinite gradients; there is no BatchNorm, which would remember those batches."""

    def __init__(self, stepper, planted, seed=0):
        super().__init__(seed=seed)
        self.body[1] = nn.Identity()
        self.stepper, self.planted = stepper, planted

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if 10 * self.trainer.current_epoch + batch_idx in self.planted else loss

    def configure_optimizers(self):
        return STEPPERS[self.stepper](self.parameters())


class Taken(Callback):
    """Counts the steps after which a parameter is not what it was, and keeps the scale where it was.

    It does not ask the sparsity callback, which may not know yet whether the last steps were taken.
    """

    def __init__(self, scaler=None, scale=None):
        self.scaler, self.scale, self.steps = scaler, scale, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_end(self, trainer, pl_module, *args):
        pairs = zip(self.before, pl_module.parameters(), strict=True)
        self.steps += any(not torch.equal(before, after) for before, after in pairs)
        if self.scale:
            self.scaler.update(self.scale)


def half(make_trainer, *callbacks, stepper, scale=64.0, hold=True, **arguments):
    """A Trainer in float16 with a GradScaler, and the callback that counts its steps."""
    scaler = torch.amp.GradScaler(settings.DEVICE, init_scale=scale, growth_interval=10**6)
    taken = Taken(scaler, scale if hold else None)
    plugins = [MixedPrecision("16-mixed", settings.DEVICE, scaler)]
    clip = 0.5 if stepper.endswith("clipped") else None
    return make_trainer(*callbacks, taken, plugins=plugins, gradient_clip_val=clip, **arguments), taken


@pytest.mark.parametrize("stepper", STEPPERS)
def test_a_run_with_skipped_steps_is_the_run_that_never_saw_their_batches(stepper, make_method, make_trainer):
    model, method = Planted(stepper, planted(stepper)), make_method(0.9, total_steps=REAL)
    trainer, taken = half(make_trainer, method, stepper=stepper, max_epochs=2)
    trainer.fit(model, settings.batches())

    rows = [64 * (index % 10) + row for index in range(20) if index not in planted(stepper) for row in range(64)]
    spared, twin = Planted(stepper, ()), make_method(0.9, total_steps=REAL)
    trainer, all_of_them = half(make_trainer, twin, stepper=stepper, max_epochs=1)
    trainer.fit(spared, DataLoader(Subset(settings.digits(), rows), batch_size=64))

    assert method.history == twin.history
    assert method.engine.clock == taken.steps == all_of_them.steps == REAL
    assert method.masks.checksum() == twin.masks.checksum()
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert settings.same_state(model, spared)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("stepper", STEPPERS)
def test_scores_read_gradients_without_the_scale(stepper, make_trainer):
    read, true = {}, {}

    @needs_gradient
    def reading(layer):
        read[method.engine.clock, layer.name] = layer.gradient.clone()
        return gradient(layer)

    class Scaled(Planted):
        def on_after_backward(self):
            for name in method.masks:
                true[method.engine.clock + 1, name] = self.get_parameter(name).grad / scale

    scale = 2.0**10
    method = SparseTraining(0.9, turnover=0.2, every=2, grow=reading)
    trainer, _ = half(make_trainer, method, stepper=stepper, scale=scale, max_epochs=1)
    trainer.fit(Scaled(stepper, ()), settings.batches())
    assert {clock for clock, _ in read} == {2, 4, 6, 8, 10}
    assert all(torch.equal(read[key], true[key]) for key in read)


@pytest.mark.parametrize("stepper", ["sgd", "sgd-fused", "adamw-fused"])
def test_the_clock_in_a_checkpoint_leaves_out_skipped_steps_and_resuming_is_exact(
    stepper, make_method, make_trainer, tmp_path
):
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, one = Planted(stepper, planted(stepper)), make_method(0.9, total_steps=REAL)
    trainer, _ = half(make_trainer, one, keep, stepper=stepper, hold=False, max_epochs=2, enable_checkpointing=True)
    trainer.fit(whole, settings.batches())
    stored = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["callbacks"][one.state_key]
    assert stored["clock"] == 10 - sum(index < 10 for index in planted(stepper))
    assert stored["history"][-1]["step"] <= stored["clock"]

    resumed, two = Planted(stepper, planted(stepper), seed=9), make_method(0.9, total_steps=REAL)
    trainer, taken = half(make_trainer, two, stepper=stepper, hold=False, scale=1.0, max_epochs=2)
    trainer.fit(resumed, settings.batches(), ckpt_path=tmp_path / "epoch=0.ckpt", **SAFE)
    assert two.engine.clock == one.engine.clock == stored["clock"] + taken.steps == REAL
    assert two.history == one.history
    assert settings.same_state(resumed, whole)


@pytest.mark.parametrize("stepper", [stepper for stepper in STEPPERS if stepper != "sgd-fused"])  # see planted()
def test_a_scale_too_large_at_first_costs_steps_and_no_connection(stepper, make_method, make_trainer):
    model, method = Planted(stepper, ()), make_method(0.9)
    trainer, taken = half(make_trainer, method, stepper=stepper, scale=2.0**24, hold=False, max_epochs=2)
    trainer.fit(model, settings.batches())
    assert method.engine.clock == taken.steps
    assert 15 <= taken.steps < 20, taken.steps
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_a_step_by_hand_that_the_scaler_skips_counts_for_nothing(make_method, make_trainer):
    class ByHand(Planted):
        def __init__(self):
            super().__init__("adamw-fused", PLANTED)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    models, methods = (
        [ByHand(), Planted("adamw-fused", PLANTED)],
        [make_method(0.9, total_steps=REAL) for _ in range(2)],
    )
    for model, method in zip(models, methods, strict=True):
        trainer, taken = half(make_trainer, method, stepper="adamw-fused", max_epochs=2)
        trainer.fit(model, settings.batches())
        assert method.engine.clock == taken.steps == REAL
    assert methods[0].history == methods[1].history
    assert settings.same_state(*models)


@pytest.mark.parametrize("fused", ["head", "body"])
@pytest.mark.parametrize("first", ["head", "body"])
def test_of_two_optimizers_each_has_the_scale_taken_off_its_own_gradients(fused, first, make_trainer):
    """A fused optimizer removes the scale in its step, from the parameters' own gradients; others do before it."""
    read, true = {}, {}

    @needs_gradient
    def reading(layer):
        read[method.engine.clock, layer.name] = layer.gradient.clone(), true[layer.name][-2:]
        return gradient(layer)

    class Two(Planted):
        def __init__(self):
            super().__init__("sgd", ())
            self.automatic_optimization = False

        def configure_optimizers(self):
            return [
                torch.optim.Adam(getattr(self, part).parameters(), fused=part == fused) for part in ("body", "head")
            ]

        def training_step(self, batch, batch_idx):
            for parameter in self.parameters():
                parameter.grad = None
            self.manual_backward(super().training_step(batch, batch_idx))
            for name in method.masks:
                true.setdefault(name, []).append(self.get_parameter(name).grad / scale)
            body, head = self.optimizers()
            for optimizer in (body, head) if first == "body" else (head, body):
                optimizer.step()

    scale = 2.0**10
    method = SparseTraining(0.9, turnover=0.2, every=2, grow=reading, total_steps=10)
    trainer, _ = half(make_trainer, method, stepper="sgd", scale=scale, max_epochs=1)
    trainer.fit(Two(), settings.batches())
    assert {clock for clock, _ in read} == {2, 4, 6, 8, 10}
    for found, steps in read.values():  # of this step, or of the last where its optimizer's turn is yet to come
        assert any(torch.equal(found, step) for step in steps)
