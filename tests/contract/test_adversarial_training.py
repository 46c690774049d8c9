"""Adversarial training beside every sparsity callback, in every mode of the Trainer."""

import copy

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors

import settings
from lightning_sparse import GradualPruning, SparsityMonitor
from lightning_sparse.callbacks.adversarial_training import AdversarialTraining
from settings import RECIPES

EPS = 0.1


class Seeing(settings.Module):
    """Keeps what training_step sees, but for scores that look in eval mode; takes batches of any form."""

    def __init__(self, images=0, labels=1, seed=0):
        super().__init__(seed=seed)
        self.images, self.labels, self.seen = images, labels, []

    def training_step(self, batch, batch_idx):
        images, labels = batch[self.images], batch[self.labels]
        if self.training:
            self.seen.append(images.clone())
        return super().training_step((images, labels), batch_idx)


def clean(seen):
    """The images that these were."""
    images = [batch[0] for batch in settings.batches()]
    return [images[place % 10] for place in range(len(seen))]


def farthest(seen):
    pairs = zip(seen, clean(seen), strict=True)
    return [float((one.double() - other.double()).abs().max()) for one, other in pairs]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("recipe", RECIPES)
def test_beside_every_recipe_sparsity_is_exact_and_every_batch_adversarial(recipe, order, loader, make_trainer):
    method, model = RECIPES[recipe](0.8), Seeing()
    callbacks = [method, AdversarialTraining(EPS), SparsityMonitor()][::order]
    make_trainer(*callbacks, max_epochs=2).fit(model, loader)
    assert settings.exact(method.masks, method.recipe.sparsity.final)
    assert settings.dead_are_zero(model, method.masks)
    trained = model.seen[-20:]  # before them, scores may have read clean batches through training_step
    assert all(EPS / 2 < distance <= EPS + 1e-6 for distance in farthest(trained))


@pytest.mark.parametrize("recipe", ["SNIP", "GraSP", "SynFlow"])
def test_scores_before_the_first_step_read_clean_batches(recipe, loader, make_trainer):
    masks = []
    for callbacks in ([], [AdversarialTraining(EPS)]):
        method = RECIPES[recipe](0.8)
        make_trainer(*callbacks, method, max_epochs=1).fit(settings.Module(), loader)
        masks.append(method.masks.checksum())
    assert masks[0] == masks[1]


@pytest.mark.parametrize(
    ("precision", "dtype", "rounding"),
    [
        ("bf16-mixed", torch.float32, 0),
        ("bf16-true", torch.bfloat16, 2**-8),  # of the clean image, and of the adversarial one
        ("16-true", torch.float16, 2**-11),
        ("64-true", torch.float64, 0),
    ],
)
def test_in_every_precision_images_stay_in_the_ball_and_in_their_type(precision, dtype, rounding, loader, make_trainer):
    method, model = GradualPruning(0.8), Seeing()
    make_trainer(AdversarialTraining(EPS, steps=2), method, max_epochs=1, precision=precision).fit(model, loader)
    assert {images.dtype for images in model.seen} == {dtype}
    assert all(EPS / 2 < distance <= EPS + rounding + 1e-6 for distance in farthest(model.seen))
    assert settings.exact(method.masks, 0.8)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def test_float16_by_autocast_is_left_off_where_small_gradients_would_vanish(make_trainer):
    """A model this confident has gradients of about 1e-8 at the other classes' logits, which are 0 in float16."""

    class Sure(Seeing):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10, bias=False)
            self.layer.weight.data[:] = 20 * torch.eye(10, 64)

        def forward(self, x):
            return self.layer(x)

    labels = torch.arange(10)
    images = torch.zeros(10, 64)
    images[labels, labels] = 1.0
    model, scaler = Sure(), torch.amp.GradScaler(settings.DEVICE, init_scale=1.0)
    loader = DataLoader(TensorDataset(images, labels), batch_size=10)
    plugins = [MixedPrecision("16-mixed", settings.DEVICE, scaler)]
    make_trainer(AdversarialTraining(EPS, steps=2), plugins=plugins, max_epochs=1).fit(model, loader)
    others = ~torch.eye(10).bool()
    assert torch.allclose(model.seen[0].cpu()[:, :10][others], torch.tensor(EPS))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_accumulated_batches_are_attacked_each_with_noise_of_its_own(accumulate, make_trainer):
    images, labels = settings.digits()[:64]
    loader = DataLoader(TensorDataset(images.repeat(4, 1), labels.repeat(4)), batch_size=64)
    model = Seeing()
    model.lr = 0.0
    model.body[1] = nn.Identity()
    make_trainer(AdversarialTraining(EPS), max_epochs=1, accumulate_grad_batches=accumulate).fit(model, loader)
    assert len({float(seen.sum()) for seen in model.seen}) == 4


def as_dict(batch):
    return {"name": ["digit"] * len(batch[1]), "pixels": batch[0], "class": batch[1]}


@pytest.mark.parametrize(
    ("form", "images", "labels"),
    [
        (tuple, 0, 1),
        (list, 0, 1),
        (as_dict, "pixels", "class"),
        (lambda batch: (batch[1], "between", batch[0]), 2, 0),
        (lambda batch: (batch[1], batch[0]), -1, 0),
    ],
)
def test_every_form_of_batch_trains_the_same(form, images, labels, loader, make_trainer):
    class Formed(DataLoader):
        def __iter__(self):
            return map(form, super().__iter__())

    one, two = Seeing(), Seeing(images, labels)
    make_trainer(AdversarialTraining(EPS), max_epochs=1).fit(one, loader)
    attack = AdversarialTraining(EPS, images=images, labels=labels)
    make_trainer(attack, max_epochs=1).fit(two, Formed(settings.digits(), batch_size=64))
    assert settings.same_state(one, two)
    assert min(farthest(two.seen)) > EPS / 2


def test_images_of_torchvisions_own_kind_stay_what_they_are(make_trainer):
    kinds = []

    class Kind(Seeing):
        def forward(self, x):
            return super().forward(x.flatten(1))

        def training_step(self, batch, batch_idx):
            kinds.append(type(batch[0]))
            return super().training_step((batch[0].as_subclass(torch.Tensor), batch[1]), batch_idx)

    class Wrapped(DataLoader):
        def __iter__(self):
            return ((tv_tensors.Image(images.view(-1, 1, 8, 8)), labels) for images, labels in super().__iter__())

    model = Kind()
    make_trainer(AdversarialTraining(EPS), max_epochs=1).fit(model, Wrapped(settings.digits(), batch_size=64))
    assert set(kinds) == {tv_tensors.Image}
    assert min(farthest([images.flatten(1) for images in model.seen])) > EPS / 2


def test_channels_last_stays_channels_last(make_trainer):
    class Net(Seeing):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.strides = []

        def forward(self, x):
            self.strides.append(x.stride())
            return self.conv(x).mean((2, 3))

    class Last(DataLoader):
        def __iter__(self):
            return ((x.to(memory_format=torch.channels_last), y) for x, y in super().__iter__())

    torch.manual_seed(0)
    data = TensorDataset(torch.rand(8, 3, 6, 6), torch.randint(4, (8,)))
    model = Net()
    make_trainer(AdversarialTraining(EPS, steps=2), max_epochs=1).fit(model, Last(data, batch_size=8))
    assert model.strides == [(108, 1, 18, 3)] * 3  # two looks of the attack, and the step


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_trains_as_an_uncompiled_one(loader, make_trainer):
    plain = settings.Module()
    compiled = torch.compile(copy.deepcopy(plain), backend="aot_eager")
    for model in (plain, compiled):
        method = GradualPruning(0.8)
        make_trainer(AdversarialTraining(EPS, steps=2), method, max_epochs=2).fit(model, loader)
        assert settings.exact(method.masks, 0.8)
    pairs = zip(plain.parameters(), compiled._orig_mod.parameters(), strict=True)
    assert all(torch.allclose(one, two, atol=1e-5) for one, two in pairs)


def test_lbfgs_sees_one_adversarial_batch_through_all_of_a_step(loader, make_trainer):
    class Slow(Seeing):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    method, model = GradualPruning(0.8), Slow()
    make_trainer(AdversarialTraining(EPS), method, max_epochs=1).fit(model, loader)
    assert len(model.seen) > 20
    assert len({float(images.sum()) for images in model.seen}) == 10
    assert settings.dead_are_zero(model, method.masks)


class OnRanks(settings.Module):
    """Writes what each rank saw, and the weights that it ended with."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seen = folder, []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0].clone())
        return super().training_step(batch, batch_idx)

    def on_train_end(self):
        torch.save((self.seen, self.state_dict()), self.folder / f"{self.trainer.global_rank}.pt")


def test_ranks_draw_noise_of_their_own_and_end_with_the_same_weights(make_trainer, tmp_path):
    """Both get the same images, so that only the noise can differ."""
    images, labels = settings.digits()[:64]
    data = TensorDataset(images.repeat_interleave(2, 0), labels.repeat_interleave(2))
    method = GradualPruning(0.8)
    trainer = make_trainer(AdversarialTraining(EPS), method, devices=2, strategy="ddp_spawn", max_epochs=2)
    trainer.fit(OnRanks(tmp_path), DataLoader(data, batch_size=32))
    (first, weights), (second, others) = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert len(first) == len(second) == 4
    assert not any(torch.equal(one, two) for one, two in zip(first, second, strict=True))
    learnt = [name for name in weights if "running" not in name]  # BatchNorm's statistics are each rank's own
    assert all(torch.equal(weights[name], others[name]) for name in learnt)
    assert settings.exact(method.masks, 0.8)
