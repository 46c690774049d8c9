"""Warm-up, smoothed labels and memory laid out with channels last, each by itself and all at once."""

import math
import shutil

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import settings
from callbacks.test_within_epoch import Stop, often, same_end  # noqa: F401
from lightning_sparse import (
    AdversarialTraining,
    Augmentation,
    BrainDevelopment,
    GradualPruning,
    LotteryTicket,
    RandomState,
    SparsityError,
    SparsityMonitor,
    sparsity_of,
)
from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.data import ImageData
from lightning_sparse.models import Classifier, LanguageModel, resnet20


def one_batch(*tensors):
    return DataLoader(TensorDataset(*tensors), batch_size=len(tensors[0]))


def flat(**arguments):
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), mean=None, std=None, **arguments)


class Rates(Classifier):
    """Keeps the learning rate of every step."""

    def __init__(self, **arguments):
        super().__init__(nn.Linear(64, 10), mean=None, std=None, **arguments)
        self.rates = []

    def training_step(self, batch, batch_idx):
        self.rates.append(self.optimizers().param_groups[0]["lr"])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("warmup", [0.2, 4])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_rises_in_equal_steps_and_goes_on_as_its_schedule(schedule, warmup, make_trainer, loader):
    model = Rates(schedule=schedule, warmup=warmup)
    make_trainer(max_epochs=2).fit(model, loader)  # 20 steps, four of which are a fifth
    falls = [0.05 * (1 + math.cos(math.pi * step / 16)) for step in range(16)]
    expected = [0.025, 0.05, 0.075, 0.1, *(falls if schedule == "cosine" else [0.1] * 16)]
    assert model.rates == pytest.approx(expected, abs=1e-12)


def test_without_a_warm_up_the_rate_is_what_it_was(make_trainer, loader):
    model = Rates()
    make_trainer(max_epochs=2).fit(model, loader)
    assert model.rates == pytest.approx([0.05 * (1 + math.cos(math.pi * step / 20)) for step in range(20)], abs=1e-12)


def test_a_warm_up_that_does_not_fit_is_refused_before_training(make_trainer, loader):
    with pytest.raises(
        SparsityError, match=r"warmup=20 is not fewer than the training's 20 steps: write fewer, or a share"
    ):
        make_trainer(max_epochs=2).fit(Rates(warmup=20), loader)


def test_every_training_of_a_lottery_ticket_warms_up(make_trainer, loader):
    model = Rates(warmup=0.2)
    make_trainer(LotteryTicket(0.5, trainings=2), max_epochs=4).fit(model, loader)
    assert model.rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert model.rates[20:24] == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_smoothed_labels_give_each_class_its_share_in_training_alone(make_trainer):
    """Of ten classes at 0.2 the right one keeps 0.8 + 0.02, each other one gets 0.02."""
    images, labels = torch.rand(40, 1, 8, 8), torch.arange(40) % 10
    model = flat(label_smoothing=0.2, schedule="constant")
    logarithms = model(images).log_softmax(1).detach()
    targets = torch.full((40, 10), 0.02).scatter_(1, labels[:, None], 0.82)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(model, one_batch(images, labels), one_batch(images, labels))
    assert float(trainer.callback_metrics["train_loss"]) == pytest.approx(float(-(targets * logarithms).sum(1).mean()))
    whole = nn.functional.cross_entropy(model(images), labels).detach()
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(whole))


def test_channels_last_is_a_layout_and_the_same_network(make_trainer):
    images, labels = settings.digits()[:128]
    images = images.view(-1, 1, 8, 8)
    models = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = Classifier(resnet20((1, 8, 8), 10, 0.25), mean=[0.3], std=[0.4], channels_last=channels_last)
        make_trainer(max_epochs=2, precision="64-true").fit(model, one_batch(images, labels))
        models.append(model.eval())
    seen = []
    models[1].net[3].conv1.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    images = images.double()
    assert torch.allclose(models[0](images), models[1](images), atol=1e-9)
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert models[1].net[3].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert not models[0].net[3].conv1.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="torch.compile needs a compiler")
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_fit_has_the_names_and_masks_of_a_plain_one_and_resumes(make_trainer, loader, tmp_path):
    def run(folder, path=None, **arguments):
        model, method = flat(**arguments), GradualPruning(0.8, every=2)
        keep = ModelCheckpoint(tmp_path / folder, filename="{epoch}", save_top_k=-1)
        trainer = make_trainer(method, keep, max_epochs=2, enable_checkpointing=True)
        trainer.fit(model, loader, ckpt_path=path, **settings.SAFE)
        return model, method

    plain, _ = run("plain")
    watched, model = [], flat(compiled=True)
    model.on_train_end = lambda: watched.append(is_compiled(model))
    make_trainer(max_epochs=1).fit(model, loader)
    assert watched == [True]
    assert not is_compiled(model)
    whole, method = run("whole", compiled=True)
    assert whole.state_dict().keys() == plain.state_dict().keys()
    assert settings.exact(method.masks, 0.8)
    assert settings.dead_are_zero(whole, method.masks)
    assert all(
        torch.allclose(one, other, atol=1e-4) for one, other in zip(whole.parameters(), plain.parameters(), strict=True)
    )
    resumed, _ = run("resumed", tmp_path / "whole" / "epoch=0.ckpt", compiled=True)
    assert settings.same_state(resumed, whole)


def fit(folder, end, *more):
    """Two epochs of six batches, from the checkpoint in the folder if there is one."""
    seed_everything(0, verbose=False)
    data = ImageData(
        "digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4], num_workers=2, batch_size=34, images=200
    )
    model = Classifier(
        resnet20((1, 8, 8), 10, 0.25), mean=[0.3], std=[0.4], warmup=0.3, label_smoothing=0.1, channels_last=True
    )
    method = BrainDevelopment(0.8, every=2)
    kept = folder / "training.ckpt"
    Trainer(
        max_epochs=2,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_progress_bar=any(isinstance(one, Stop) for one in more),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[
            method,
            Augmentation(pad=1, cutout=3, fill=0.3, transform=v2.RandAugment()),
            AdversarialTraining(0.02),
            SparsityMonitor(),
            *more,
            RandomState(),
            EpochCheckpoint(kept),
            EndCheckpoint(folder / end),
        ],
    ).fit(model, datamodule=data, ckpt_path=kept if kept.exists() else None, weights_only=True)
    return model, method


@pytest.mark.filterwarnings("ignore")
def test_all_of_it_at_once_goes_on_bit_for_bit(tmp_path, often):  # noqa: F811
    whole, _ = fit(tmp_path, "whole.ckpt")
    (tmp_path / "training.ckpt").unlink()
    for at in ((0, 4), (1, 0), (1, 3)):
        with pytest.raises(KeyError, match="stopped"):
            fit(tmp_path, "end.ckpt", Stop(at))
    model, method = fit(tmp_path, "end.ckpt")
    same_end(tmp_path)
    assert settings.same_state(model, whole)
    assert settings.exact(method.masks, 0.8)
    assert settings.dead_are_zero(model, method.masks)
    assert sparsity_of(model) >= 0.79
    assert model.net[3].conv1.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup": 1.0}, r"warmup=1\.0 leaves nothing of the training after it: write a share such as 0\.05"),
        (
            {"warmup": 1.5},
            r"warmup=1\.5 is not a share of the training in \[0, 1\]: write 1 for that many optimizer steps",
        ),
        ({"warmup": "5 epochs"}, r"warmup='5 epochs' is not a time: write an int for optimizer steps"),
        ({"label_smoothing": -0.1}, r"label_smoothing=-0\.1 is not a share"),
        ({"compiled": 1}, r"compiled=1 is neither true nor false"),
        ({"channels_last": "yes"}, r"channels_last='yes' is neither true nor false"),
    ],
)
def test_what_is_out_of_range_is_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        flat(**arguments)
    if "warmup" in arguments:
        with pytest.raises(SparsityError, match=message):
            LanguageModel(nn.Linear(2, 2), **arguments)
