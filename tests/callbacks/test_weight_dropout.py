"""WeightDropout and TargetedDropout in a Trainer: beside every sparsity callback, in every mode, resumed, refused."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import settings
from lightning_sparse import (
    AdversarialTraining,
    GradualPruning,
    Quantise,
    RandomState,
    SparseTraining,
    SparsityError,
    TargetedDropout,
    WeightDropout,
    of_network,
)

KINDS = {"dropconnect": lambda **k: WeightDropout(0.5, **k), "targeted": lambda **k: TargetedDropout(0.75, 0.66, **k)}
NAMES = ["body.0.weight", "body.3.weight", "head.weight"]
every_kind = pytest.mark.parametrize("kind", KINDS)


class Watched(settings.Module):
    """Notes, in each pass, whether it is that of whole weights, and of how many dead."""

    def __init__(self, watched=None, **arguments):
        super().__init__(**arguments)
        self.watched, self.training_passes, self.other_passes = watched, [], []

    def forward(self, x):
        whole = nn.functional.linear(x, self.body[0].weight, self.body[0].bias)
        passes = self.training_passes if self.training else self.other_passes
        passes.append(torch.allclose(self.body[0](x), whole))
        return super().forward(x)


def fit(*callbacks, model=None, loader=None, validate=False, resume=None, **arguments):
    model = model or Watched()
    start = {"ckpt_path": resume, **settings.SAFE} if resume else {}
    trainer = settings.quiet(*callbacks, **arguments)
    trainer.fit(model, loader or settings.batches(), settings.batches() if validate else None, **start)
    return model


@every_kind
def test_training_drops_and_all_else_is_whole(kind):
    callback = KINDS[kind]()
    model = fit(callback, validate=True)
    assert len(model.training_passes) == 40
    assert not any(model.training_passes)
    assert model.other_passes
    assert all(model.other_passes)
    assert callback.weights.draws == 40
    assert not model.body[0]._forward_pre_hooks


@every_kind
@pytest.mark.parametrize("method", [*settings.METHODS, *settings.RECIPES])
@pytest.mark.filterwarnings("ignore:no connection")
def test_it_goes_with_every_sparsity_callback_on_either_side(kind, method):
    models = []
    for order in (1, -1):
        pruning, callback = (settings.METHODS | settings.RECIPES)[method](0.8), KINDS[kind]()
        models.append(fit(*[pruning, callback][::order], model=settings.Module(), max_epochs=2))
        assert settings.exact(pruning.masks, pruning.recipe.sparsity.final)
        assert settings.dead_are_zero(models[-1], pruning.masks)
    assert settings.same_state(*models)


class ByHand(Watched):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.manual_backward(super().training_step(batch, batch_idx))
        self.optimizers().step()
        self.optimizers().zero_grad()


class Slow(Watched):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=4)


@every_kind
@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (Watched, {"gradient_clip_val": 0.1}),
        (Watched, {"accumulate_grad_batches": 3}),
        (Watched, {"precision": "bf16-mixed"}),
        (Watched, {"precision": "64-true"}),
        (Watched, {"precision": "bf16-true"}),
        (ByHand, {}),
        (Slow, {}),
    ],
    ids=str,
)
def test_modes_of_the_trainer(kind, make, arguments):
    pruning = GradualPruning(0.8, end=0.5, **({"total_steps": 20} if make is ByHand else {}))
    model = fit(KINDS[kind](), pruning, model=make(), max_epochs=2, **arguments)
    assert len(model.training_passes) >= 20
    assert not any(model.training_passes)
    assert settings.dead_are_zero(model, pruning.masks)


@every_kind
def test_no_other_random_number_changes_and_its_own_are_those_of_its_seed(kind):
    class Drawing(settings.Module):
        def training_step(self, batch, batch_idx):
            self.drawn = [*getattr(self, "drawn", []), torch.rand(1).item()]
            return super().training_step(batch, batch_idx)

    def run(*callbacks):
        model = Drawing()
        torch.manual_seed(3)
        return fit(*callbacks, model=model, max_epochs=1)

    plain, dropped, again, other = run(), run(KINDS[kind]()), run(KINDS[kind]()), run(KINDS[kind](seed=1))
    assert plain.drawn == dropped.drawn == other.drawn
    assert settings.same_state(dropped, again)
    assert not settings.same_state(dropped, plain)
    assert not settings.same_state(dropped, other)


@every_kind
@pytest.mark.parametrize("steps", [{"every_n_epochs": 1}, {"every_n_train_steps": 7}], ids=str)
@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`", "ignore:You're resuming from a checkpoint")
def test_a_resumed_training_is_the_one_that_never_stopped(kind, steps, tmp_path):
    def callbacks():
        return [GradualPruning(0.8), KINDS[kind](), RandomState()]

    keep = ModelCheckpoint(dirpath=tmp_path, filename="{step}", save_top_k=-1, **steps)
    loader = StatefulDataLoader(settings.digits(), batch_size=64)
    whole = fit(*callbacks(), keep, model=settings.Module(), loader=loader, max_epochs=2, enable_checkpointing=True)
    path = tmp_path / ("step=7.ckpt" if "every_n_train_steps" in steps else "step=10.ckpt")
    resumed = callbacks()
    loader = StatefulDataLoader(settings.digits(), batch_size=64)
    other = fit(*resumed, model=settings.Module(seed=5), loader=loader, max_epochs=2, resume=path)
    assert settings.same_state(whole, other)
    assert resumed[1].weights.draws == 20
    changed = WeightDropout(0.2) if kind == "dropconnect" else TargetedDropout(0.75, 0.2)
    with pytest.raises(SparsityError, match=r"p=0\.2, and the checkpoint was trained with p=0"):
        fit(GradualPruning(0.8), changed, model=settings.Module(), loader=loader, max_epochs=2, resume=path)


@every_kind
def test_a_second_fit_of_a_trainer_goes_on_with_the_draws(kind, make_trainer):
    callback = KINDS[kind]()
    trainer, model = make_trainer(callback, max_epochs=1), settings.Module()
    trainer.fit(model, settings.batches())
    trainer.fit_loop.max_epochs = 2
    trainer.fit(model, settings.batches())
    assert callback.weights.draws == 20


@every_kind
def test_scores_of_the_whole_network_see_whole_weights(kind):
    model, seen = Watched(), []

    @of_network
    def score(network):
        assert network.model.training
        network.loss(network.model, network.batches[0])
        seen.append(model.training_passes.pop())
        return {name: weight.detach().abs() for name, weight in network.parameters.items()}

    pruning = SparseTraining(settings.Curve(0.0).then(0.75, 0.5, "linear"), drop=score, every=5)
    fit(KINDS[kind](), pruning, model=model, max_epochs=2)
    assert len(seen) >= 2
    assert all(seen)
    assert not any(model.training_passes)


@every_kind
@pytest.mark.parametrize("order", [1, -1])
def test_beside_quantised_weights_and_adversarial_images(kind, order):
    quantise, pruning = Quantise(2, begin=3), GradualPruning(0.8, end=0.5)
    model = fit(*[quantise, pruning, KINDS[kind](), AdversarialTraining(0.05)][::order], max_epochs=2)
    assert not any(model.training_passes)
    assert all(model.other_passes)  # those of the attack, which sees the network that is evaluated
    assert all(len(model.get_parameter(name).unique()) <= 5 for name in NAMES)
    assert settings.dead_are_zero(model, pruning.masks)


@every_kind
@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))], ids=["copy", "pickle"])
def test_a_copied_callback_knows_how_far_it_was(kind, way):
    callback = KINDS[kind]()
    fit(callback, max_epochs=1)
    assert way(callback).state_dict() == callback.state_dict()
    assert callback.state_dict()["memory"] == {"draws": 10}


@every_kind
def test_a_spawned_fit(kind, make_trainer):
    model = settings.Module()
    before = model.head.weight.clone()
    make_trainer(KINDS[kind](), devices=2, strategy="ddp_spawn", max_epochs=1).fit(model, settings.batches())
    assert not torch.equal(model.head.weight, before)


def test_targeted_dropout_keeps_what_is_pruned_from_being_needed():
    """The point of it: with the candidates gone, the loss is closer to that of the whole network."""

    def harm(*callbacks):
        model = fit(*callbacks, model=settings.Module(lr=0.05), max_epochs=12).eval()
        images, labels = settings.digits().tensors
        whole = nn.functional.cross_entropy(model(images), labels).item()
        for name in NAMES[:2]:
            weight = model.get_parameter(name)
            cut = weight.detach().abs().kthvalue(round(0.9 * weight.shape[1]), 1, keepdim=True).values
            weight.data.mul_(weight.abs() > cut)
        return nn.functional.cross_entropy(model(images), labels).item() - whole

    assert harm(TargetedDropout(0.9, 0.8)) < 0.3 * harm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightDropout(0), "p=0 drops nothing: write a probability such as 0.5"),
        (lambda: WeightDropout(1.0), "p=1.0 drops all"),
        (lambda: TargetedDropout(0), "share=0 makes no weight a candidate: write a share such as 0.75"),
        (lambda: TargetedDropout(75), "share=75 is not a share"),
        (lambda: WeightDropout(seed=-1), "seed=-1"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


def test_two_that_want_the_same_weight_are_refused_and_the_advice_works():
    with pytest.raises(SparsityError, match=r"both want 'body.0.weight': give each parameter to one of them"):
        fit(WeightDropout(), TargetedDropout())
    fit(WeightDropout(include=["head.weight"]), TargetedDropout(exclude=["head.weight"]), max_epochs=1)
    with pytest.raises(SparsityError, match="hold WeightDropout and WeightDropout"):
        fit(WeightDropout(0.5), WeightDropout(0.2))
