"""One table of settings: every callback that changes masks runs through every mode. A new callback is one line here."""

import inspect
import os
from collections.abc import Callable
from functools import cache

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    SNIP,
    BrainDevelopment,
    Curve,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GraSP,
    GrowAndPrune,
    IterativePruning,
    LotteryTicket,
    OneShot,
    RigL,
    SparseTraining,
    Static,
    SynFlow,
)

METHODS = {
    "gradual": GradualPruning,
    "brain": BrainDevelopment,
    "brain-momentum": lambda s, **k: BrainDevelopment(s, **{"growth": "momentum", **k}),
    "brain-random": lambda s, **k: BrainDevelopment(s, **{"growth": "random", **k}),
    "static": SparseTraining,
    "rigl": lambda s, **k: SparseTraining(s, turnover=Curve(0.3).then(0.75, 0.0, "cosine"), every=5, **k),
}

# Every method that has a name, as a function of the sparsity. 20 steps are enough to see all of what it does.
RECIPES: dict[str, Callable[..., SparseTraining]] = {
    "Static": Static,
    "OneShot": OneShot,
    "OneShot-wanda": lambda s, **k: OneShot(s, criterion="wanda", **k),
    "OneShot-obs": lambda s, **k: OneShot(s, reconstruct="obs", score_batches=2, **k),
    "GradualPruning": GradualPruning,
    "SNIP": lambda s, **k: SNIP(s, rounds=2, score_batches=2, **k),
    "GraSP": lambda s, **k: GraSP(s, score_batches=2, **k),
    "SynFlow": lambda s, **k: SynFlow(s, rounds=10, **k),
    "SET": lambda s, **k: SET(s, every=3, **k),
    "RigL": lambda s, **k: RigL(s, every=3, **k),
    "SNFS": lambda s, **k: SNFS(s, every=3, **k),
    "GraNet": lambda s, **k: GraNet(s, every=3, **k),
    "ACDC": ACDC,
    "DenseSparseDense": DenseSparseDense,
    "IterativePruning": IterativePruning,
    "LotteryTicket": LotteryTicket,
    "LotteryTicket-reinit": lambda s, **k: LotteryTicket(s, reinit=True, **k),
    "GrowAndPrune": lambda s, **k: GrowAndPrune(s, every=2, **k),
    "BrainDevelopment": BrainDevelopment,
    "BrainDevelopment-pruning_turnover": lambda s, **k: BrainDevelopment(s, pruning_turnover=0.3, **k),
}

# Where the Trainers of the tests run: `make test-gpu` asks for "gpu".
ACCELERATOR = os.environ.get("LIGHTNING_SPARSE_TESTS_ACCELERATOR", "cpu")
DEVICE = "cuda" if ACCELERATOR == "gpu" else "cpu"

# Lightning 2.5 has no such argument, and reads what it wrote.
SAFE = {"weights_only": True} if "weights_only" in inspect.signature(Trainer.fit).parameters else {}


class Rows(TensorDataset):
    """A batch is taken at once, which leaves more time for what is tested."""

    def __getitems__(self, rows):
        return list(zip(*(tensor[rows] for tensor in self.tensors), strict=True))


@cache
def digits() -> TensorDataset:
    """The first 640 of scikit-learn's digits, flat, in [0, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Rows(torch.tensor(bunch.data[:640] / 16).float(), torch.tensor(bunch.target[:640]))


class Batches(TensorDataset):
    """Of whose tensors a loader takes a batch at once, and does not stack it again."""

    def __getitems__(self, rows):
        return [tensor[rows] for tensor in self.tensors]


def as_it_is(batch):
    return batch


def batches(**arguments) -> DataLoader:
    """Ten batches of digits, in order."""
    return DataLoader(Batches(*digits().tensors), **{"batch_size": 64, "collate_fn": as_it_is, **arguments})


def quiet(*callbacks, **arguments) -> Trainer:
    """A real Trainer that prints and writes nothing; several processes run on the CPU, because there may be one GPU."""
    alone = arguments.get("devices", 1) == 1
    defaults = {
        "max_epochs": 4,
        "accelerator": ACCELERATOR if alone else "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **arguments})


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


class ByHand(Module):
    """The same, which steps its optimizer itself."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


def dead_are_zero(model: nn.Module, masks) -> bool:
    """Whether every masked weight of ``model`` is exactly 0.0."""
    return not any(bool(model.get_parameter(name).masked_fill(mask, 0).any()) for name, mask in masks.items())


def exact(masks, sparsity: float) -> bool:
    """Whether exactly ``round(sparsity * total)`` connections are masked."""
    return masks.total - masks.living == round(sparsity * masks.total)


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold the same numbers, bit for bit."""
    pairs = zip(a.state_dict().items(), b.state_dict().items(), strict=True)
    return all(one == two and torch.equal(x, y) for (one, x), (two, y) in pairs)
