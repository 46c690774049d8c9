"""Which techniques help each other, and what fine-tuning buys: LeNet-300-100 on scikit-learn's digits.

    nice python benchmarks/pairs.py

Five seeds. The table of docs/compression.md between the marks `pairs`.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from by_seed import Found, by_seed, cell, table, write
from deep_compression import error, trained

from lightning_sparse.compress import Code, Factorise, Narrow, Prune, Quantise, Share, compress
from lightning_sparse.data import ImageData
from lightning_sparse.errors import OutOfReachError
from lightning_sparse.models import lenet_300_100

SIZES, EPOCHS, MORE, LONG = (0.05, 0.02), 20, (0, 5), 10
STEPS: dict[str, list[Any]] = {
    "prune": [Prune()],
    "quantise": [Quantise()],
    "share": [Share()],
    "SVD": [Factorise()],
    "tensor train": [Factorise(kind="tensor_train")],
    "narrow": [],
    "prune, share 3 bits": [Prune(), Share(bits=3)],
    "prune, quantise 4 bits": [Prune(), Quantise(bits=4)],
    "SVD, share 4 bits": [Factorise(), Share(bits=4)],
    "SVD, quantise 4 bits": [Factorise(), Quantise(bits=4)],
    "tensor train, quantise 4 bits": [Factorise(kind="tensor_train"), Quantise(bits=4)],
    "SVD to a half, prune": [Factorise(share=0.5), Prune()],
    "SVD to a half, prune, share 3 bits": [Factorise(share=0.5), Prune(), Share(bits=3)],
    "narrow, quantise 4 bits": [Quantise(bits=4)],
    "narrow, share 4 bits": [Share(bits=4)],
}
LONGER = ("prune, share 3 bits", "narrow, quantise 4 bits")
make = partial(lenet_300_100, (1, 8, 8), 10)


def measure(seed: int) -> Found:
    """Test accuracies in percent, by technique, size and epochs of fine-tuning, of one seed."""
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.31], std=[0.38])
    train, test = data.split("train"), data.split("test")
    torch.manual_seed(seed)
    dense = trained(make(), *train, EPOCHS)
    found = {"dense": 100 - error(dense, *test)}
    for name, steps in STEPS.items():
        for size in SIZES:
            try:
                first, bits = [*steps, Code()], size
                if name.startswith("narrow"):
                    width = compress(dense, [Narrow(make), *first], bits=size).steps[0].width
                    torch.manual_seed(seed)
                    small = trained(make(width), *train, EPOCHS)
                    first, bits = [Narrow(lambda _, net=small: deepcopy(net), width), *first], None
                once = compress(dense, first, bits=bits)
                for more in (*MORE, LONG) if name in LONGER else MORE:
                    done = compress(dense, once.steps, data=train, fine_tune=more, seed=seed) if more else once
                    found[f"{name} {size} {more}"] = 100 - error(done.model, *test)
                    found[f"share {name} {size} {more}"] = done.share / size
            except OutOfReachError:
                continue
    return found


def main() -> None:
    found = by_seed("pairs", measure)
    rows = [["dense, 32 bits", cell(found, "dense"), *[""] * 5]]
    for name in STEPS:
        cells = [cell(found, f"{name} {size} {more}") for size in SIZES for more in (*MORE, LONG)]
        rows.append([name, *cells])
    named = [f"share {name} {size} {more}" for name in STEPS for size in SIZES for more in (*MORE, LONG)]
    shares = [seed[key] for seed in found for key in named if key in seed]
    head = ["accuracy, %", *(f"{size}, {more} epochs" for size in SIZES for more in (*MORE, LONG))]
    said = f"{len(found)} seeds. What came out takes {min(shares):.2f} to {max(shares):.2f} of the size asked for."
    write("compression.md", "pairs", f"{table(head, rows)}\n\n{said}")


if __name__ == "__main__":
    main()
