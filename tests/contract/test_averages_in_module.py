"""Averages, teachers and target networks that the module itself keeps: as sparse as the weights that they follow."""

import copy

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import settings
from lightning_sparse import GradualPruning, RigL, SparsityError, Static, load_masks

pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:Found 6 .* in eval mode at the start of training:UserWarning"
    ),  # as timm leaves it
]

DECAY = 0.8


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 10))


def frozen(net):
    return copy.deepcopy(net).requires_grad_(False)


def zeros(net):
    """The share of zeros among the weights of linear layers, whether or not they are trained."""
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Linear)]
    return sum(int((weight == 0).sum()) for weight in weights) / sum(weight.numel() for weight in weights)


@torch.no_grad()
def follow(average, net):
    for mean, weight in zip(average.parameters(), net.parameters(), strict=True):
        mean.lerp_(weight.to(mean.device), 1 - DECAY)


class Plain(settings.Module):
    """A network and nothing else."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        del self.body, self.head
        self.net = network(seed)
        self.history = [copy.deepcopy(self.net)]

    def forward(self, x):
        return self.net(x)

    def on_train_batch_end(self, *_):
        self.history.append(copy.deepcopy(self.net))

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=0.1, momentum=0.9)


class Averaging(Plain):
    """Keeps an average of the network, and looks at it in every validation step."""

    def __init__(self, keep, optimize_all=False, seed=0):
        super().__init__(seed)
        self.looked, self.optimize_all = 0, optimize_all
        keep(self)

    def on_train_batch_end(self, *_):
        super().on_train_batch_end()
        self.update()

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            callback = self.trainer.callbacks[0]
            average = dict(self.average().to(self.device).named_parameters())  # a hidden one stays where it was made
            for name, mask in callback.masks.items():
                assert bool((average[name.removeprefix("net.")][~mask] == 0).all())
            self.looked += 1
        self.log("loss", cross_entropy(self.average()(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters() if self.optimize_all else self.net.parameters(), lr=0.1, momentum=0.9)


def timms(module):
    module.ema = ModelEmaV3(module.net, decay=DECAY)
    module.update, module.average = lambda: module.ema.update(module.net), lambda: module.ema.module


def torchs(module):
    module.ema = AveragedModel(module.net, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    module.update, module.average = lambda: module.ema.update_parameters(module.net), lambda: module.ema.module


def teacher(module):
    module.teacher = frozen(module.net)
    module.update, module.average = lambda: follow(module.teacher, module.net), lambda: module.teacher


def in_a(container):
    def keep(module):
        average = copy.deepcopy(module.net)
        module.hidden = container(average)
        module.update, module.average = lambda: follow(average, module.net), lambda: average

    return keep


def by_name(module):
    module.shadow = {name: weight.detach().clone() for name, weight in module.net.named_parameters()}

    def average():
        net = copy.deepcopy(module.net)
        net.load_state_dict(module.shadow)
        return net

    def update():
        for name, weight in module.net.named_parameters():
            module.shadow[name] = DECAY * module.shadow[name] + (1 - DECAY) * weight.detach().to(module.shadow[name])

    module.update, module.average = update, average


# What keeps the average, and whether the optimizer is given all of the module's parameters.
KEEPERS = {
    "timm's": (timms, False),
    "timm's, in the optimizer": (timms, True),
    "torch's": (torchs, False),
    "torch's, in the optimizer": (torchs, True),
    "frozen": (teacher, False),
    "frozen, in the optimizer": (teacher, True),
    "in a list": (in_a(lambda average: [average]), False),
    "in a tuple": (in_a(lambda average: (None, average)), True),
    "in a dictionary": (in_a(lambda average: {"ema": average}), True),
    "by name": (by_name, False),
}


@pytest.mark.parametrize(
    "make", [GradualPruning, lambda s: RigL(s, every=3), Static], ids=["gradual", "rigl", "static"]
)
@pytest.mark.parametrize("name", KEEPERS)
def test_an_average_in_the_module_has_the_zeros_of_the_weights(name, make, make_trainer, tmp_path):
    keep, optimize_all = KEEPERS[name]
    module, callback = Averaging(keep, optimize_all), make(0.9)
    saver = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)
    make_trainer(callback, saver, max_epochs=2, enable_checkpointing=True).fit(
        module, settings.batches(), settings.batches()
    )
    assert module.looked == 20
    assert list(callback.masks) == ["net.0.weight", "net.2.weight", "net.4.weight"]
    assert settings.exact(callback.masks, 0.9)
    average = module.average().cpu()
    for weight, mask in callback.masks.items():
        assert torch.equal(average.get_parameter(weight.removeprefix("net.")) != 0, mask)
    assert zeros(average) == callback.sparsity

    # The training is what it is without an average.
    plain, other = Plain(), make(0.9)
    make_trainer(other, max_epochs=2).fit(plain, settings.batches(), settings.batches())
    assert settings.same_state(plain.net, module.net)
    assert other.masks.checksum() == callback.masks.checksum()

    files = sorted(tmp_path.glob("*.ckpt"))
    assert len(files) == 2
    for file in files:
        saved = torch.load(file, weights_only=True)
        state, masks = saved["state_dict"], load_masks(saved)
        copies = [key for key in state if not key.startswith("net.") and key.endswith("weight")]
        for key in copies:
            mask = next(mask for weight, mask in masks.items() if key.endswith("." + weight.removeprefix("net.")))
            assert bool((state[key][~mask] == 0).all()), key


def test_living_weights_of_the_average_are_what_they_would_be_without_masks(make_trainer):
    module, callback = Averaging(teacher), GradualPruning(0.9)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    expected = copy.deepcopy(module.history[0])
    for net in module.history[1:]:
        follow(expected, net)
    for name, mask in callback.masks.items():
        short = name.removeprefix("net.")
        ours, theirs = module.teacher.get_parameter(short), expected.get_parameter(short)
        torch.testing.assert_close(ours[mask], theirs[mask])  # those that live in the end have always lived
        assert bool((theirs[~mask] != 0).any())


@pytest.mark.parametrize(
    "arguments",
    [
        {"exclude": ["ema.*"]},
        {"exclude": ["ema.module.0.weight"]},
        {"include": ["*weight"]},
        {"include": ["net.*weight"]},
    ],
)
def test_patterns_that_name_the_average_or_not(arguments, make_trainer):
    module, callback = Averaging(timms), GradualPruning(0.9, **arguments)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert list(callback.masks) == ["net.0.weight", "net.2.weight", "net.4.weight"]
    assert zeros(module.ema) == zeros(module.net) == callback.sparsity


def test_a_layer_left_dense_stays_dense_in_the_average(make_trainer):
    module, callback = Averaging(teacher), GradualPruning(0.9, exclude=["net.4.*"])
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert zeros(module.teacher[:4]) == callback.sparsity
    assert bool((module.teacher[4].weight != 0).all())


@pytest.mark.parametrize("name", ["timm's", "frozen"])
def test_resumed_equals_uninterrupted(name, make_trainer, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    whole, one = Averaging(*KEEPERS[name]), RigL(0.9, every=3)
    make_trainer(one, saver, max_epochs=2, enable_checkpointing=True).fit(whole, settings.batches())
    resumed, two = Averaging(*KEEPERS[name], seed=9), RigL(0.9, every=3)
    make_trainer(two, max_epochs=2).fit(
        resumed, settings.batches(), ckpt_path=tmp_path / "epoch=0.ckpt", **settings.SAFE
    )
    assert two.history == one.history
    assert settings.same_state(resumed, whole)


class Critics(settings.Module):
    """Two critics of one shape, their target networks, and a network that nothing ever changes."""

    def __init__(self):
        super().__init__()
        del self.body, self.head
        self.one, self.two = network(1), network(2)
        self.two_target, self.one_target = frozen(self.two), frozen(self.one)
        self.first = frozen(self.one)

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.one(batch[0]), batch[1]) + cross_entropy(self.two(batch[0]), batch[1])

    def on_train_batch_end(self, *_):
        follow(self.one_target, self.one)
        follow(self.two_target, self.two)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def test_each_of_two_target_networks_follows_its_own_network(make_trainer):
    module, callback = Critics(), GradualPruning(0.9)
    before = copy.deepcopy(module.first)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert len(callback.masks) == 6
    for name, mask in callback.masks.items():
        critic, _, short = name.partition(".")
        assert torch.equal(module.get_parameter(f"{critic}_target.{short}") != 0, mask)
    assert settings.same_state(module.first, before)


class Twin(Plain):
    """Trains another network of the same shape by an optimizer of its own, and keeps it dense."""

    def __init__(self):
        super().__init__()
        self.twin = network(5)
        self.its_own = torch.optim.SGD(self.twin.parameters(), lr=0.1)

    def on_train_batch_start(self, batch, batch_idx):
        self.its_own.zero_grad()
        cross_entropy(self.twin(batch[0]), batch[1]).backward()
        self.its_own.step()


def test_another_network_of_the_same_shape_is_left_alone(make_trainer):
    module, callback = Twin(), GradualPruning(0.9, exclude=["twin.*"])
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert zeros(module.net) == callback.sparsity
    assert zeros(module.twin) == 0.0
    with pytest.raises(SparsityError, match=r"no optimizer owns 'twin.0.weight'"):
        make_trainer(GradualPruning(0.9), max_epochs=2).fit(Twin(), settings.batches())


class TrainedAverage(Averaging):
    """An average that requires gradients and was given to the optimizer."""

    def __init__(self, optimize_all):
        def keep(module):
            module.teacher = copy.deepcopy(module.net)
            module.update, module.average = lambda: follow(module.teacher, module.net), lambda: module.teacher

        super().__init__(keep, optimize_all)


@pytest.mark.filterwarnings("ignore:no gradient for teacher.0.weight.*scored as zero:UserWarning")
def test_an_average_in_an_optimizer_is_refused_in_words_that_help(make_trainer):
    with pytest.raises(
        SparsityError, match=r"'teacher.*No gradient has reached it: .*give the optimizer only the param"
    ):
        make_trainer(GradualPruning(0.9), max_epochs=2).fit(TrainedAverage(optimize_all=True), settings.batches())
    module, callback = TrainedAverage(optimize_all=False), GradualPruning(0.9)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches())
    assert zeros(module.teacher) == zeros(module.net) == callback.sparsity


class PutsInPlace(Averaging):
    """Validates with its average in the network's place, and puts the weights back."""

    def on_validation_start(self):
        self.put_by = copy.deepcopy(self.net.state_dict())
        self.net.load_state_dict(self.average().state_dict())

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            assert settings.dead_are_zero(self, self.trainer.callbacks[0].masks)
            self.looked += 1

    def on_validation_end(self):
        self.net.load_state_dict(self.put_by)

    def on_train_end(self):
        self.net.load_state_dict(self.average().state_dict())


def test_an_average_that_the_module_puts_in_the_networks_place_is_sparse_there(make_trainer):
    module, callback = PutsInPlace(torchs), GradualPruning(0.9)
    make_trainer(callback, max_epochs=2).fit(module, settings.batches(), settings.batches(batch_size=160))
    assert module.looked == 8
    assert settings.dead_are_zero(module, callback.masks)
    assert settings.same_state(module.net, module.ema.module)
    assert not settings.same_state(module.net, module.history[-1].cpu())


class Writes(Averaging):
    """Writes to weights after the last step of an epoch, where torch does not count it."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end()
        if batch_idx == 9:
            self.net[2].weight.data.add_(0.01)


def test_an_average_in_the_module_hides_no_dead_weight_that_is_not_zero(make_trainer):
    for validated in (True, False):
        module = Writes(torchs)
        with pytest.raises(SparsityError, match=r"dead weights of 'net.2.weight' are not zero after step 10"):
            make_trainer(Static(0.9), max_epochs=2).fit(
                module, settings.batches(), settings.batches() if validated else None
            )
