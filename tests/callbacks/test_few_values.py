"""Quantise and Share in a Trainer: beside every sparsity callback, in every mode, resumed, averaged, in two processes."""

import copy
import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_avg_fn

import settings
import warm_process
from lightning_sparse import GradualPruning, Quantise, RigL, Share, SparsityError

FORMS = {
    "quantise": lambda **k: Quantise(2, **k),
    "rows": lambda **k: Quantise(3, per="row", symmetric=True, **k),
    "share": lambda **k: Share(2, **k),
    "network": lambda **k: Share(3, codebook_of="network", **k),
}
NAMES = ["body.0.weight", "body.3.weight", "head.weight"]
every_form = pytest.mark.parametrize("form", FORMS)


def few(model, callback):
    """Whether each weight takes as few values as the callback promises, counted here."""
    for name in callback.weights.parameters if callback.weights else NAMES:
        weight = model.get_parameter(name).detach()
        rows = weight if getattr(callback, "per", "") == "row" else weight.reshape(1, -1)
        if max(len(row[row != 0].unique()) for row in rows) > 2**callback.bits:
            return False
    return True


class Watched(settings.Module):
    """Notes whether weights are few in every forward pass of training and validation, not in a score's, within a step."""

    def __init__(self, watched=None, **arguments):
        super().__init__(**arguments)
        self.watched, self.seen = watched, []

    def forward(self, x):
        looked_at = not (self.training or self.trainer.validating)
        begun = self.watched is not None and self.watched.weights is not None and self.watched.weights.begun
        if begun and not looked_at:
            self.seen.append(few(self, self.watched))
        return super().forward(x)


def fit(*callbacks, model=None, loader=None, validate=False, resume=None, **arguments):
    model = model or Watched(next(c for c in callbacks if isinstance(c, Quantise | Share)))
    trainer = settings.quiet(*callbacks, **arguments)
    start = {"ckpt_path": resume, **settings.SAFE} if resume else {}
    trainer.fit(model, loader or settings.batches(), settings.batches() if validate else None, **start)
    return model


@every_form
@pytest.mark.parametrize("begin", [0.0, 0.5, 7])
def test_every_pass_after_it_has_begun_sees_few_values(form, begin):
    callback = FORMS[form](begin=begin)
    model = fit(callback, validate=True)
    steps = {0.0: 40, 0.5: 20, 7: 33}[begin]
    assert all(model.seen)
    assert len(model.seen) == steps + {0.0: 40, 0.5: 20, 7: 40}[begin]  # validated after each of four epochs
    assert few(model, callback)
    assert callback.distinct_values.keys() == set(NAMES)
    assert max(callback.distinct_values.values()) <= 2**callback.bits
    for name in NAMES:
        weight = model.get_parameter(name).detach()
        levels = callback.weights.levels_of(name)
        assert torch.equal(levels.entries[:, [0, -1]], levels.entries[:, [0, -1]].half().float())
        if len(levels.entries) == 1:
            assert set(weight[weight != 0].tolist()) <= set(levels.entries[0].tolist())


@every_form
@pytest.mark.parametrize("method", [*settings.METHODS, *settings.RECIPES])
@pytest.mark.filterwarnings("ignore:no connection")
def test_it_goes_with_every_sparsity_callback_on_either_side(form, method):
    models = []
    for order in (1, -1):
        pruning = (settings.METHODS | settings.RECIPES)[method](0.8)
        callback = FORMS[form](begin=0.25)
        model = fit(*[pruning, callback][::order], max_epochs=2)
        assert settings.exact(pruning.masks, pruning.recipe.sparsity.final)
        assert settings.dead_are_zero(model, pruning.masks)
        assert pruning.sparsity == pruning.masks.sparsity
        assert all(model.seen)
        assert few(model, callback)
        models.append(model)
    assert settings.same_state(*models)


class ByHand(Watched):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer = self.optimizers()
        (optimizer.optimizer if batch_idx % 2 else optimizer).step()
        optimizer.zero_grad()


@every_form
@pytest.mark.parametrize(
    "arguments",
    [
        {"gradient_clip_val": 0.1},
        {"accumulate_grad_batches": 3},
        {"precision": "bf16-mixed"},
        {"precision": "64-true"},
        {"precision": "bf16-true"},
    ],
    ids=str,
)
def test_modes_of_the_trainer(form, arguments):
    callback, pruning = FORMS[form](begin=0.25), GradualPruning(0.8, end=0.5)
    model = fit(callback, pruning, **arguments)
    assert all(model.seen)
    assert model.seen
    assert few(model, callback)
    assert settings.dead_are_zero(model, pruning.masks)


@every_form
def test_steps_by_hand(form):
    callback = FORMS[form](begin=10)
    model = fit(callback, model=ByHand(callback))
    assert all(model.seen)
    assert len(model.seen) == 30
    assert few(model, callback)
    with pytest.raises(SparsityError, match=r"begin=0.5\) is a share .* write begin= in optimizer steps"):
        fit(FORMS[form](begin=0.5), model=ByHand())


class Save(Callback):
    def __init__(self, folder, *epochs):
        self.folder, self.epochs = folder, epochs

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch in self.epochs:
            trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


@every_form
@pytest.mark.parametrize("epoch", [0, 2])
def test_it_resumes_bit_for_bit_from_before_and_after_its_beginning(form, epoch, tmp_path):
    whole = fit(GradualPruning(0.5), callback := FORMS[form](begin=15), Save(tmp_path, epoch))
    path = tmp_path / f"{epoch}.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    if epoch == 2:
        saved = Watched()
        saved.load_state_dict(state)
        assert few(saved, callback)
    again = FORMS[form](begin=15)
    resumed = fit(again, GradualPruning(0.5), resume=path)
    assert settings.same_state(whole, resumed)
    assert again.distinct_values == callback.distinct_values


@every_form
def test_what_is_saved_is_what_was_validated(form, tmp_path):
    class Keeps(Watched):
        def on_validation_start(self):
            self.validated = copy.deepcopy(self.state_dict())

    callback, kept = FORMS[form](begin=5), {}

    class Note(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            kept[trainer.current_epoch] = pl_module.validated

    fit(callback, Save(tmp_path, 1, 2), Note(), model=Keeps(callback), validate=True)
    for epoch in (1, 2):
        state = torch.load(tmp_path / f"{epoch}.ckpt", weights_only=True)["state_dict"]
        assert all(torch.equal(state[name], kept[epoch][name]) for name in NAMES)


def test_another_form_cannot_go_on(tmp_path):
    fit(Quantise(2), Save(tmp_path, 0), max_epochs=1)
    with pytest.raises(SparsityError, match=r"Quantise\(bits=2, per='tensor', symmetric=False\), and this is .*bits=3"):
        fit(Quantise(3), resume=tmp_path / "0.ckpt")


@every_form
@pytest.mark.parametrize("average", ["ema", "swa"])
def test_an_average_takes_few_values_where_it_is_used(form, average, tmp_path):
    averaging = {
        "ema": lambda: WeightAveraging(avg_fn=get_ema_avg_fn(0.8)),
        "swa": lambda: StochasticWeightAveraging(0.05, swa_epoch_start=2),
    }[average]
    models = []
    for order in (1, -1):
        callback = FORMS[form](begin=5)
        model = fit(*[averaging(), callback][::order], Save(tmp_path, 2), validate=True)
        assert all(model.seen)
        assert few(model, callback)
        saved = Watched()
        saved.load_state_dict(torch.load(tmp_path / "2.ckpt", weights_only=False)["state_dict"])
        assert few(saved, callback)
        models.append(model)
    assert settings.same_state(*models)
    plain = fit(FORMS[form](begin=5), validate=True)
    assert not settings.same_state(plain, models[0])  # it is the average


@every_form
def test_an_average_that_is_validated_is_not_moved_by_it(form):
    """The average at the end is the mean of what was trained, whether it was validated on the way or not."""
    models = [
        fit(WeightAveraging(avg_fn=get_ema_avg_fn(0.8)), FORMS[form](begin=5), validate=validate)
        for validate in (False, True)
    ]
    assert all(torch.equal(models[0].get_parameter(name), models[1].get_parameter(name)) for name in NAMES)


class Slow(settings.Module):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=2)


@every_form
def test_lbfgs_is_refused(form):
    with pytest.raises(SparsityError, match="LBFGS"):
        fit(FORMS[form](), model=Slow())


@every_form
@pytest.mark.filterwarnings("ignore:.*is rounded")
def test_a_trial_run_tries_it(form):
    callback = FORMS[form](begin=1000)
    model = fit(callback, fast_dev_run=3)
    assert model.seen == [True]
    assert few(model, callback)


@every_form
def test_validation_alone_changes_nothing(form, tmp_path):
    fit(FORMS[form](begin=5), Save(tmp_path, 3))
    model, callback = Watched(), FORMS[form](begin=5)
    before = copy.deepcopy(model.state_dict())
    settings.quiet(callback).validate(model, settings.batches(), verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    settings.quiet(callback).validate(
        model, settings.batches(), ckpt_path=tmp_path / "3.ckpt", verbose=False, **settings.SAFE
    )
    assert few(model, callback)


def test_what_ends_before_it_begins_is_rounded_and_this_is_said():
    callback = Quantise(2, begin=100)
    with pytest.warns(UserWarning, match=r"begin=100\): training ended at step 10, before step 100"):
        fit(callback, max_epochs=1)
    assert set(callback.distinct_values.values()) == {4}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Quantise")
        fit(Quantise(2, begin=1.0), max_epochs=1)


def test_a_second_fit_goes_on():
    callback = Quantise(2, begin=5)
    trainer = settings.quiet(callback, max_epochs=1)
    model = settings.Module()
    trainer.fit(model, settings.batches())
    latent = callback.weights.latent["head.weight"].clone()
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, settings.batches())
    assert few(model, callback)
    assert not torch.equal(latent, callback.weights.latent["head.weight"])
    assert callback._begin_at == 5


def test_a_copy_holds_the_state_and_no_weights():
    callback = Quantise(2)
    fit(callback, max_epochs=1)
    for again in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert again.weights is None
        assert again.distinct_values == callback.distinct_values
        assert torch.equal(
            again.state_dict()["weights"]["latent"]["head.weight"], callback.weights.latent["head.weight"]
        )


@every_form
def test_an_exception_leaves_few_values_and_no_hook(form):
    class Breaks(Watched):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if self.global_step == 12:
                raise RuntimeError("planned")

    callback = FORMS[form](begin=5)
    model = Breaks(callback)
    with pytest.raises(RuntimeError, match="planned"):
        fit(callback, model=model)
    assert few(model, callback)
    optimizer = model.trainer.optimizers[0]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_two_on_different_parameters_and_on_the_same():
    first, second = Quantise(1, include=["head.weight"]), Share(2, exclude=["head.weight"], begin=0)
    model = fit(first, second)
    assert first.distinct_values == {"head.weight": 2}
    assert second.distinct_values == {"body.0.weight": 4, "body.3.weight": 4}
    assert few(model, first)
    with pytest.raises(SparsityError, match=r"Quantise and Share both want 'head.weight': give each"):
        fit(Quantise(1, include=["head.weight"]), Share(2))


def test_what_no_optimizer_trains_is_left_alone_or_refused():
    class Frozen(settings.Module):
        def configure_optimizers(self):
            return torch.optim.SGD(self.head.parameters(), 0.1)

    callback = Quantise(1)
    fit(callback, model=Frozen())
    assert callback.distinct_values == {"head.weight": 2}
    with pytest.raises(SparsityError, match=r"no optimizer trains .*body.0.weight.*include="):
        fit(Quantise(1, exclude=["head.*"]), model=Frozen())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Quantise(9), r"bits=9 is not an integer in \[1, 8\]: write 8"),
        (lambda: Quantise(2, per="column"), "per='column' does not exist"),
        (lambda: Quantise(2, begin=1.5), "begin=1.5 is not a share"),
        (lambda: Share(0), r"bits=0 is not an integer in \[1, 8\]: write 1"),
        (lambda: Share(2, codebook_of="all"), "codebook_of='all' does not exist"),
    ],
)
def test_arguments_out_of_range(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


# Two processes

SCRIPT = Path(settings.__file__).with_name("few_values_script.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = warm_process.run(str(SCRIPT), str(folder), cwd=folder, env=environment, each=warm_process.ranks(2))
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@every_form
def test_two_ranks_agree(form, ranks):
    first, second = (rank[form] for rank in ranks)
    assert first == second
    assert first["few"]


def test_two_ranks_have_the_same_factors(ranks):
    first, second = (rank["factorise"] for rank in ranks)
    assert first == second
    assert {"body.0.0.weight", "body.0.1.weight"} <= first["weights"].keys()
    assert first["sparsity"] == pytest.approx(0.8, abs=1e-3)


def test_after_a_spawned_fit_the_state_is_in_the_main_process():
    model, callback = settings.Module(), Quantise(2)
    settings.quiet(callback, devices=2, strategy="ddp_spawn", max_epochs=1).fit(model, settings.batches())
    assert callback.distinct_values or callback.state_dict()["distinct_values"]
    assert callback.state_dict()["weights"]["latent"].keys() == set(NAMES)
    assert few(model, callback)


@pytest.mark.parametrize("seed", range(2))
def test_training_with_few_values_beats_rounding_afterwards(seed):
    class Decaying(settings.Module):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1, 0.9)
            decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    def loss(callback):
        model = fit(callback, model=Decaying(seed=seed), max_epochs=20).eval()
        images, labels = settings.digits().tensors
        return nn.functional.cross_entropy(model(images), labels).item()

    for make, bits in ((Quantise, 2), (Share, 2), (Share, 3)):
        assert loss(make(bits, begin=0.5)) < loss(make(bits, begin=1.0)), (make, bits)


def test_rigl_grows_by_the_same_gradients_whichever_comes_first():
    histories = []
    for order in (1, -1):
        pruning = RigL(0.8, every=3)
        fit(*[pruning, Quantise(4)][::order], max_epochs=2)
        histories.append(pruning.history)
    assert histories[0] == histories[1]
