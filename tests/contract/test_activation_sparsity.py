"""Sparse activations beside every sparsity callback, in every mode of the Trainer."""

import copy
import pickle

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch.utils.data import DataLoader

import settings
from lightning_sparse import ActivationSparsity, Curve, GradualPruning, SparsityError
from lightning_sparse.ephemeral import Selection, activations_of
from settings import RECIPES, SAFE

RULES = ("k_winners", "top_k", "threshold")
NAMES = ["body.3.weight", "head.weight"]


class Reading(settings.Module):
    """Keeps how many inputs of the second and third layer are not zero, from behind the hooks."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.read = []

    def forward(self, x):
        hidden = self.body[:3](x)
        self.body[3].register_forward_pre_hook(lambda layer, given: self.read.append((given[0] != 0).sum(1)))
        found = self.head(self.body[3:](hidden))
        self.body[3]._forward_pre_hooks.popitem()
        return found


class SaveStep(Callback):
    """Saves a checkpoint after one step, the last of an epoch."""

    def __init__(self, path, step):
        self.path, self.step = path, step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path, weights_only=False)


def same_selections(one, two):
    states = [callback.state_dict()["layers"] for callback in (one, two)]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(states[0][layer][name], states[1][layer][name]) for layer in states[0] for name in states[0][layer]
    )


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("recipe", RECIPES)
def test_beside_every_recipe_masks_and_activations_are_exact(recipe, order, loader, make_trainer):
    method, activations, model = RECIPES[recipe](0.8), ActivationSparsity(0.1), Reading()
    make_trainer(*[method, activations][::order], max_epochs=2).fit(model, loader)
    assert settings.exact(method.masks, method.recipe.sparsity.final)
    assert settings.dead_are_zero(model, method.masks)
    assert list(activations.selections) == NAMES
    assert max(int(read.max()) for read in model.read[-10:]) <= 6  # of 60; fewer where ReLU leaves fewer
    assert min(int(read.max()) for read in model.read[-10:]) >= 3
    seen = {float(selection.seen) for selection in activations.selections.values()}
    assert seen == {1280.0}  # what a score of the whole network has run is left out


@pytest.mark.parametrize("first", [True, False], ids=["saved before it", "saved after it"])
@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_training_is_the_one_that_was_never_stopped(rule, first, make_trainer, tmp_path):
    def callbacks():
        return ActivationSparsity(Curve(1.0).then(0.7, 0.2, "linear"), rule=rule), GradualPruning(0.8)

    whole, one, another = settings.Module(), *callbacks()
    make_trainer(one, another).fit(whole, settings.batches())
    saved, save = callbacks(), SaveStep(tmp_path / "half.ckpt", 20)
    make_trainer(*([save, *saved] if first else [*saved, save])).fit(settings.Module(), settings.batches())
    resumed, two, again = settings.Module(seed=9), *callbacks()
    make_trainer(two, again).fit(resumed, settings.batches(), ckpt_path=tmp_path / "half.ckpt", **SAFE)
    assert same_selections(one, two)
    assert settings.same_state(resumed, whole)
    assert another.masks.checksum() == again.masks.checksum()


def test_a_resumed_training_with_another_rule_is_refused(loader, make_trainer, tmp_path):
    first = make_trainer(ActivationSparsity(0.2), SaveStep(tmp_path / "half.ckpt", 10))
    first.fit(settings.Module(), loader)
    for other in (ActivationSparsity(0.2, rule="top_k"), ActivationSparsity(0.3), ActivationSparsity(0.2, period=9)):
        with pytest.raises(SparsityError, match="the checkpoint was trained with"):
            make_trainer(other).fit(settings.Module(), loader, ckpt_path=tmp_path / "half.ckpt", **SAFE)


@pytest.mark.parametrize("rule", RULES)
def test_a_checkpoint_has_dense_keys_and_its_function_comes_back_with_its_state(rule, loader, make_trainer, tmp_path):
    model, callback, images = settings.Module(), ActivationSparsity(0.2, rule=rule), settings.digits()[:][0]
    trainer = make_trainer(callback, max_epochs=2)
    trainer.fit(model, loader)
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    stored = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert stored["state_dict"].keys() == settings.Module().state_dict().keys()
    fresh = settings.Module(seed=5)
    fresh.load_state_dict(stored["state_dict"], strict=True)
    expected = model.eval()(images)
    assert not torch.equal(fresh.eval()(images), expected)  # loads strictly, and computes something else
    dense = fresh(images)
    for source in (tmp_path / "end.ckpt", str(tmp_path / "end.ckpt"), stored, callback, copy.deepcopy(callback)):
        with activations_of(source, fresh):
            assert torch.equal(fresh(images), expected)
        assert torch.equal(fresh(images), dense)
    with activations_of(None, model):
        assert torch.equal(model(images), dense)
    assert torch.equal(model(images), expected)  # as before
    with pytest.raises(SparsityError, match="has trained no activations"), activations_of(stored["state_dict"], fresh):
        pass
    with pytest.raises(SparsityError, match=r"has no 'body\.3\.weight'"), activations_of(callback, model.head):
        pass
    # and in a Trainer of its own
    other, outputs = ActivationSparsity(0.2, rule=rule), []
    other.load_state_dict(stored["callbacks"]["ActivationSparsity"])

    class Keeping(settings.Module):
        def predict_step(self, batch, batch_idx):
            outputs.append(self(batch[0]))
            return outputs[-1]

    keeping = Keeping(seed=7)
    keeping.load_state_dict(stored["state_dict"])
    make_trainer(other).predict(keeping, loader)
    assert torch.allclose(torch.cat(outputs), expected, atol=1e-5)


def test_a_copy_of_the_model_computes_the_same_and_moves_no_state_of_the_callback(loader, make_trainer):
    model, callback, images = settings.Module(), ActivationSparsity(0.2), settings.digits()[:][0]
    make_trainer(callback, max_epochs=1).fit(model, loader)
    before, expected = callback.state_dict(), model.eval()(images)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(copied(images), expected)
        copied.train()(images)
        hooks = [hook for hook in copied.body[3]._forward_pre_hooks.values() if isinstance(hook, Selection)]
        assert len(hooks) == 1
        assert hooks[0] is not callback.selections["body.3.weight"]
        assert float(hooks[0].count) == 640
    assert all(float(selection.count) == 0 for selection in callback.selections.values())
    assert before.keys() == callback.state_dict().keys()
    # A fit of the copy, with a copy of the callback, hooks once, and to the copy's own.
    again = copy.deepcopy(callback)
    make_trainer(again, max_epochs=1).fit(copied, loader)
    assert len(copied.body[3]._forward_pre_hooks) == 1
    assert next(iter(copied.body[3]._forward_pre_hooks.values())) is again.selections["body.3.weight"]
    assert torch.equal(callback.state_dict()["layers"][NAMES[0]]["mean"], before["layers"][NAMES[0]]["mean"])


class Silent(settings.Module):
    """Logs nothing, so that each step is one graph."""

    def validation_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


MOVING = Curve(1.0).then(0.9, 0.2, "linear")


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning")
@pytest.mark.parametrize("rule", RULES)
def test_compiled_it_runs_takes_no_graph_for_each_density_and_gives_the_same_numbers(rule, make_trainer, dynamo):
    graphs = []
    for curve in (Curve(0.2), MOVING):
        counter = CompileCounterWithBackend("aot_eager")
        model, callback = Silent(), ActivationSparsity(curve, rule=rule)
        model.compile(backend=counter)
        make_trainer(callback, max_epochs=2).fit(model, settings.batches(), settings.batches())
        graphs.append(counter.frame_count)
        torch._dynamo.reset()
    assert graphs[0] == graphs[1] <= 4
    assert all(float(selection.seen) == 1280 for selection in callback.selections.values())
    eager, twin = Silent(), ActivationSparsity(MOVING, rule=rule)
    make_trainer(twin, max_epochs=2).fit(eager, settings.batches(), settings.batches())
    for one, two in zip(model.state_dict().values(), eager.state_dict().values(), strict=True):
        assert torch.allclose(one, two, atol=1e-5)


def test_a_module_that_was_compiled_and_called_before_is_compiled_anew(make_trainer, dynamo):
    """Torch does not look whether hooks have come: they would never run."""
    model, images = settings.Module(), settings.digits()[:][0]
    model.body, counter = torch.compile(model.body, backend=CompileCounter()), ActivationSparsity(0.2)
    dense = model.eval()(images)
    model.train()
    make_trainer(counter, max_epochs=1).fit(model, settings.batches())
    assert list(counter.selections) == NAMES
    assert all(float(selection.seen) == 640 for selection in counter.selections.values())
    with activations_of(None, model):
        without = model.eval()(images)
    assert not torch.equal(without, model(images))
    assert not torch.equal(without, dense)  # it was trained


def test_hooks_that_never_run_are_refused_by_name(make_trainer, dynamo):
    class Hidden(settings.Module):
        """Calls a compiled function of its own, which nobody sees."""

        def __init__(self):
            super().__init__()
            self.run = [torch.compile(lambda x: self.head(self.body(x)), backend="eager")]

        def forward(self, x):
            return self.run[0](x)

    model = Hidden()
    model.train()(settings.digits()[:64][0])
    with pytest.raises(SparsityError, match=r"the hook of 'body\.3\.weight' did not run") as refused:
        make_trainer(ActivationSparsity(0.2), max_epochs=1).fit(model, settings.batches())
    assert "torch._dynamo.reset() before the fit" in str(refused.value)
    torch._dynamo.reset()
    make_trainer(ActivationSparsity(0.2), max_epochs=1).fit(model, settings.batches())


def test_attentions_output_is_refused_by_name_and_left_out_where_that_is_written(make_trainer):
    class Attending(settings.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(8, 16)
            self.attention, self.head = nn.MultiheadAttention(16, 2, batch_first=True), nn.Linear(16, 10)

        def forward(self, x):
            x = self.body(x.view(-1, 8, 8)).relu()
            return self.head(self.attention(x, x, x)[0].mean(1))

    for trainer in (make_trainer(ActivationSparsity(0.2), max_epochs=1),):
        with pytest.raises(SparsityError, match=r"write exclude=\['attention\.out_proj\.weight'\]"):
            trainer.fit(Attending(), settings.batches())
    with pytest.raises(SparsityError, match="did not run in the first batch"):
        make_trainer(ActivationSparsity(0.2)).validate(Attending(), settings.batches(), verbose=False)
    left_out = ActivationSparsity(0.2, exclude=["attention.out_proj.weight"])
    make_trainer(left_out, max_epochs=1).fit(Attending(), settings.batches())
    assert list(left_out.selections) == ["head.weight"]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-true", "64-true"])
@pytest.mark.parametrize("rule", RULES)
def test_in_every_precision(rule, precision, loader, make_trainer):
    method, callback, model = GradualPruning(0.8), ActivationSparsity(0.1, rule=rule), settings.Module(lr=0.01)
    make_trainer(method, callback, max_epochs=1, precision=precision).fit(model, loader)
    assert settings.exact(method.masks, 0.8)
    assert all(bool(selection.mean.isfinite().all()) for selection in callback.selections.values())
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_without_a_backward_pass_that_lightning_sees_duties_are_brought_up_to_date_too(loader, make_trainer):
    class ByHand(settings.Module):
        def __init__(self, seen_by_lightning):
            super().__init__()
            self.automatic_optimization, self.by_lightning = False, seen_by_lightning

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss) if self.by_lightning else loss.backward()
            optimizer.step()

    callbacks = [ActivationSparsity(0.2) for _ in range(3)]
    for callback, model in zip(callbacks, (settings.Module(), ByHand(True), ByHand(False)), strict=True):
        make_trainer(callback, max_epochs=2).fit(model, loader)
    assert same_selections(callbacks[0], callbacks[1])
    assert same_selections(callbacks[0], callbacks[2])


class OnRanks(settings.Module):
    """Writes the weights and the duties that each rank ended with."""

    def __init__(self, folder, callback):
        super().__init__()
        self.folder, self.callback = folder, callback

    def on_train_end(self):
        hooks = {name: next(iter(self.get_submodule(name[:-7])._forward_pre_hooks.values())) for name in NAMES}
        states = {name: hook.state_dict() for name, hook in hooks.items()}
        torch.save((states, self.state_dict()), self.folder / f"{self.callback}-{self.trainer.global_rank}.pt")


@pytest.mark.parametrize("rule", ["k_winners", "threshold"])
def test_ranks_have_the_same_duties_and_thresholds_and_a_spawned_fit_brings_them_home(rule, make_trainer, tmp_path):
    callback, method, model = ActivationSparsity(0.2, rule=rule), GradualPruning(0.8), OnRanks(tmp_path, rule)
    trainer = make_trainer(callback, method, devices=2, strategy="ddp_spawn", max_epochs=2)
    trainer.fit(model, DataLoader(settings.digits(), batch_size=64))
    (states, weights), (others, also) = (torch.load(tmp_path / f"{rule}-{rank}.pt") for rank in (0, 1))
    for name in NAMES:
        assert all(torch.equal(states[name][part], others[name][part]) for part in states[name])
        assert float(states[name]["seen"]) == 1280  # of both
        assert torch.equal(callback.state_dict()["layers"][name]["mean"], states[name]["mean"])
    assert all(torch.equal(weights[name], also[name]) for name in weights if "running" not in name)
    images = settings.digits()[:][0]
    plain = model.eval()(images)
    with activations_of(callback, model):
        assert not torch.equal(model(images), plain)
