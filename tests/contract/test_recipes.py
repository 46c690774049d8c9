"""Every method that has a name, in every mode of the Trainer that docs/any_trainer.md names: one mode, one function.

Several ranks are in test_ddp.py; what a mode means in detail is in the other files here.
"""

import copy
import pickle
import sys

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.data import DataLoader, IterableDataset, Subset

import settings
from lightning_sparse import ACDC, SNIP, RandomState, SparsityError, attach, load_masks
from settings import SAFE, dead_are_zero, exact, same_state

pytestmark = [
    # Resuming without the ModelCheckpoint that saved is what some of these tests are about.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    # torch's own, where a module is given what a compiled one has computed
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
]

STEPS = 20

# The steps of 20 at which masks are updated, by hand from each docstring; 0 is before the first step.
UPDATES = {
    "IterativePruning": [5, 10, 15],
    "Static": [0],
    "OneShot": [10],
    "OneShot-wanda": [10],
    "OneShot-obs": [10],
    "GradualPruning": range(1, 16),
    "SNIP": [0],
    "GraSP": [0],
    "SynFlow": [0],
    "SET": [0, 3, 6, 9, 12, 15],  # until 18, where it stops
    "RigL": [0, 3, 6, 9, 12],  # until 15, where the cosine is zero
    "SNFS": [0, 3, 6, 9, 12, 15],
    "GraNet": [0, 3, 6, 9, 12, 14],  # the last only prunes
    "ACDC": [*range(2, 16), 17],  # phases of one step until the last dense one begins at 15
    "DenseSparseDense": [8, 14],
    "LotteryTicket": [5, 10, 15],
    "LotteryTicket-reinit": [5, 10, 15],
    "GrowAndPrune": [0, 2, 4, 6, 8, 10, 12, 14, 15],  # grows until 6, prunes until 15
    "BrainDevelopment": range(18),  # grows until 4, prunes until 13, replaces until 18
    "BrainDevelopment-pruning_turnover": range(18),
}
# What a method needs beside a final sparsity of 0 to be dense all the time; without it, these three refuse.
BORN_DENSE = {
    "GraNet": {"initial_sparsity": 0.0},
    "GrowAndPrune": {"seed_sparsity": 0.0, "sparsity_at_densest": 0.0},
    "BrainDevelopment": {"birth_sparsity": 0.0, "sparsity_at_densest": 0.0},
    "BrainDevelopment-pruning_turnover": {"birth_sparsity": 0.0, "sparsity_at_densest": 0.0},
}


@pytest.fixture(params=settings.RECIPES)
def name(request):
    return request.param


@pytest.fixture
def make(name):
    """The method, as a function of the sparsity."""
    return settings.RECIPES[name]


class Watched(settings.Module):
    """Looks at the dead weights in every forward pass of training and of validation, not of SynFlow's other weights."""

    def __init__(self, method, **arguments):
        super().__init__(**arguments)
        self.method, self.looked = method, 0

    def forward(self, x):
        if self.training or self.trainer.validating:
            assert dead_are_zero(self, self.method.masks)
            self.looked += 1
        return super().forward(x)


def run(method, make_trainer, *callbacks, module=Watched, **arguments):
    """Twenty steps, if nothing else is said."""
    model = module(method)
    make_trainer(method, *callbacks, **{"max_epochs": 2, **arguments}).fit(model, settings.batches())
    return model, method


def check(model, method, steps=STEPS):
    """The promises about a training that has ended; one method is dense again by then."""
    assert method.engine.clock == steps
    assert exact(method.masks, method.recipe.sparsity.final)
    assert dead_are_zero(model, method.masks)
    assert method.at_target
    assert method.history
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def same_run(a, b):
    """Whether two pairs of model and method have had exactly the same training."""
    return same_state(a[0], b[0]) and a[1].masks.checksum() == b[1].masks.checksum() and a[1].history == b[1].history


def loss_fn(module, batch):
    return nn.functional.cross_entropy(module(batch[0]), batch[1])


class Look(Callback):
    """How many connections are dead after each step, and whether the engine says that the target is reached."""

    def __init__(self, method):
        self.method, self.dead, self.at_target = method, [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.dead.append(self.method.masks.total - self.method.masks.living)
        self.at_target.append(self.method.at_target)


def test_a_plain_fit(name, make, make_trainer):
    method = make(0.9)
    look = Look(method)
    model, _ = run(method, make_trainer, look)
    check(model, method)
    assert model.looked >= STEPS
    assert [update.step for update in method.history] == [*UPDATES[name]]
    assert all(update.died or update.born for update in method.history)
    total, dead = method.masks.total, 0
    asked = {update.step: round(update.asked * total) for update in method.history}
    for step in range(STEPS + 1):
        dead = asked.get(step, dead)
        assert step == 0 or look.dead[step - 1] == dead
    assert look.at_target == [len({*look.dead[step:]}) == 1 for step in range(STEPS)]


class Drawing(settings.Module):
    """Draws random numbers in every step, so that any other draw shows."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        return super().training_step((nn.functional.dropout(x, 0.3), y), batch_idx)


def draw(make_trainer, *callbacks):
    """One such training, and where the global generator stands after it."""
    model = Drawing()
    torch.manual_seed(5)
    make_trainer(*callbacks, max_epochs=2).fit(model, settings.batches(shuffle=True), settings.batches())
    return model, torch.get_rng_state()


def test_at_sparsity_zero_it_is_the_run_without_it_and_at_no_sparsity_does_it_draw(name, make, make_trainer):
    without, drawn = draw(make_trainer)
    method = make(0.0, **BORN_DENSE.get(name, {}))
    with_it, drawn_beside = draw(make_trainer, method)
    assert same_state(with_it, without)
    assert (method.sparsity, method.engine.clock) == (0.0, STEPS)
    assert torch.equal(drawn_beside, drawn)
    assert torch.equal(draw(make_trainer, make(0.9))[1], drawn)


def test_accumulated_gradients_with_a_last_partial_window(make, make_trainer):
    model, method = run(make(0.9), make_trainer, accumulate_grad_batches=4, max_epochs=4)
    check(model, method, steps=4 * 3)  # 4 + 4 + a last window of 2 batches, four epochs
    assert method.engine.plan == method.recipe.resolve(12)


class Clipped(Watched):
    """Keeps the gradients that the backward pass has left on the living, and what the optimizer was given."""

    def __init__(self, method):
        super().__init__(method)
        self.given = []

    def on_after_backward(self):
        alive = self.method.masks
        self.living = {name: p.grad * alive.get(name, 1.0) for name, p in self.named_parameters()}

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        optimizer.register_step_post_hook(self.keep)
        return optimizer

    def keep(self, *_):
        self.given.append((self.living, {name: p.grad.clone() for name, p in self.named_parameters()}))


def test_the_norm_that_is_clipped_is_the_norm_of_the_living(make, make_trainer):
    model, method = run(make(0.9), make_trainer, module=Clipped, gradient_clip_val=0.05)
    check(model, method)
    assert len(model.given) == STEPS
    for living, clipped in model.given:
        norm = torch.cat([gradient.flatten() for gradient in living.values()]).norm()
        assert norm > 0.05
        for parameter, gradient in living.items():
            torch.testing.assert_close(clipped[parameter], 0.05 / norm * gradient, rtol=1e-4, atol=1e-7)


class ByHand(Watched):
    """Takes its steps itself, by Lightning's wrapper."""

    def __init__(self, method):
        super().__init__(method)
        self.automatic_optimization = False

    def stepper(self):
        return self.optimizers()

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        self.stepper().step()


class ByTheRawStep(ByHand):
    """Takes its steps itself, by torch's own optimizer."""

    def stepper(self):
        return self.optimizers().optimizer


def test_steps_by_hand_are_those_that_lightning_takes(make, make_trainer):
    arguments = {"total_steps": STEPS, "loss_fn": loss_fn}  # there, training_step returns no loss to score by
    whole = run(make(0.9, **arguments), make_trainer)
    for module in (ByHand, ByTheRawStep):
        by_hand = run(make(0.9, **arguments), make_trainer, module=module)
        check(*by_hand)
        assert same_run(by_hand, whole)


class Adam(Watched):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Lbfgs(Watched):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=3)


@pytest.mark.parametrize("optimizer", [Adam, Lbfgs])
def test_every_forward_pass_sees_exact_zeros_under_other_optimizers(optimizer, make, make_trainer):
    model, method = run(make(0.9), make_trainer, module=optimizer)
    check(model, method)
    assert model.looked >= STEPS


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-true"])
def test_zeros_are_exact_in_other_precisions(precision, make, make_trainer):
    check(*run(make(0.9), make_trainer, precision=precision))


class Planted(Watched):
    """Some batches give infinite gradients; there is no BatchNorm, which would remember those batches."""

    def __init__(self, method, planted):
        super().__init__(method)
        self.body[1] = nn.Identity()
        self.planted, self.scaler = planted, torch.amp.GradScaler("cpu", init_scale=64.0)

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * torch.inf if 10 * self.trainer.current_epoch + batch_idx in self.planted else loss

    def on_train_batch_end(self, *_):
        self.scaler.update(64.0)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2, fused=True)


def test_a_run_with_skipped_steps_is_the_run_that_never_saw_their_batches(make, make_trainer):
    skipped = (2, 5, 6, 9, 10, 13, 19)
    rows = [64 * (index % 10) + row for index in range(20) if index not in skipped for row in range(64)]
    runs = []
    for planted, images, epochs in ((skipped, settings.digits(), 2), ((), Subset(settings.digits(), rows), 1)):
        method = make(0.9, total_steps=STEPS - len(skipped))
        model = Planted(method, planted)
        plugins = [MixedPrecision("16-mixed", "cpu", model.scaler)]
        make_trainer(method, plugins=plugins, max_epochs=epochs).fit(model, DataLoader(images, batch_size=64))
        check(model, method, steps=STEPS - len(skipped))
        runs.append((model, method))
    assert same_run(*runs)


class Compiled(settings.Module):
    """Checks the dead weights from outside the graphs."""

    method = None

    def __init__(self, counter):
        super().__init__()
        self.looked = 0
        self.body.compile(backend=counter)

    def on_train_batch_start(self, batch, batch_idx):
        if self.method is not None:
            assert dead_are_zero(self, self.method.masks)
            self.looked += 1


@pytest.fixture(scope="module")
def compiled():
    """One module for all, because compiling takes seconds, and how many graphs it took without a callback."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    model = Compiled(counter)
    start = copy.deepcopy(model.state_dict())
    settings.quiet(max_epochs=1).fit(model, settings.batches())
    yield model, start, counter, counter.frame_count
    torch._dynamo.reset()


def test_under_torch_compile_there_is_no_graph_more(name, compiled, make, make_trainer):
    model, start, counter, graphs = compiled
    model.load_state_dict(start)
    model.method, model.looked = make(0.9), 0
    check(*run(model.method, make_trainer, module=lambda method: model))
    assert model.looked == STEPS
    assert counter.frame_count == graphs > 0
    assert [update.step for update in model.method.history] == [*UPDATES[name]]


class Scheduled(Watched):
    """With dropout, and a learning rate that falls."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, self.training))

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]


def middles(plan, steps, length):
    """For each phase of the sparsity, the first epoch that ends inside it; for a short one, at its first step."""
    found = {}
    for end in range(length, steps, length):
        piece = plan.piece(end)
        inside = piece is not None and piece.begin < end
        found.setdefault(plan.phase(end), []).append((not inside, end // length - 1))
    return {phase: min(epochs)[1] for phase, epochs in found.items()}


# By hand: of 40 steps in epochs of 4, which phases an epoch can end in. One that lasts shorter is not among them.
PHASES = {
    "IterativePruning": {"round 0", "round 1", "round 2", "round 3"},
    "OneShot": {"dense", "sparse"},
    "OneShot-wanda": {"dense", "sparse"},
    "OneShot-obs": {"dense", "sparse"},
    "GradualPruning": {"prune", "rest"},
    "GraNet": {"prune", "rest"},
    "ACDC": {"dense", "sparse"},
    "DenseSparseDense": {"dense", "sparse", "dense again"},
    "LotteryTicket": {"training 1", "training 2", "training 3", "training 4"},
    "LotteryTicket-reinit": {"training 1", "training 2", "training 3", "training 4"},
    "GrowAndPrune": {"grow", "prune", "rest"},
    "BrainDevelopment": {"grow", "prune", "turnover", "rest"},
    "BrainDevelopment-pruning_turnover": {"grow", "prune", "turnover", "rest"},
}


def test_resumed_in_every_phase_it_is_the_run_that_was_never_stopped(name, make, make_trainer, tmp_path):
    """Bit for bit, with a shuffling loader, into a module of other weights."""

    def train(seed, *callbacks, **arguments):
        torch.manual_seed(5)
        method = make(0.9)
        model, saves = Scheduled(method, seed=seed), {"enable_checkpointing": bool(callbacks)}
        trainer = make_trainer(method, RandomState(), *callbacks, max_epochs=10, limit_train_batches=4, **saves)
        trainer.fit(model, settings.batches(shuffle=True), **arguments)
        return model, method

    whole = train(0, ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True))
    check(*whole, steps=40)
    epochs = middles(whole[1].engine.plan.sparsity, 40, 4)
    assert {*epochs} == PHASES.get(name, {""})
    for epoch in epochs.values():
        assert same_run(train(9, ckpt_path=tmp_path / f"epoch={epoch}.ckpt", **SAFE), whole)


class When(Callback):
    """Do something after a step."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            self.do()


def pickled(method):
    return pickle.loads(pickle.dumps(method))


def test_a_copy_holds_masks_and_history_and_trains_as_if_there_had_been_none(make, make_trainer):
    method, copies, seen = make(0.9), {}, []
    copies["before"] = pickled(method)

    def during():
        copies["during"] = copy.deepcopy(method)
        seen.append((method.masks.checksum(), list(method.history)))

    whole = run(method, make_trainer, When(11, during))
    copies["after"] = pickled(method)
    seen.append((method.masks.checksum(), list(method.history)))
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = copies["before"].masks
    assert [(copies[moment].masks.checksum(), copies[moment].history) for moment in ("during", "after")] == seen
    for held in copies.values():
        assert held.engine is None
        assert b"Parameter" not in pickle.dumps(held)
        assert same_run(run(held, make_trainer), whole)


class Memoryless(Watched):
    """Its optimizer has no state, so that a second fit loses none."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.mark.filterwarnings("ignore:sparsity .* is planned for step:UserWarning")  # where the first half ends
def test_a_second_fit_starts_anew_with_a_new_trainer_and_goes_on_with_the_same(make, make_trainer):
    method = make(0.9, total_steps=STEPS)
    model, _ = run(method, make_trainer, module=Memoryless)
    whole = copy.deepcopy(model), copy.deepcopy(method)
    assert same_run(run(method, make_trainer, module=Memoryless), whole)

    halves = make(0.9, total_steps=STEPS)
    model = Memoryless(halves)
    trainer = make_trainer(halves, max_epochs=1)
    trainer.fit(model, settings.batches())
    assert halves.engine.clock == 10
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, settings.batches())
    check(model, halves)
    assert same_run((model, halves), whole)


class Whole(settings.Module):
    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)


def test_evaluation_alone_changes_nothing(make, make_trainer):
    method, model = make(0.9), Whole()
    trainer = make_trainer(method)
    trainer.validate(model, settings.batches(), verbose=False)
    trainer.test(model, settings.batches(), verbose=False)
    assert same_state(model, Whole())
    assert method.history == []
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = method.masks


def test_a_dev_run_reaches_the_final_sparsity_in_its_few_steps(make, make_trainer):
    for steps in (1, 3):
        model, method = run(make(0.9), make_trainer, fast_dev_run=steps, max_epochs=None)
        assert method.engine.clock == steps
        assert exact(method.masks, method.recipe.sparsity.final)
        assert dead_are_zero(model, method.masks)


def test_a_checkpoint_is_the_dense_models_and_holds_the_masks(make, make_trainer, tmp_path):
    method = make(0.9)
    model = Watched(method)
    trainer = make_trainer(method, max_epochs=2)
    trainer.fit(model, settings.batches())
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    content = torch.load(tmp_path / "end.ckpt", weights_only=True)
    plain = settings.Module(seed=9)
    plain.load_state_dict(content["state_dict"], strict=True)
    assert list(content["state_dict"]) == list(plain.state_dict())
    assert same_state(plain, model)
    assert load_masks(tmp_path / "end.ckpt").checksum() == method.masks.checksum()


AVERAGES = {"swa": lambda: StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)}
if hasattr(lightning_callbacks, "EMAWeightAveraging"):  # Lightning 2.5 has none
    AVERAGES["ema"] = lambda: lightning_callbacks.EMAWeightAveraging(decay=0.8)


@pytest.mark.parametrize("average", AVERAGES)
def test_an_average_is_as_sparse_as_the_model(average, name, make, make_trainer, tmp_path):
    method = make(0.9)
    model = Watched(method)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = make_trainer(method, AVERAGES[average](), keep, max_epochs=3, enable_checkpointing=True)
    trainer.fit(model, settings.batches(), settings.batches())
    assert exact(method.masks, method.recipe.sparsity.final)
    assert dead_are_zero(model, method.masks)
    for epoch in range(3):
        content = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)
        masks = load_masks(content)
        assert all(not content["state_dict"][layer][~mask].any() for layer, mask in masks.items())


class Saw(Callback):
    """What training was given, as the sum of each batch."""

    def __init__(self):
        self.sums = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.sums.append(float(batch[0].sum()))


class OfTwo(settings.Module):
    """Looks at the dead weights of both in every forward pass."""

    methods = ()

    def forward(self, x):
        assert all(dead_are_zero(self, method.masks) for method in self.methods)
        return super().forward(x)

    def on_train_start(self):
        self.methods = [callback for callback in self.trainer.callbacks if hasattr(callback, "masks")]


def test_two_callbacks_share_a_model_by_name(name, make, make_trainer, tmp_path):
    def pair():
        return make(0.9, include=["body.*.weight"], exclude=["body.1.*"]), make(0.5, include=["head.weight"], seed=7)

    if name.startswith("LotteryTicket"):  # it takes the whole model back
        with pytest.raises(SparsityError, match="rewinding takes the whole model back"):
            make_trainer(*pair()).fit(OfTwo(), settings.batches())
        return
    saw, both, model = Saw(), pair(), OfTwo()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    make_trainer(*both, saw, keep, max_epochs=2, enable_checkpointing=True).fit(model, settings.batches())
    for method in both:
        assert exact(method.masks, method.recipe.sparsity.final)
        assert dead_are_zero(model, method.masks)
    assert saw.sums == 2 * [float(x.sum()) for x, _ in settings.batches()]

    resumed, again, path = OfTwo(seed=9), pair(), tmp_path / "epoch=0.ckpt"
    make_trainer(*again[::-1], max_epochs=2).fit(resumed, settings.batches(), ckpt_path=path, **SAFE)
    assert same_state(resumed, model)
    assert [method.history for method in again] == [method.history for method in both]


def test_a_plain_loop_is_the_trainer_bit_for_bit(name, make, make_trainer):
    whole = run(make(0.9), make_trainer, module=lambda method: settings.Module())
    model = settings.Module()
    optimizer = model.configure_optimizers()
    epoch, count = list(settings.batches()), make(0.9).recipe.score_batches
    read = epoch[:count] if 0 in UPDATES[name] else epoch[-count:]  # the Trainer's last, where the update is at step 10
    engine = attach(optimizer, model, make(0.9), total_steps=STEPS, batches=read, loss_fn=loss_fn)
    for batch in [*settings.batches(), *settings.batches()]:
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    assert same_run((model, engine), whole)


class Stream(IterableDataset):
    """Digits without a length."""

    def __iter__(self):
        return iter(settings.digits())


def test_data_without_a_length_lose_no_batch_and_have_no_shares(make, make_trainer):
    method, saw = make(0.9, total_steps=STEPS), Saw()
    model = Watched(method)
    make_trainer(method, saw, max_epochs=2).fit(model, DataLoader(Stream(), batch_size=64))
    check(model, method)
    assert saw.sums == 2 * [float(x.sum()) for x, _ in settings.batches()]
    assert same_run((model, method), run(make(0.9), make_trainer))  # the same batches with a length, scored ones too

    in_shares, model = make(0.9), settings.Module()
    if in_shares.recipe.needs_total:
        with pytest.raises(SparsityError, match=r"int steps, pass total_steps=, or set the Trainer's max_steps"):
            make_trainer(in_shares).fit(model, DataLoader(Stream(), batch_size=64))
        assert same_state(model, settings.Module())
    else:
        make_trainer(in_shares, max_epochs=1).fit(model, DataLoader(Stream(), batch_size=64))
        check(model, in_shares, steps=10)


TYPED = {
    "SNIP": (
        ["final_sparsity=0.9", "rounds=3", "exclude=[head.*]", "seed=5", "loss_fn=operator.add"],
        lambda: SNIP(0.9, rounds=3, exclude=["head.*"], seed=5),
    ),
    "ACDC": (
        ["final_sparsity=0.9", "phase=0.1", "allocation=erk", "total_steps=70"],
        lambda: ACDC(0.9, phase=0.1, allocation="erk", total_steps=70),
    ),
}


@pytest.fixture
def cli(monkeypatch):
    """LightningCLI as it reads a command line of these arguments."""
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    def read(*arguments):
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning calls it by old names
        plain = {"save_config_callback": None, "seed_everything_default": False, "trainer_defaults": {"logger": False}}
        return LightningCLI(settings.Module, run=arguments[0] == "fit", auto_configure_optimizers=False, **plain)

    return read


@pytest.mark.parametrize("typed", TYPED)
def test_the_command_line_gives_arguments_that_every_method_takes(typed, cli):
    arguments, in_python = TYPED[typed]
    options = [f"--trainer.callbacks.{argument}" for argument in arguments]
    run = cli(f"--trainer.callbacks+=lightning_sparse.{typed}", *options)
    (callback,) = (callback for callback in run.trainer.callbacks if type(callback).__name__ == typed)
    assert callback.recipe == in_python().recipe
    assert (callback.loss_fn is None) == (typed == "ACDC")


@pytest.mark.parametrize("typed", sorted({name.partition("-")[0] for name in settings.RECIPES}))
def test_help_shows_the_arguments_that_every_method_takes(typed, cli, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli("fit", f"--trainer.callbacks.help=lightning_sparse.{typed}")
    shown = capsys.readouterr().out
    for argument in ("include", "exclude", "seed", "total_steps", "granularity", "score_batches", "loss_fn"):
        assert f"  --trainer.callbacks.{argument} " in shown
