"""A callback that only looks on changes no weight, no random state and no order of batches, whatever it looks at."""

import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import settings
from lightning_sparse import (
    CheckpointAtTarget,
    GradualPruning,
    RandomState,
    RobustnessMonitor,
    SparsityMonitor,
    StopAtTarget,
    VarianceOfGradients,
)
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint

# Two trainings in one folder, because Lightning adds a ModelCheckpoint of its own.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


class Drawing(settings.Module):
    """Draws random numbers of every kind in every step, and remembers which images came."""

    def __init__(self):
        super().__init__()
        self.drop, self.seen = nn.Dropout(0.3), []

    def forward(self, x):
        return super().forward(self.drop(x.flatten(1)))

    def training_step(self, batch, batch_idx):
        drawn = [random.random(), np.random.rand(), float(torch.rand(()))]
        self.seen.append((drawn, batch[1].tolist()))
        return super().training_step(batch, batch_idx)


def images(begin, end):
    flat, labels = settings.digits()[begin:end]
    return TensorDataset(flat.view(-1, 1, 8, 8), labels)


def loader(begin=512, end=576, **arguments):
    return DataLoader(images(begin, end), **{"batch_size": 24, "shuffle": True, **arguments})


class Drawn(TensorDataset):
    """Images that draw, as augmented ones do."""

    def __getitem__(self, place):
        pixels, label = super().__getitem__(place)
        return pixels * random.random() * np.random.rand() * torch.rand(()), label


class Split(LightningDataModule):
    """Draws which images of a split it gives."""

    def __init__(self, train):
        super().__init__()
        self.train = train

    def train_dataloader(self):
        return self.train

    def val_dataloader(self):
        return loader(shuffle=False)

    def split(self, name, most):
        return images(512, 576)[torch.randperm(64)[:most]]


DATA = {
    "tensors": lambda train: images(512, 576).tensors,
    "shuffled": lambda train: loader(),
    "workers": lambda train: loader(num_workers=1),
    "workers that stay": lambda train: loader(num_workers=1, persistent_workers=True),
    "a generator of its own": lambda train: loader(generator=torch.Generator().manual_seed(3)),
    "a sampler of its own": lambda train: loader(
        shuffle=False,
        sampler=torch.utils.data.WeightedRandomSampler([1.0] * 64, 64, generator=torch.Generator().manual_seed(3)),
    ),
    "augmented": lambda train: DataLoader(Drawn(*images(512, 576).tensors), batch_size=24),
    "a generator of batches": lambda train: (batch for batch in loader()),
    "the one that is trained on": lambda train: train,
    "the data module's": lambda train: None,
}

# How each class is made, from the data to look at and a folder. AdversarialTraining is not here: it does more than look.
LOOKS_ON = {
    "SparsityMonitor": lambda data, folder: SparsityMonitor(),
    "CheckpointAtTarget": lambda data, folder: CheckpointAtTarget(folder, monitor="accuracy"),
    "StopAtTarget": lambda data, folder: StopAtTarget(monitor="accuracy", patience=99),
    "EpochCheckpoint": lambda data, folder: EpochCheckpoint(folder / "epoch.ckpt"),
    "EndCheckpoint": lambda data, folder: EndCheckpoint(folder / "end.ckpt"),
    "RandomState": lambda data, folder: RandomState(),
}
LOOKS_AT_IMAGES = {
    "RobustnessMonitor": lambda data, folder: RobustnessMonitor(0.1, data=data, images=40),
    "VarianceOfGradients": lambda data, folder: VarianceOfGradients(data, images=40),
}
TRAINED_ON = {
    "a plain loader": dict,
    "a generator of its own": lambda: {"generator": torch.Generator().manual_seed(4)},
    "workers that stay": lambda: {"num_workers": 1, "persistent_workers": True},
}
CASES = [(name, make, "tensors", "a plain loader") for name, make in LOOKS_ON.items()]
CASES += [(name, make, data, "a plain loader") for name, make in LOOKS_AT_IMAGES.items() for data in DATA]
CASES += [(name, make, "the one that is trained on", on) for name, make in LOOKS_AT_IMAGES.items() for on in TRAINED_ON]
CASES = list(dict.fromkeys(CASES))


def training(train, callbacks):
    """The trained model, what it saw, and where the random states stand in the end."""
    random.seed(1)
    np.random.seed(2)
    model = Drawing()
    trainer = settings.quiet(GradualPruning(0.9, every=4), *callbacks, max_epochs=2, enable_checkpointing=True)
    trainer.fit(model, datamodule=Split(train))
    return model, model.seen, (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())


@pytest.mark.parametrize(("name", "make", "data", "on"), CASES, ids=[f"{name}-{d}-{on}" for name, _, d, on in CASES])
def test_the_training_is_the_same_without_it(name, make, data, on, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where Lightning's own checkpoints go
    plain, watched = (loader(0, 512, batch_size=64, **TRAINED_ON[on]()) for _ in range(2))
    without, seen, states = training(plain, [])
    with_it, also_seen, also_states = training(watched, [make(DATA[data](watched), tmp_path)])
    assert also_seen == seen
    assert settings.same_state(with_it, without)
    assert also_states == states
    assert with_it.training == without.training
