"""Deep Compression on MNIST, beside what Han et al. 2016 (arXiv 1510.00149, table 1) print.

    python benchmarks/deep_compression.py

Five seeds of LeNet-300-100 and of Caffe's LeNet-5, or of the one that is named behind.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.compress import Code, DeepCompression, compress, decompress
from lightning_sparse.data import ImageData
from lightning_sparse.models import lenet5_caffe, lenet_300_100
from lightning_sparse.statistics import t_interval

DATA = Path(os.environ.get("LIGHTNING_SPARSE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
# Network, sizes asked for, epochs of the dense network and of the fine-tuning; the paper's ratio and error in percent.
NETWORKS = {
    "LeNet-300-100": (lenet_300_100, (1 / 42,), 8, 16, (40, 1.58)),
    "LeNet-5": (lenet5_caffe, (1 / 41,), 6, 12, (39, 0.74)),
}


def mnist() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Images and labels for training, and for tests."""
    data = ImageData("mnist", root=str(DATA), shape=(1, 28, 28), classes=10, mean=[0.1307], std=[0.3081])
    return data.split("train"), data.split("test")


def trained(net: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> nn.Module:
    """By Adam, its learning rate along a cosine."""
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, epochs=epochs, steps_per_epoch=-(-len(images) // 128)
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


def main(networks: list[str]) -> None:
    (images, labels), test = mnist()
    rows = []
    for name in networks or NETWORKS:
        make, sizes, epochs, more, (ratio, published) = NETWORKS[name]
        found: dict[object, list[tuple[float, float]]] = {}
        for seed in range(5):
            torch.manual_seed(seed)
            dense = trained(make((1, 28, 28), 10), images, labels, epochs)
            half = compress(dense, [Code()], data=(images, labels), fine_tune=more, batch_size=128, seed=seed)
            found.setdefault("dense, trained as long", []).append(
                (32 * half.account.numbers / half.bits, error(half.model, *test))
            )
            for size in sizes:
                small = compress(
                    dense,
                    [DeepCompression(bits=3)],
                    bits=size,
                    data=(images, labels),
                    fine_tune=more,
                    batch_size=128,
                    seed=seed,
                )
                again = decompress(small.content, make((1, 28, 28), 10))
                found.setdefault(f"asked for {1 / size:.0f}x", []).append((1 / small.share, error(again, *test)))
            print(name, seed, {key: values[-1] for key, values in found.items()}, file=sys.stderr, flush=True)
        for key, values in found.items():
            ratios, errors = zip(*values, strict=True)
            mean, low, high = t_interval(errors)
            cells = (
                name,
                key,
                f"{min(ratios):.1f}x",
                f"{mean:.2f} ({low:.2f} to {high:.2f})",
                f"{ratio}x, {published}",
            )
            rows.append(f"| {' | '.join(cells)} |")
    head = ("network", "", "smaller by, at least", "test error, %, five seeds", "published")
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows, sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
