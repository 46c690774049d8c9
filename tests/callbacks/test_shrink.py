"""A network that is narrowed in mid-training trains on as the masked one does, with all that belongs to it."""

import copy

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn
from torch.optim.swa_utils import get_ema_avg_fn

import settings
from lightning_sparse import GradualPruning, OneShot, Shrink, SparsityError, SparsityMonitor, load_masks

pytest.importorskip("torch_pruning")
from lightning_sparse.export import narrow_to


class Convolutional(settings.Module):
    """A stem and a block added to it, in double precision, so that rounding cannot hide a difference."""

    def __init__(self, kind="sgd"):
        super().__init__()
        del self.body, self.head
        self.kind, self.seen = kind, []
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 3, padding=1),
            nn.BatchNorm2d(12),
            nn.GELU(),
            nn.Conv2d(12, 8, 3, padding=1),
            nn.BatchNorm2d(8),
        )
        self.out = nn.Linear(8 * 4, 10)
        self.double()

    def forward(self, x):
        x = self.stem(x.view(-1, 1, 8, 8).double())
        return self.out(nn.functional.avg_pool2d(torch.relu(x + self.block(x)), 4).flatten(1))

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.seen.append(outputs["loss"].item())

    def configure_optimizers(self):
        kinds = {
            "sgd": lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=1e-3),
            "nesterov": lambda p: torch.optim.SGD(p, 0.05, 0.9, nesterov=True),
            "adamw": lambda p: torch.optim.AdamW(p, 0.003, amsgrad=True),
            "rmsprop": lambda p: torch.optim.RMSprop(p, 0.001, momentum=0.5, centered=True),
        }
        return kinds[self.kind](self.parameters())


def pruning(**arguments):
    return GradualPruning(0.6, **{"end": 12, "every": 3, "granularity": "tied_channels", **arguments})


def fit(*callbacks, model=None, **resume):
    model = model or Convolutional()
    settings.quiet(*callbacks, max_epochs=3).fit(model, settings.batches(), **resume)
    return model


@pytest.mark.parametrize("kind", ["sgd", "nesterov", "adamw", "rmsprop"])
def test_it_trains_on_as_the_masked_network_does(kind):
    masked, narrow, shrink = pruning(), pruning(), Shrink()
    one, other = fit(masked, model=Convolutional(kind)), fit(narrow, shrink, model=Convolutional(kind))
    assert one.seen == pytest.approx(other.seen, rel=1e-9, abs=0)
    assert shrink.step == 12
    before, after = shrink.weights
    assert before == sum(p.numel() for p in one.parameters())
    assert after == sum(p.numel() for p in other.parameters()) < before / 2
    images = settings.digits().tensors[0][:50]
    one.eval(), other.eval()
    assert torch.allclose(one(images), other(images), rtol=1e-9)
    # What is gone counts as the dead or living that it was.
    assert narrow.sparsity == masked.sparsity
    assert (narrow.masks.total, narrow.masks.living) == (masked.masks.total, masked.masks.living)
    assert sum(narrow.masks.removed) == masked.masks.total - sum(mask.numel() for mask in narrow.masks.values())


def test_a_transposed_convolution_is_narrowed_too():
    class Upwards(Convolutional):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(8, 12, 2, 2), nn.ReLU(), nn.ConvTranspose2d(12, 6, 2, 2), nn.ReLU())
            self.close = nn.Conv2d(6, 8, 1)
            self.double()

        def forward(self, x):
            x = self.stem(x.view(-1, 1, 8, 8).double())
            return self.out(nn.functional.avg_pool2d(x + self.close(self.block(x)), 4).flatten(1))

    one, other = fit(pruning(), model=Upwards()), fit(pruning(), Shrink(), model=Upwards())
    assert one.seen == pytest.approx(other.seen, rel=1e-9, abs=0)
    assert (other.block[2].in_channels, other.block[2].out_channels) == tuple(other.block[2].weight.shape[:2])
    assert other.block[2].out_channels == other.close.in_channels < 6


class Save(Callback):
    def __init__(self, path, epoch):
        self.path, self.epoch = path, epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("epoch", [0, 1])
def test_it_resumes_bit_for_bit_from_before_and_after(tmp_path, epoch):
    path = tmp_path / "half.ckpt"
    monitor = SparsityMonitor()
    whole = fit(pruning(), Shrink(), monitor, Save(path, epoch))
    again, masks, shrink = Convolutional(), pruning(), Shrink()
    fit(masks, shrink, SparsityMonitor(), model=again, ckpt_path=path, **settings.SAFE)
    assert settings.same_state(whole, again)
    assert whole.seen[10 * (epoch + 1) :] == again.seen
    assert (shrink.step, masks.sparsity) == (12, pytest.approx(0.6, abs=0.05))


def test_its_checkpoint_is_loaded_by_a_trainer_and_without_one(tmp_path):
    path = tmp_path / "end.ckpt"
    masks = pruning()
    trained = fit(masks, Shrink(), Save(path, 2)).eval()
    images = settings.digits().tensors[0][:50]
    (result,) = settings.quiet(pruning(), Shrink()).validate(
        Convolutional(), settings.batches(), ckpt_path=path, verbose=False, **settings.SAFE
    )
    expected = (trained(settings.digits().tensors[0]).argmax(1) == settings.digits().tensors[1]).double().mean()
    assert result["accuracy"] == pytest.approx(expected.item(), abs=1e-6)
    state = torch.load(path, weights_only=True)["state_dict"]
    model = Convolutional().eval()
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict(state)
    narrow_to(model, state)
    model.load_state_dict(state)
    assert torch.equal(model(images), trained(images))
    assert (model.stem[0].out_channels, model.stem[1].num_features) == (len(model.stem[0].weight),) * 2
    assert load_masks(path).sparsity == pytest.approx(masks.sparsity)


def test_averages_that_callbacks_hold_are_narrowed_with_it():
    ends = []
    for others in ([], [Shrink()]):
        average = WeightAveraging(avg_fn=get_ema_avg_fn(0.8))
        model = fit(pruning(), *others, average)
        ends.append(model.eval()(settings.digits().tensors[0][:50]))
    assert torch.allclose(*ends, rtol=1e-9)


def test_a_state_of_another_shape_starts_anew_and_is_named():
    model = Convolutional()
    model.configure_optimizers = lambda: torch.optim.Adafactor(model.parameters(), lr=0.01)
    with pytest.warns(UserWarning, match=r"state of .*weight.* starts anew"):
        fit(pruning(), Shrink(), model=model)
    assert len(model.stem[0].weight) < 8


def test_channels_that_die_alone_are_left_with_a_word_about_it():
    with pytest.warns(UserWarning, match="write granularity='tied_channels'"):
        fit(OneShot(0.3, at=5, granularity="channels", include=["stem.0.weight", "block.3.weight"]), Shrink())


def test_what_cannot_be_narrowed_is_refused_or_left():
    with pytest.raises(SparsityError, match="there is none: write callbacks="):
        fit(Shrink())

    class Teacher(Convolutional):
        def __init__(self):
            super().__init__()
            self.teacher = nn.ModuleList([copy.deepcopy(nn.ModuleDict({"stem": self.stem, "block": self.block}))])
            self.teacher.requires_grad_(False)

    model = Teacher()
    with pytest.warns(UserWarning, match="keeps a copy"):
        fit(pruning(include=["stem.*.weight", "block.*.weight"], exclude=["*.1.*", "*.4.*"]), Shrink(), model=model)
    assert len(model.stem[0].weight) == 8


def test_several_processes_are_refused_before_training():
    with pytest.raises(Exception, match=r"(?s)2 processes.*train on one device"):
        settings.quiet(pruning(), Shrink(), devices=2, strategy="ddp_spawn", max_epochs=1).fit(
            Convolutional(), settings.batches()
        )
