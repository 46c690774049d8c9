"""What a Trainer does around and instead of a plain fit: evaluation, second fits, copies, interruptions, tuners, flags."""

import copy
import inspect
import json
import math
import pickle
import signal
import subprocess
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint, OnExceptionCheckpoint
from lightning.pytorch.profilers import PyTorchProfiler
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

import settings
from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityError, load_masks
from lightning_sparse.callbacks.trainer.spawned_state import SpawnedState

# Saving and resuming with other callbacks is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


class Whole(settings.Module):
    """Somebody's module with every step there is, and data of its own."""

    batch_size = 64

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def predict_step(self, batch, batch_idx):
        return self(batch[0])

    def train_dataloader(self):
        return settings.batches(batch_size=self.batch_size)


class Plain(Whole):
    """Its optimizer has no state, so that a second fit loses none."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Slow(Whole):
    """LBFGS is the one whose parameters carry hooks too."""

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=3)


class When(Callback):
    """Do something after a step, from within a hook."""

    def __init__(self, step, do):
        self.step, self.do = step, do

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.step:
            self.do(trainer, pl_module)


def hooks_left(model, trainer=None) -> list:
    """Every hook that hangs on the modules, the parameters or the optimizers."""
    kinds = ("_post_accumulate_grad_hooks", "_backward_hooks", "_forward_hooks", "_forward_pre_hooks")
    kinds += ("_optimizer_step_post_hooks", "_optimizer_step_pre_hooks", "_state_dict_hooks")
    things = [*model.modules(), *model.parameters(), *(trainer.optimizers if trainer else [])]
    return [hook for thing in things for kind in kinds for hook in (getattr(thing, kind, None) or {}).values()]


def fit(make_method, module, *callbacks, **arguments):
    model, callback = module(), make_method(0.9)
    settings.quiet(callback, *callbacks, **{"max_epochs": 2, **arguments}).fit(model)
    return model, callback


@cache
def undisturbed(make_method, module=Whole):
    """The training to compare with; no test continues it."""
    return fit(make_method, module)


def same_run(a, b) -> bool:
    """Whether two pairs of model and callback have had exactly the same training."""
    masks = a[1].masks.checksum() == b[1].masks.checksum()
    return settings.same_state(a[0], b[0]) and masks and a[1].history == b[1].history


@pytest.fixture
def saved(make_trainer, tmp_path):
    """A finished training's checkpoint."""
    trainer = make_trainer(GradualPruning(0.9), max_epochs=2)
    trainer.fit(Whole())
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    return tmp_path / "end.ckpt"


# Evaluation


def evaluate(trainer, what, model, **arguments):
    quietly = {} if what == "predict" else {"verbose": False}
    getattr(trainer, what)(model, settings.batches(), **quietly, **arguments)


@pytest.mark.parametrize("what", ["validate", "test", "predict"])
def test_evaluation_alone_changes_nothing_and_knows_of_no_masks(make_method, what, make_trainer):
    callback, model, untouched = make_method(0.9), Whole(), Whole()
    trainer = make_trainer(callback)
    evaluate(trainer, what, model)
    assert settings.same_state(model, untouched)
    assert not hooks_left(model, trainer)
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = callback.masks
    assert callback.history == []


@pytest.mark.parametrize("what", ["validate", "test", "predict"])
def test_evaluation_of_a_checkpoint_reads_its_masks_and_its_weights(what, saved, make_trainer):
    callback, model = GradualPruning(0.9), Whole(seed=9)
    trainer = make_trainer(callback)
    evaluate(trainer, what, model, ckpt_path=saved, **settings.SAFE)
    assert callback.masks.checksum() == load_masks(saved).checksum()
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)
    assert callback.history[-1].step == 15
    held = torch.load(saved, weights_only=True)["state_dict"]
    assert all(torch.equal(value, held[name]) for name, value in model.state_dict().items())
    assert not hooks_left(model, trainer)


def test_evaluation_after_fit_leaves_masks_and_model_as_they_were(make_method, make_trainer):
    model, callback = Whole(), make_method(0.9)
    trainer = make_trainer(callback, max_epochs=2)
    trainer.fit(model)
    for what in ("validate", "test", "predict"):
        evaluate(trainer, what, model)
    assert same_run((model, callback), undisturbed(make_method))
    assert settings.exact(callback.masks, 0.9)
    assert not hooks_left(model, trainer)


def test_evaluation_of_an_earlier_checkpoint_after_fit_shows_the_masks_of_what_it_loaded(make_trainer, tmp_path):
    callback, model = GradualPruning(0.9), Whole()
    early = When(5, lambda trainer, _: trainer.save_checkpoint(tmp_path / "early.ckpt", weights_only=False))
    trainer = make_trainer(callback, early, max_epochs=2)
    trainer.fit(model)
    assert callback.sparsity > 0.89
    evaluate(trainer, "validate", model, ckpt_path=tmp_path / "early.ckpt", **settings.SAFE)
    assert callback.masks.checksum() == load_masks(tmp_path / "early.ckpt").checksum()
    assert settings.dead_are_zero(model, callback.masks)
    assert callback.history[-1].step == 5


# A second fit


def test_a_second_fit_by_a_new_trainer_starts_anew(make_method, make_trainer):
    _, used = fit(make_method, Whole)
    model = Whole()
    make_trainer(used, max_epochs=2).fit(model)
    assert same_run((model, used), undisturbed(make_method))


def test_a_second_fit_by_a_new_trainer_may_be_of_another_model(make_trainer):
    class Other(Whole):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10))

    _, callback = fit(GradualPruning, Whole)
    model = Other()
    make_trainer(callback, max_epochs=2).fit(model)
    assert "head.1.weight" in callback.masks
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


@pytest.mark.filterwarnings("ignore:sparsity .* is planned for step:UserWarning")  # where the first half ends
def test_a_second_fit_by_the_same_trainer_goes_on_as_if_it_had_never_stopped(make_method, make_trainer):
    whole = Plain(), make_method(0.9, total_steps=40)
    make_trainer(whole[1], max_epochs=4).fit(whole[0])
    halves = Plain(), make_method(0.9, total_steps=40)
    trainer = make_trainer(halves[1], max_epochs=2)
    trainer.fit(halves[0])
    assert halves[1].engine.clock == 20
    trainer.fit_loop.max_epochs = 4
    trainer.fit(halves[0])
    assert halves[1].engine.clock == 40
    assert same_run(halves, whole)


# Copies


WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda callback: pickle.loads(pickle.dumps(callback))}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_before_during_and_after_fit_holds_the_masks_and_no_weights(make_method, way, make_trainer):
    model, callback = Whole(), make_method(0.9)
    copies, seen = {"before": way(callback)}, {}

    def during(trainer, pl_module):
        copies["during"], seen["during"] = way(callback), (callback.masks.checksum(), list(callback.history))

    make_trainer(callback, When(8, during), max_epochs=2).fit(model)
    copies["after"], seen["after"] = way(callback), (callback.masks.checksum(), list(callback.history))
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = copies["before"].masks
    for moment, (masks, history) in seen.items():
        assert (copies[moment].masks.checksum(), copies[moment].history) == (masks, history)
    for held in copies.values():
        blob = pickle.dumps(held)
        assert b"Parameter" not in blob
        assert b"torch.optim" not in blob
        assert held.engine is None

    # Each goes its own way from here, as if there had been no copy, and leaves the original alone.
    assert same_run((model, callback), undisturbed(make_method))
    for held in (copies["during"], copies["after"]):
        other = Whole()
        make_trainer(held, max_epochs=2).fit(other)
        assert same_run((other, held), undisturbed(make_method))
    assert same_run((model, callback), undisturbed(make_method))


def test_a_copy_of_the_module_is_sparse_and_free(make_method, make_trainer):
    model, callback = Slow(), make_method(0.9)
    taken = {}

    def during(trainer, pl_module):
        taken["copy"], taken["masks"] = copy.deepcopy(pl_module), copy.deepcopy(callback).masks

    make_trainer(callback, When(8, during), max_epochs=2, limit_train_batches=6).fit(model)
    after = copy.deepcopy(model), copy.deepcopy(callback.masks)
    for replica, masks in ((taken["copy"], taken["masks"]), after):
        assert masks.living < masks.total
        assert settings.dead_are_zero(replica, masks)
        assert not hooks_left(replica)
        make_trainer(max_epochs=1, limit_train_batches=2).fit(replica)
        assert not settings.dead_are_zero(replica, masks)  # nothing of the callback was copied with it
    assert settings.dead_are_zero(model, callback.masks)


def test_a_pickled_copy_does_not_receive_what_was_sent_to_the_original(tmp_path):
    original = SpawnedState()
    (tmp_path / "pickled").write_bytes(pickle.dumps(original))
    twin = pickle.loads((tmp_path / "pickled").read_bytes())
    spawned = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb')).send({'clock': 3})"
    subprocess.run([sys.executable, "-c", spawned, tmp_path / "pickled"], check=True)
    assert twin.receive() is None
    assert original.receive() == {"clock": 3}


# Interruptions


class Stops(Whole):
    """Fails in a step of its own, once."""

    where, error, still = "training_step", RuntimeError("enough"), 13

    def stop(self, here):
        if self.trainer.sanity_checking or here != self.where:
            return
        self.still -= 1
        if self.still == 0:
            raise self.error

    def training_step(self, batch, batch_idx):
        self.stop("training_step")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.stop("validation_step")

    def val_dataloader(self):
        return settings.batches()


class StopsSlowly(Stops):
    configure_optimizers = Slow.configure_optimizers
    still = 30  # each step evaluates several times


class HalfStep(torch.optim.SGD):
    """Fails after the weights have moved and before the step is over, when dead weights have moved too."""

    still = 13

    def step(self, closure=None):
        loss = super().step(closure)
        HalfStep.still -= 1
        if HalfStep.still == 0:
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise RuntimeError("enough")
        return loss


class StopsInAStep(Whole):
    def configure_optimizers(self):
        HalfStep.still = 13
        return HalfStep(self.parameters(), lr=self.lr, momentum=0.9)


@pytest.fixture
def interrupts():
    """Lightning removes the handler of SIGINT after it has caught one."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


class SavesOnException(ModelCheckpoint):
    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, save_on_exception=True, **keywords)


since_2_6 = pytest.mark.skipif(
    "save_on_exception" not in inspect.signature(ModelCheckpoint).parameters, reason="this Lightning saves nothing then"
)


def true_and_free(model, callback, trainer) -> None:
    assert not hooks_left(model, trainer)
    assert callback.masks.living < callback.masks.total
    assert settings.dead_are_zero(model, callback.masks)


@pytest.mark.parametrize("kind", [Stops, StopsSlowly])
@pytest.mark.parametrize("where", ["training_step", "validation_step"])
@pytest.mark.parametrize(("error", "raised"), [(RuntimeError, RuntimeError), (KeyboardInterrupt, SystemExit)])
def test_a_fit_that_fails_leaves_true_masks_and_no_hook_and_can_be_called_again(
    kind, where, error, raised, make_trainer, interrupts
):
    model, callback = kind(), BrainDevelopment(0.9)
    model.where, model.error = where, error("enough")
    if where == "validation_step":
        model.still = 5  # after the first epoch
    trainer = make_trainer(callback, max_epochs=2)
    with pytest.raises(raised):
        trainer.fit(model)
    true_and_free(model, callback, trainer)
    clock = callback.engine.clock
    assert 0 < clock < 20

    model.train()  # Lightning leaves it in evaluation mode where validation has failed
    trainer.fit(model)  # the same Trainer goes on
    assert callback.engine.clock > clock
    assert settings.exact(callback.masks, 0.9)
    true_and_free(model, callback, trainer)

    again = make_trainer(callback, max_epochs=2)  # a new one starts from the beginning
    again.fit(model)
    assert callback.engine.clock == 20
    assert settings.exact(callback.masks, 0.9)
    true_and_free(model, callback, again)


def test_every_method_survives_a_failing_step(make_method, make_trainer):
    model, callback = Stops(), make_method(0.9)
    trainer = make_trainer(callback, max_epochs=2)
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(model)
    true_and_free(model, callback, trainer)
    trainer.fit(model)
    assert settings.exact(callback.masks, 0.9)
    true_and_free(model, callback, trainer)


def test_a_failure_in_the_sanity_check_leaves_nothing(make_method, make_trainer):
    class Insane(Whole):
        def validation_step(self, batch, batch_idx):
            raise RuntimeError("enough")

    model, callback, untouched = Insane(), make_method(0.9), Whole()
    trainer = make_trainer(callback, max_epochs=2)
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(model, val_dataloaders=settings.batches())
    assert settings.same_state(model, untouched)
    assert not hooks_left(model, trainer)
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = callback.masks


@pytest.mark.filterwarnings("ignore:.fit.ckpt_path:UserWarning", "ignore:`.fit.ckpt_path:UserWarning")
@pytest.mark.parametrize("keep", [OnExceptionCheckpoint, pytest.param(SavesOnException, marks=since_2_6)])
def test_a_failure_between_the_step_and_the_masks_leaves_a_true_model_and_a_true_checkpoint(
    keep, make_trainer, tmp_path
):
    keeper = keep(tmp_path, filename="last")
    model, callback = StopsInAStep(), GradualPruning(0.9)
    trainer = make_trainer(callback, keeper, max_epochs=2, enable_checkpointing=True)
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(model)
    true_and_free(model, callback, trainer)
    held = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    masks = load_masks(tmp_path / "last.ckpt")
    assert masks.checksum() == callback.masks.checksum()
    assert all(bool((held[name][~mask] == 0).all()) for name, mask in masks.items())


def test_a_score_that_fails_in_the_middle_of_an_update_leaves_a_true_model(make_trainer):
    calls = []

    def tired(layer):
        calls.append(layer.name)
        if len(calls) == 3 * 8 + 2:  # the second layer of the ninth update
            raise RuntimeError("enough")
        return layer.weight.abs()

    model, callback = Whole(), GradualPruning(0.9, criterion=tired, every=1)
    trainer = make_trainer(callback, max_epochs=2)
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(model)
    true_and_free(model, callback, trainer)
    assert callback.history[-1].sparsity == callback.sparsity


SIGNALLED = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background inherits that it is ignored
sys.path.insert(0, sys.argv[1])
import settings
from lightning.pytorch import Callback
from lightning_sparse import SparseTraining

class Bell(Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 15:
            print("training", flush=True)

model, callback = settings.Module(), SparseTraining(0.9, turnover=0.3, every=1)
trainer = settings.quiet(callback, Bell(), max_epochs=100_000)
code = None
try:
    trainer.fit(model, settings.batches())
except SystemExit as end:
    code = end.code

def state():
    hooks = [optimizer._optimizer_step_post_hooks for optimizer in trainer.optimizers]
    hooks += [parameter._post_accumulate_grad_hooks for parameter in model.parameters()]
    return {
        "hooks": sum(len(some or {}) for some in hooks),
        "true": settings.dead_are_zero(model, callback.masks),
    }

report = {"code": code, "interrupted": state()}
trainer = settings.quiet(callback, max_epochs=1)
trainer.fit(model, settings.batches())
print(json.dumps({**report, "again": state(), "exact": settings.exact(callback.masks, 0.9)}))
"""


def test_a_real_sigint_in_the_middle_of_training(tmp_path):
    script = tmp_path / "signalled.py"
    script.write_text(SIGNALLED)
    command = [sys.executable, str(script), str(Path(settings.__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout.readline().strip() == "training"
            child.send_signal(signal.SIGINT)
            out, _ = child.communicate(timeout=120)
        finally:
            child.kill()
    report = json.loads(out.splitlines()[-1])
    sound = {"hooks": 0, "true": True}
    assert report == {"code": 1, "interrupted": sound, "again": sound, "exact": True}


# Tuners, which train for a moment and put everything back


class Tuned(Whole):
    """The batch size finder wants both."""

    def val_dataloader(self):
        return settings.batches(batch_size=self.batch_size)


@pytest.mark.skipif(not settings.SAFE, reason="the finder of Lightning 2.5 leaves traces in a dense run too")
def test_a_learning_rate_finder_before_training_leaves_no_trace_in_it(make_method, tmp_path):
    finder = LearningRateFinder(num_training_steps=12, early_stop_threshold=None, update_attr=False)
    tuned = fit(make_method, Whole, finder, default_root_dir=tmp_path)
    assert same_run(tuned, undisturbed(make_method))
    assert not hooks_left(tuned[0])


def test_after_a_batch_size_finder_training_is_that_of_the_size_found(tmp_path):
    """With larger batches there are fewer steps, and shares are shares of these."""
    finder = BatchSizeFinder(init_val=64, max_trials=2, steps_per_trial=1)
    model, callback = fit(BrainDevelopment, Tuned, finder, default_root_dir=tmp_path)
    assert model.batch_size > 64
    assert callback.engine.plan == callback.recipe.resolve(2 * math.ceil(640 / model.batch_size))
    assert not hooks_left(model)

    class Found(Tuned):
        batch_size = model.batch_size

    assert same_run((model, callback), fit(BrainDevelopment, Found))


def test_a_fit_after_the_tuner(make_method, make_trainer):
    model, callback = Whole(), make_method(0.9)
    trainer = make_trainer(callback, max_epochs=2)
    Tuner(trainer).lr_find(model, num_training=40, early_stop_threshold=None)
    with pytest.raises(SparsityError, match="no masks yet"):
        _ = callback.masks
    assert not hooks_left(model, trainer)
    trainer.fit(model)
    assert callback.engine.clock == 20
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


# Flags of the Trainer


PLANS = {
    "steps": lambda: BrainDevelopment(0.9, densest_at=10, pruned_by=20, turnover_until=25, every=2),
    "shares": lambda: BrainDevelopment(0.9),
    "mixed": lambda: BrainDevelopment(0.9, densest_at=100, pruned_by=0.65, turnover_until=0.9, every=7),
    "share then steps": lambda: GradualPruning(0.9, begin=0.2, end=5000, every=100),
    "steps of gradual": lambda: GradualPruning(0.9, begin=100, end=5000, every=100),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("steps", [True, 3])
def test_a_dev_run_reaches_the_final_sparsity_in_its_few_steps(plan, steps, make_trainer):
    model, callback = Whole(), plan()
    make_trainer(callback, fast_dev_run=steps).fit(model, val_dataloaders=settings.batches())
    assert callback.engine.clock == int(steps)
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


def test_every_method_in_a_dev_run(make_method, make_trainer):
    model, callback = Whole(), make_method(0.9)
    make_trainer(callback, fast_dev_run=True).fit(model, val_dataloaders=settings.batches())
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


FEWER = {
    "overfit_batches": ({"overfit_batches": 2}, 4),
    "limit_train_batches as a number": ({"limit_train_batches": 7}, 14),
    "limit_train_batches as a share": ({"limit_train_batches": 0.5}, 10),
    "max_steps": ({"max_steps": 13}, 13),
    "max_time not reached": ({"max_time": timedelta(hours=1)}, 20),
    "reloaded": ({"reload_dataloaders_every_n_epochs": 1}, 20),
}


@pytest.mark.filterwarnings(
    "ignore:no connection will be replaced"
)  # four steps are fewer than RigL's five between updates
@pytest.mark.parametrize(("arguments", "steps"), FEWER.values(), ids=FEWER)
def test_shares_are_shares_of_the_steps_there_will_be(make_method, arguments, steps):
    model, callback = fit(make_method, Whole, **arguments)
    assert callback.engine.clock == steps
    assert callback.engine.plan == callback.recipe.resolve(steps)
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


def test_a_time_limit_that_ends_training_early_is_reported(make_trainer):
    model, callback = Whole(), GradualPruning(0.9)
    with pytest.warns(UserWarning, match=r"training stopped at step \d+, before step 7500 "):
        make_trainer(callback, max_epochs=1000, max_time=timedelta(milliseconds=1)).fit(model)
    assert settings.dead_are_zero(model, callback.masks)
    assert not hooks_left(model)


def test_a_time_limit_alone_gives_shares_no_length(make_trainer):
    arguments = {"max_epochs": None, "max_time": timedelta(milliseconds=1)}
    with pytest.raises(SparsityError, match="max_steps"):
        make_trainer(GradualPruning(0.9), **arguments).fit(Whole())
    model, callback = Whole(), SparseTraining(0.9)  # no time in it
    make_trainer(callback, **arguments).fit(model)
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


class Growing(Whole):
    """More data in the second epoch than the Trainer could know of in the first."""

    def train_dataloader(self):
        return DataLoader(settings.digits(), batch_size=64 if self.trainer.current_epoch == 0 else 32)


def test_reloaded_data_of_another_length_keep_the_plan(make_trainer):
    model, callback = Growing(), GradualPruning(0.9)
    make_trainer(callback, max_epochs=2, reload_dataloaders_every_n_epochs=1).fit(model)
    assert callback.engine.plan.sparsity.end == 15
    assert callback.engine.clock == 30
    assert settings.exact(callback.masks, 0.9)
    assert settings.dead_are_zero(model, callback.masks)


def test_barebones_is_the_same_run(make_method):
    model, callback = Whole(), make_method(0.9)
    Trainer(max_epochs=2, accelerator="cpu", barebones=True, callbacks=[callback]).fit(model)
    assert same_run((model, callback), undisturbed(make_method))


@pytest.mark.parametrize("profiler", ["simple", "pytorch"])
def test_a_profiled_run_is_the_same_run(profiler, tmp_path):
    if profiler == "pytorch":
        profiler = PyTorchProfiler(dirpath=tmp_path, filename="profile", export_to_chrome=False)
    profiled = fit(BrainDevelopment, Whole, profiler=profiler)
    assert same_run(profiled, undisturbed(BrainDevelopment))
    assert not hooks_left(profiled[0])


# Two callbacks


def pair():
    body = BrainDevelopment(0.9, include=["body.*.weight"], exclude=["body.1.*"], every=3, growth="momentum")
    return body, SparseTraining(0.5, include=["head.weight"], turnover=0.2, grow="random", every=2, seed=7)


@pytest.mark.parametrize("turned", [False, True])
def test_two_callbacks_keep_their_own_state_through_a_save_and_a_resume(turned, make_trainer, tmp_path):
    whole, body, head = Whole(), *pair()
    make_trainer(body, head, max_epochs=2).fit(whole)
    assert settings.exact(body.masks, 0.9)
    assert settings.exact(head.masks, 0.5)

    keep = When(10, lambda trainer, _: trainer.save_checkpoint(tmp_path / "half.ckpt", weights_only=False))
    make_trainer(*pair(), keep, max_epochs=2).fit(Whole())
    resumed, again = Whole(seed=9), pair()
    make_trainer(*(again[::-1] if turned else again), max_epochs=2).fit(
        resumed, ckpt_path=tmp_path / "half.ckpt", **settings.SAFE
    )
    assert settings.same_state(resumed, whole)
    for one, other in zip(again, (body, head), strict=True):
        assert one.masks.checksum() == other.masks.checksum()
        assert one.history == other.history
    held = load_masks(tmp_path / "half.ckpt")
    assert list(held) == ["body.0.weight", "body.3.weight", "head.weight"]


def test_two_callbacks_that_want_one_parameter_are_refused_before_training(make_method, make_trainer):
    class Untrained(Whole):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training has started")

    model = Untrained()
    trainer = make_trainer(make_method(0.9), SparseTraining(0.5, include=["head.weight"]))
    with pytest.raises(SparsityError, match=r"both want 'head\.weight'"):
        trainer.fit(model)
    assert not hooks_left(model, trainer)
