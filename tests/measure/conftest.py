"""One small real classifier, trained once: handwritten digits, 8x8, a convolution, a BatchNorm and a Dropout."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Digits:
    model: nn.Module
    images: Tensor
    labels: Tensor
    calibration: tuple[Tensor, Tensor]


def train(images: Tensor, labels: Tensor, classes: int) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, classes),
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model


def shuffled() -> tuple[Tensor, Tensor]:
    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    return torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)[order], torch.tensor(data.target)[order]


@pytest.fixture(scope="session")
def digits() -> Digits:
    images, labels = shuffled()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = train(images[:1200], labels[:1200], 10)
    return Digits(model, images[1200:1350], labels[1200:1350], (images[1350:1600], labels[1350:1600]))


@pytest.fixture(scope="session")
def three_digits() -> Digits:
    images, labels = shuffled()
    images, labels = images[labels < 3], labels[labels < 3]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = train(images[:400], labels[:400], 3)
    return Digits(model, images[400:460], labels[400:460], (images[460:], labels[460:]))


class Times(nn.Module):
    """A model whose logits are those of another, times a factor."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model = model
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.model(x)


@pytest.fixture(scope="session")
def times() -> type[Times]:
    return Times
