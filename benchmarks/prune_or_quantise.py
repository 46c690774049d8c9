"""Pruning or quantisation, at equal bits? LeNet-300-100 on MNIST, after Kuzmin et al. 2023 (arXiv 2307.02973).

    nice python benchmarks/prune_or_quantise.py

Five seeds. The tables of docs/compression.md between the marks `kuzmin`.
"""

from __future__ import annotations

import torch
from by_seed import Found, by_seed, cell, table, write
from deep_compression import error, mnist, trained

from lightning_sparse.compress import Code, Prune, Quantise, compress
from lightning_sparse.errors import OutOfReachError
from lightning_sparse.models import lenet_300_100

SIZES = (0.125, 0.0625, 0.04, 0.02)
EPOCHS, MORE = 6, 3
STEPS = {
    "quantised": lambda size: [Quantise(), Code()],
    "pruned": lambda size: [Prune(), Code()],
    # As Kuzmin et al. count: 16 bits of each weight that lives, and none that says which.
    "pruned, mask free": lambda size: [Prune(1 - 2 * size), Code()],
    "pruned, then 4 bits": lambda size: [Prune(), Quantise(bits=4), Code()],
}


def measure(seed: int) -> Found:
    """Accuracies in percent and sizes, of one seed."""
    train, test = mnist()
    torch.manual_seed(seed)
    dense = trained(lenet_300_100((1, 28, 28), 10), *train, EPOCHS)
    found = {"dense": 100 - error(dense, *test)}
    for size in SIZES:
        for name, steps in STEPS.items():
            given = None if name == "pruned, mask free" else size
            try:
                small = compress(dense, steps(size), bits=given, data=train, fine_tune=MORE, batch_size=500, seed=seed)
            except OutOfReachError:
                continue
            found[f"{name} {size}"] = 100 - error(small.model, *test)
            found[f"share of {name} {size}"] = small.share
            found[f"mask of {name} {size}"] = small.account.part("mask") / small.bits
    least = compress(dense, [Quantise(levels=2), Code()])
    return found | {"least": least.share}


def main() -> None:
    found = by_seed("prune_or_quantise", measure)
    rows = [["dense, 32 bits", cell(found, "dense"), *[""] * (len(SIZES) - 1)]]
    rows += [[name, *(cell(found, f"{name} {size}") for size in SIZES)] for name in STEPS]
    for name in ("pruned", "pruned, mask free", "pruned, then 4 bits"):
        rows.append([f"{name}, less quantised", *(cell(found, f"{name} {s}", f"quantised {s}") for s in SIZES)])
    shares = [[seed[key] / float(key.split()[-1]) for seed in found] for key in found[0] if key.startswith("share of")]
    names = [key for key in found[0] if key.startswith("share of")]
    exact = [share for name, some in zip(names, shares, strict=True) if "free" not in name for share in some]
    masks = [seed[f"mask of pruned {size}"] for size in SIZES for seed in found]
    free = [seed[f"share of pruned, mask free {size}"] / size for size in SIZES for seed in found]
    least = [seed["least"] for seed in found]
    said = (
        f"{len(found)} seeds. What came out takes {min(exact):.2f} to {max(exact):.2f} of the size asked for; masks are "
        f"{min(masks):.2f} to {max(masks):.2f} of the bits of the pruned networks, and those whose mask is free take "
        f"{min(free):.2f} to {max(free):.2f} of the size with it. Two levels a weight, the fewest, take {min(least):.4f} "
        f"to {max(least):.4f}."
    )
    write("compression.md", "kuzmin", f"{table(['accuracy, %', *map(str, SIZES)], rows)}\n\n{said}")


if __name__ == "__main__":
    main()
