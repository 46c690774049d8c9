"""What the benchmarks of ephemeral sparsity train: LeNet-300-100 on digits or MNIST, in a Trainer that says nothing."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch import Tensor, nn

from lightning_sparse.data import ImageData
from lightning_sparse.models import Classifier, lenet_300_100
from lightning_sparse.statistics import t_interval

warnings.simplefilter("ignore")
for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
    logging.getLogger(name).setLevel(logging.ERROR)
torch.set_num_threads(1)

DATA = {
    "digits": {"shape": (1, 8, 8), "mean": [0.3053], "std": [0.3764], "batch_size": 64},
    "mnist": {"shape": (1, 28, 28), "mean": [0.1307], "std": [0.3081], "batch_size": 128},
}


def data_of(name: str, seed: int, batch_size: int | None = None) -> ImageData:
    """The images, in an order of the seed."""
    chosen = {**DATA[name], **({"batch_size": batch_size} if batch_size else {})}
    folder = {"root": os.environ["LIGHTNING_SPARSE_DATA"]} if name != "digits" else {}
    return ImageData(name, classes=10, shuffle_seed=seed, **chosen, **folder)


def train(
    data: ImageData,
    name: str,
    seed: int,
    epochs: int,
    *callbacks: Callback,
    dropout: float = 0.0,
    momentum: float = 0.9,
    **arguments: Any,
) -> nn.Module:
    """Train with SGD, 0.05, cosine, weight decay 5e-4; return the model in eval mode."""
    seed_everything(seed, verbose=False)
    net = lenet_300_100(DATA[name]["shape"], 10)
    if dropout:
        net = nn.Sequential(*[part for layer in net for part in with_dropout(layer, dropout)])
    optimizer = partial(torch.optim.SGD, lr=0.05, momentum=momentum, weight_decay=5e-4)
    model = Classifier(net, mean=DATA[name]["mean"], std=DATA[name]["std"], optimizer=optimizer)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    defaults = {"accelerator": "cpu", "devices": 1, "limit_val_batches": 0}
    Trainer(max_epochs=epochs, callbacks=list(callbacks), **quiet, **(defaults | arguments)).fit(model, data)
    return model.eval()


def with_dropout(layer: nn.Module, p: float) -> list[nn.Module]:
    return [layer, nn.Dropout(p)] if isinstance(layer, nn.ReLU) else [layer]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Percent of the images."""
    return 100 * float((model(images).argmax(1) == labels).double().mean())


def said(values: Sequence[float]) -> str:
    """Mean, and half the width of the 95 % interval over seeds."""
    mean, low, high = t_interval(values)
    return f"{mean:.1f} ± {(high - low) / 2:.1f}" if len(values) > 1 else f"{mean:.1f}"
