"""Tensor trains on MNIST, after Novikov et al. 2015 (arXiv 1509.06569), beside products of two matrices.

    nice python benchmarks/tensor_trains.py

1024-1024-10, images made 32 x 32; the first layer is a tensor train, trained from the start, as the callback Factorise does
it. Five seeds. The table of docs/compression.md between the marks `novikov`.
"""

from __future__ import annotations

import torch
from by_seed import Found, by_seed, cell, table, write
from deep_compression import error, mnist, trained
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.compress.factorised import factorise_layers

EPOCHS = 6
KINDS = {"tensor_train": (1, 2, 4, 8), "svd": (1, 3)}


def enlarged(images: Tensor) -> Tensor:
    """28 x 28 pixels to 32 x 32, each around 0."""
    return F.interpolate((images - 0.1307) / 0.3081, (32, 32), mode="bilinear", align_corners=False)


def measure(seed: int) -> Found:
    """Test errors in percent, and numbers in the first layer, of one seed."""
    (images, labels), (test, truth) = mnist()
    images, test, found = enlarged(images), enlarged(test), {}
    for kind, rank in [("dense", 0), *((kind, rank) for kind, ranks in KINDS.items() for rank in ranks)]:
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10))
        if rank:
            factorise_layers(net, None, kind, rank=rank, include=["1.weight"], fresh=True)
        found[f"{kind} {rank}"] = error(trained(net, images, labels, EPOCHS), test, truth)
        found[f"numbers {kind} {rank}"] = sum(parameter.numel() for parameter in net[1].parameters()) - 1024
    return found


def main() -> None:
    found = by_seed("tensor_trains", measure)
    rows = [["dense", f"{found[0]['numbers dense 0']:,}", cell(found, "dense 0")]]
    for kind, ranks in KINDS.items():
        name = {"tensor_train": "tensor train", "svd": "two matrices"}[kind]
        for rank in ranks:
            numbers = f"{found[0][f'numbers {kind} {rank}']:,}"
            rows.append([f"{name}, rank {rank}", numbers, cell(found, f"{kind} {rank}")])
    text = table(["first layer", "numbers, biases apart", "test error, %"], rows)
    write("compression.md", "novikov", f"{text}\n\n{len(found)} seeds, {EPOCHS} epochs.")


if __name__ == "__main__":
    main()
