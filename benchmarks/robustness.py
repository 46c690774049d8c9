"""What robust accuracy costs compared with torchattacks: forward images and seconds, on a small CNN trained in two ways.

MNIST where its files are (LIGHTNING_SPARSE_DATA, or ../shared/data), else the digits that ship with scikit-learn.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
import torchattacks
from harness import Table
from sklearn.datasets import load_digits
from torch.nn import functional as F

from lightning_sparse import untouched
from lightning_sparse.measure import pgd
from lightning_sparse.measure.robustness.robust_accuracy import measure_robustness
from lightning_sparse.measure.robustness.sample_count import counted
from lightning_sparse.models.networks import small_cnn

DATA = Path(os.environ.get("LIGHTNING_SPARSE_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))


def load():
    """Name, training images and labels, test images and labels, eps of the curve, and eps to train at."""
    if (DATA / "MNIST" / "raw").exists():
        from torchvision.datasets import MNIST

        parts = [MNIST(DATA, train=train) for train in (True, False)]
        (x, y), (tx, ty) = [(part.data[:, None].float() / 255, part.targets) for part in parts]
        return "MNIST", x[:30000], y[:30000], tx, ty, [0.05, 0.1, 0.15, 0.2, 0.3], 0.15
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(data.images / 16, dtype=torch.float32)[:, None][order]
    y = torch.tensor(data.target)[order]
    return "digits", x[:1200], y[:1200], x[1200:], y[1200:], [k / 16 for k in range(1, 6)], 2 / 16


def train(x, y, epochs: int, eps: float = 0.0):
    torch.manual_seed(0)
    model = small_cnn(tuple(x.shape[1:]), 10)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            images, labels = x[batch], y[batch]
            if eps:
                with untouched(model):
                    images, _ = pgd(model, images, labels, eps=eps, steps=3, keep_broken=True)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model


def spent(model, run) -> tuple[int, float, object]:
    """Forward images, CPU seconds, and what came out."""
    start = time.process_time()
    with counted(model) as samples:
        result = run()
    return samples.count, time.process_time() - start, result


def in_full(model, x, y, radii, attacks) -> list[float]:
    """Robust accuracy at each eps: every attack runs on the right images that those before it have left at that eps."""
    shares = []
    with untouched(model):
        for eps in radii:
            standing = model(x).argmax(1) == y
            for make in attacks:
                left = standing.nonzero().squeeze(1)
                if len(left):
                    standing[left] = model(make(eps, model)(x[left], y[left])).argmax(1) == y[left]
            shares.append(standing.float().mean().item())
    return shares


def compare(title: str, model, x, y, radii, attacks, bound: float | None, **settings) -> None:
    theirs, their_seconds, shares = spent(model, lambda: in_full(model, x, y, radii, attacks))
    ours, our_seconds, measured = spent(model, lambda: measure_robustness(model, (x, y), eps=radii, **settings))
    worst = [row.value for row in measured.records if row.attack == "worst" and row.eps]
    table = Table(f"{title}, {len(x)} images, eps {', '.join(f'{eps:.3g}' for eps in radii)}")
    table.add("forward images, ratio to torchattacks", ours / theirs, bound)
    table.add("CPU seconds, ratio to torchattacks", our_seconds / their_seconds)
    table.add("forward images of torchattacks, in thousands", theirs / 1e3, digits=0)
    table.add("CPU seconds of torchattacks", their_seconds, digits=1)
    table.add("largest excess of ours in robust accuracy", max(a - b for a, b in zip(worst, shares, strict=True)))
    table.add("robust accuracy of ours at the middle eps", worst[len(worst) // 2])
    table.show()


COMMON = {"norm": "Linf", "seed": 0, "n_restarts": 1}

if __name__ == "__main__":
    name, x, y, test_x, test_y, radii, eps = load()
    epochs = 1 if name == "MNIST" else 15
    plain = train(x, y, epochs)
    theirs = [lambda e, m: torchattacks.PGD(m, eps=e, alpha=2.5 * e / 20, steps=20)]
    # An image that is never broken costs all its steps: on an adversarially trained network hardly any can be saved.
    for kind, model, bound in (("plain", plain, 0.5), ("adversarial", train(x, y, epochs, eps), None)):
        title = f"PGD-20, {name}, {kind} training"
        compare(title, model, test_x[:500], test_y[:500], radii, theirs, bound, tier="monitor", steps=20)
    full = [
        lambda e, m: torchattacks.APGD(m, eps=e, steps=100, **COMMON),
        lambda e, m: torchattacks.APGDT(m, eps=e, steps=100, n_classes=10, **COMMON),
        lambda e, m: torchattacks.FAB(m, eps=e, steps=100, multi_targeted=True, n_classes=10, **COMMON),
        lambda e, m: torchattacks.Square(m, eps=e, n_queries=5000, resc_schedule=False, **COMMON),
    ]
    title = f"Reference tier with its checks, {name}, plain training"
    compare(title, plain, test_x[:64], test_y[:64], radii, full, 1 / 3, tier="reference")
