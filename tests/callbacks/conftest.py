"""A real data set, a real module and a real Trainer, small enough to run in a blink."""

import logging

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import BrainDevelopment, Curve, GradualPruning, SparseTraining

METHODS = {
    "gradual": lambda s, **k: GradualPruning(s, **k),
    "brain": lambda s, **k: BrainDevelopment(s, **k),
    "brain-momentum": lambda s, **k: BrainDevelopment(s, growth="momentum", **k),
    "static": lambda s, **k: SparseTraining(s, **k),
    "rigl": lambda s, **k: SparseTraining(s, turnover=Curve(0.3).then(0.75, 0.0, "cosine"), every=5, **k),
}


@pytest.fixture(params=METHODS)
def make_method(request):
    """Each method in turn, as a function of the sparsity."""
    return METHODS[request.param]


@pytest.fixture(scope="session")
def digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return TensorDataset(torch.tensor(bunch.data[:640] / 16).float(), torch.tensor(bunch.target[:640]))


class Module(LightningModule):
    """Somebody's module: BatchNorm, a bias, an attention-like buffer whose name ends in _mask."""

    def __init__(self, lr=0.1, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.lr = lr
        self.body = nn.Sequential(nn.Linear(64, 60), nn.BatchNorm1d(60), nn.ReLU(), nn.Linear(60, 30), nn.ReLU())
        self.head = nn.Linear(30, 10)
        self.register_buffer("attention_mask", torch.ones(3))

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self(x).argmax(1) == y).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, weight_decay=1e-4)


@pytest.fixture
def loader(digits):
    return DataLoader(digits, batch_size=64)  # 10 batches, in order


@pytest.fixture
def make_trainer(tmp_path):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def make(*callbacks, **arguments):
        defaults = {
            "max_epochs": 4,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": tmp_path,
        }
        return Trainer(callbacks=list(callbacks), **{**defaults, **arguments})

    return make


@pytest.fixture
def module():
    return Module
