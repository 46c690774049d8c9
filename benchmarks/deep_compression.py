"""Deep Compression on MNIST, beside what Han et al. 2016 (arXiv 1510.00149, table 1) print.

    python benchmarks/deep_compression.py

Five seeds of LeNet-300-100 and of Caffe's LeNet-5, or of the one that is named behind.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from by_seed import Found, by_seed, cell, table, write
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Optimizer

from lightning_sparse.compress import DeepCompression, compress, decompress
from lightning_sparse.data import ImageData
from lightning_sparse.models import lenet5_caffe, lenet_300_100

DATA = Path(os.environ.get("LIGHTNING_SPARSE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
# Network, size asked for, epochs of the dense network and of the fine-tuning, learning rates; the paper's ratio and error.
NETWORKS = {
    "LeNet-300-100": (lenet_300_100, 1 / 42, (15, 20), (0.1, 0.1), (40, 1.58)),
    "LeNet-5": (lenet5_caffe, 1 / 41, (8, 12), (0.05, 0.05), (39, 0.74)),
}


def mnist() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels for training, and for tests."""
    data = ImageData("mnist", root=str(DATA), shape=(1, 28, 28), classes=10, mean=[0.1307], std=[0.3081])
    return data.split("train"), data.split("test")


def trained(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int, optimizer: Optimizer | None = None
) -> nn.Module:
    """The learning rate rises to the optimizer's, or Adam's 2e-3, and falls along a cosine."""
    optimizer = optimizer or torch.optim.Adam(net.parameters(), 2e-3)
    steps, rate = -(-len(images) // 128), optimizer.param_groups[0]["lr"]
    warm = 0.15 if isinstance(optimizer, SGD) else 0.3
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rate, epochs=epochs, steps_per_epoch=steps, pct_start=warm
    )
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return net


def error(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """In percent."""
    with torch.no_grad():
        wrong = [(net(x).argmax(1) != y).sum() for x, y in zip(images.split(1000), labels.split(1000), strict=True)]
    return 100 * int(sum(wrong)) / len(labels)


def by_sgd(weights: Any, rate: float, decay: float) -> SGD:
    return SGD(weights, rate, momentum=0.9, weight_decay=decay, nesterov=True)


def measure(name: str, seed: int) -> Found:
    """Errors in percent of the dense network and of the one that is decoded from its string, and how much smaller that is."""
    make, size, (epochs, more), (rate, later), _ = NETWORKS[name]
    data = ImageData("mnist", root=str(DATA), shape=(1, 28, 28), classes=10, mean=[0.1307], std=[0.3081])
    both = zip(data.split("train"), data.split("validation"), strict=True)  # 60,000 images, as theirs
    images, labels = (torch.cat(parts) for parts in both)
    torch.manual_seed(seed)
    net = make((1, 28, 28), 10)
    dense = trained(net, images, labels, epochs, by_sgd(net.parameters(), rate, 5e-4))
    small = compress(
        dense,
        [DeepCompression(bits=3)],
        bits=size,
        data=(images, labels),
        fine_tune=more,
        batch_size=128,
        optimizer=lambda weights: by_sgd(weights, later, 2e-4),
        seed=seed,
    )
    again = decompress(small.content, make((1, 28, 28), 10))
    test = data.split("test")
    return {"dense": error(dense, *test), "compressed": error(again, *test), "smaller": 1 / small.share}


def main(names: list[str]) -> None:
    lines = []
    for name in names or NETWORKS:
        *_, (epochs, more), _, (ratio, published) = NETWORKS[name]
        found = by_seed(f"deep_compression_{name}", partial(measure, name))
        least = f"{min(seed['smaller'] for seed in found):.1f}x"
        lines.append([f"{name}, dense, {epochs} epochs", "", cell(found, "dense"), ""])
        lines.append([f"compressed, {more} more", least, cell(found, "compressed"), f"{ratio}x, {published}"])
    write(
        "compression.md",
        "deep_compression",
        table(["network", "smaller by, at least", "test error, %, five seeds", "published"], lines),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
