"""Running averages of the weights, which other callbacks keep: as sparse as the model, wherever they are used."""

import copy

import lightning.pytorch.callbacks as lightning_callbacks
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel

import settings
from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityError, load_masks

# Saving and resuming with other callbacks is what some of these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]

DECAY = 0.8


class Watched(settings.Module):
    """Checks its weights in every forward pass, and counts the passes that do not see those of the last step."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.looked, self.averaged = {"train": 0, "validate": 0}, 0

    def forward(self, x):
        if not self.trainer.sanity_checking:
            stage = self.trainer.state.stage.value
            method, record = (
                next(callback for callback in self.trainer.callbacks if isinstance(callback, kind))
                for kind in (SparseTraining, Record)
            )
            assert settings.dead_are_zero(self, method.masks), f"a dead weight is not zero in a {stage} step"
            self.looked[stage] += 1
            self.averaged += stage == "validate" and not all(map(torch.equal, self.parameters(), record.steps[-1]))
        return super().forward(x)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Unnormed(Watched):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.body[1] = nn.Identity()


class Record(Callback):
    """Every weight after every step, and at the start of every epoch, without the extra epoch of SWA."""

    def __init__(self):
        self.steps, self.starts = [], []

    @staticmethod
    def now(module):
        return [parameter.detach().clone() for parameter in module.parameters()]

    def on_train_epoch_start(self, trainer, pl_module):
        self.starts.append(self.now(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.current_epoch < 4:
            self.steps.append(self.now(pl_module))


class CopyEma(Callback):
    """As people write it: a copy of the module, put in the model's place to validate, to save and in the end."""

    def on_train_start(self, trainer, pl_module):
        self.average = copy.deepcopy(pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        for mean, value in zip(self.average.parameters(), pl_module.parameters(), strict=True):
            mean.lerp_(value, 1 - DECAY)

    def on_validation_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.put_by = copy.deepcopy(pl_module.state_dict())
            pl_module.load_state_dict(self.average.state_dict())

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            pl_module.load_state_dict(self.put_by)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["state_dict"] = self.average.state_dict()

    def on_train_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.average.state_dict())


class DictEma(Callback):
    """Likewise with a dictionary of tensors, of which it saves a copy."""

    def on_train_start(self, trainer, pl_module):
        self.shadow = {name: value.detach().clone() for name, value in pl_module.named_parameters()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        for name, value in pl_module.named_parameters():
            self.shadow[name] = DECAY * self.shadow[name] + (1 - DECAY) * value

    @torch.no_grad()
    def put(self, pl_module, values):
        for name, parameter in pl_module.named_parameters():
            parameter.copy_(values[name])

    def on_validation_epoch_start(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.put_by = {name: value.detach().clone() for name, value in pl_module.named_parameters()}
            self.put(pl_module, self.shadow)

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.put(pl_module, self.put_by)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["state_dict"] |= {name: value.clone() for name, value in self.shadow.items()}

    def on_train_end(self, trainer, pl_module):
        self.put(pl_module, self.shadow)


class ListEma(DictEma):
    """Likewise with what cannot be found by name, a list inside an object; it saves the model as it is."""

    class Shadow:
        def __init__(self, module):
            self.values = [value.detach().clone() for value in module.parameters()]

    def on_train_start(self, trainer, pl_module):
        self.shadow = self.Shadow(pl_module)

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, *_):
        for mean, value in zip(self.shadow.values, pl_module.parameters(), strict=True):
            mean.lerp_(value, 1 - DECAY)

    @torch.no_grad()
    def put(self, pl_module, values):
        kept = values.values if isinstance(values, self.Shadow) else values.values()
        for parameter, value in zip(pl_module.parameters(), kept, strict=True):
            parameter.copy_(value)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        pass


def weight_averaging():
    """Lightning has it since 2.6."""
    if not hasattr(lightning_callbacks, "WeightAveraging"):
        pytest.skip("this Lightning has no WeightAveraging")
    return lightning_callbacks.WeightAveraging()


def ema_weight_averaging():
    if not hasattr(lightning_callbacks, "EMAWeightAveraging"):
        pytest.skip("this Lightning has no EMAWeightAveraging")
    return lightning_callbacks.EMAWeightAveraging(decay=DECAY)


def swa():
    return StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=0.5, annealing_epochs=1)


def mean_of_steps(record):
    """WeightAveraging starts from the first step's weights."""
    return [torch.stack(weights).mean(0) for weights in zip(*record.steps, strict=True)]


def ema(values):
    means = [weight.clone() for weight in values[0]]
    for weights in values[1:]:
        means = [mean.lerp(weight, 1 - DECAY) for mean, weight in zip(means, weights, strict=True)]
    return means


def ema_of_steps(record):
    """Likewise EMAWeightAveraging."""
    return ema(record.steps)


def ema_from_the_start(record):
    """Those written by hand start from the weights before the first step."""
    return ema([record.starts[0], *record.steps])


def mean_of_epochs(record):
    """Of four epochs, from the second on."""
    return [torch.stack(weights).mean(0) for weights in zip(*record.starts[1:4], strict=True)]


# name -> the callback, the module, what the average is, whether it stands in for the model when it is validated
AVERAGES = {
    "swa with BatchNorm": (swa, Watched, mean_of_epochs, False),
    "swa": (swa, Unnormed, mean_of_epochs, False),
    "WeightAveraging": (weight_averaging, Watched, mean_of_steps, True),
    "EMAWeightAveraging": (ema_weight_averaging, Watched, ema_of_steps, True),
    "a copy": (CopyEma, Watched, ema_from_the_start, True),
    "a dictionary": (DictEma, Watched, ema_from_the_start, True),
    "a list": (ListEma, Watched, ema_from_the_start, True),
}
LIGHTNINGS = list(AVERAGES)[:4]

# Every method with an average by epochs and with one by steps, and every average with the method that does everything.
PAIRS = [(method, name) for method in settings.METHODS for name in ("swa with BatchNorm", "EMAWeightAveraging")]
PAIRS += [("brain", name) for name in AVERAGES if ("brain", name) not in PAIRS]

both_orders = pytest.mark.parametrize("order", [1, -1], ids=["after", "before"])


def fit(make_trainer, method, average, module, order, *others, **arguments):
    """Four epochs of five batches, validated after each."""
    record, five = Record(), settings.batches(batch_size=128)
    make_trainer(*[method, average][::order], record, *others, enable_checkpointing=bool(others)).fit(
        module, five, five, **arguments
    )
    return record


@both_orders
@pytest.mark.parametrize(("method", "name"), PAIRS)
def test_an_average_is_as_sparse_as_the_model(method, name, order, make_trainer, tmp_path):
    make_average, module, _, stands_in = AVERAGES[name]
    model, method = module(), settings.METHODS[method](0.9)
    keepers = (
        ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=3, save_top_k=-1),
        ModelCheckpoint(tmp_path, filename="{epoch}", monitor="accuracy", mode="max", save_top_k=-1),
    )
    record = fit(make_trainer, method, make_average(), model, order, *keepers)

    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)

    # Every forward pass has looked, those of SWA's extra epoch too; but that is no part of the schedule.
    epochs = 5 if name == "swa with BatchNorm" else 4
    assert model.looked == {"train": 5 * epochs, "validate": 5 * epochs}
    assert model.averaged == (20 if stands_in else 5 * (epochs - 4))
    assert method.engine.plan == method.recipe.resolve(20)
    assert method.history[-1].step <= 20

    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) >= 6 + epochs
    for file in files:
        # What Lightning 2.5 saves of its own averaging holds functions.
        saved = torch.load(file, weights_only=bool(settings.SAFE))
        masks = load_masks(saved)
        for state in ("state_dict", "current_model_state"):
            for parameter, mask in masks.items() if state in saved else ():
                assert bool((saved[state][parameter][~mask] == 0).all()), f"{parameter} in {state} of {file.name}"

    last = {name: value.cpu() for (name, _), value in zip(model.named_parameters(), record.steps[-1], strict=True)}
    for parameter, mask in method.masks.items():  # what is left is an average, and not the last weights
        assert not torch.equal(last[parameter][mask], model.get_parameter(parameter)[mask])


@both_orders
@pytest.mark.parametrize("name", AVERAGES)
def test_living_weights_of_an_average_are_what_they_would_be_without_masks(name, order, make_trainer):
    """While connections only die, those that live in the end have always lived: their mean is the plain mean."""
    make_average, module, mean, _ = AVERAGES[name]
    model, method = module(), GradualPruning(0.9)
    record = fit(make_trainer, method, make_average(), model, order)
    for (parameter, weight), means in zip(model.named_parameters(), mean(record), strict=True):
        expected = means.to(weight.device)
        living = method.masks[parameter] if parameter in method.masks else torch.ones_like(weight, dtype=torch.bool)
        torch.testing.assert_close(weight[living], expected[living], rtol=1e-4, atol=1e-6)


@both_orders
def test_turnover_without_end_ends_before_swas_extra_epoch(order, make_trainer):
    """At the end of that epoch Lightning steps the optimizer, with gradients of long ago or none at all."""
    model, method = Watched(), SparseTraining(0.9, turnover=0.3, every=1)
    fit(make_trainer, method, swa(), model, order)
    assert method.history[-1].step == 20
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)


@both_orders
@pytest.mark.parametrize("name", LIGHTNINGS)
def test_resumed_with_an_average_equals_uninterrupted(name, order, make_trainer, tmp_path):
    make_average, module, _, _ = AVERAGES[name]

    def run(model, method, **arguments):
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
        fit(make_trainer, method, make_average(), model, order, keep, **arguments)
        return model, method

    whole, one = run(module(), settings.METHODS["brain-momentum"](0.9))
    resumed, other = run(
        module(seed=9),
        settings.METHODS["brain-momentum"](0.9),
        ckpt_path=tmp_path / "epoch=1.ckpt",
        **settings.SAFE,
    )
    assert other.masks.checksum() == one.masks.checksum()
    assert other.history == one.history
    assert settings.same_state(resumed, whole)


class Teacher(Callback):
    """Keeps a network, and its weights by name, for what training is compared with: no average of anything."""

    def __init__(self, module):
        self.network = copy.deepcopy(module)
        self.weights = {name: value.detach().clone() for name, value in module.named_parameters()}


@both_orders
def test_a_network_that_a_callback_only_keeps_is_left_alone(order, make_trainer):
    model, method = Watched(), BrainDevelopment(0.9)
    teacher, untouched = Teacher(model), Watched()
    fit(make_trainer, method, teacher, model, order)
    assert settings.dead_are_zero(model, method.masks)
    assert settings.same_state(teacher.network, untouched)
    assert all(torch.equal(teacher.weights[name], value) for name, value in untouched.named_parameters())


class Elsewhere(Callback):
    """Averages of a part of the model, and of another network whose names are the same and whose sizes are not."""

    def on_train_start(self, trainer, pl_module):
        other = settings.Module()
        other.head = nn.Linear(30, 7)
        self.part, self.other = AveragedModel(pl_module.body), AveragedModel(other)
        self.before = copy.deepcopy(self.other.state_dict())

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.part.update_parameters(pl_module.body)


@both_orders
def test_averages_of_something_else_are_left_alone(order, make_trainer):
    model, method, elsewhere = Watched(), GradualPruning(0.9), Elsewhere()
    record = fit(make_trainer, method, elsewhere, model, order)
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
    assert all(torch.equal(value, elsewhere.before[name]) for name, value in elsewhere.other.state_dict().items())
    first = mean_of_steps(record)[0].cpu()
    living = method.masks["body.0.weight"]
    torch.testing.assert_close(elsewhere.part.module[0].weight.cpu()[living], first[living], rtol=1e-4, atol=1e-6)


@both_orders
def test_an_average_hides_no_dead_weight_that_is_not_zero(order, make_trainer):
    class Writes(Watched):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 4:
                self.body[0].weight.data.add_(0.01)  # torch does not count this

    with pytest.raises(SparsityError, match=r"dead weights of 'body.0.weight' are not zero after step 5"):
        make_trainer(*[SparseTraining(0.9), CopyEma()][::order], Record()).fit(
            Writes(), settings.batches(batch_size=128)
        )
