"""The networks that the benchmarks train, and one training step of each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse.models.networks import lenet_300_100, resnet18

Step = Callable[[], None]


def lenet() -> tuple[nn.Module, torch.Tensor]:
    """LeNet-300-100 and a batch of 128: 0.27 M weights."""
    torch.manual_seed(0)
    return lenet_300_100((1, 28, 28), 10), torch.randn(128, 784)


def residual() -> tuple[nn.Module, torch.Tensor]:
    """ResNet-18 and a batch of 64 images of 3x32x32: 11.16 M weights."""
    torch.manual_seed(0)
    return resnet18((3, 32, 32), 10), torch.randn(64, 3, 32, 32)


class Attention(nn.Module):
    """One pre-norm transformer layer of plain linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens to tokens, shape (batch, tokens, width)."""
        query, key, value = (
            part.unflatten(-1, (4, -1)).transpose(1, 2) for part in self.mix(self.norms[0](x)).chunk(3, -1)
        )
        x = x + self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
        return x + self.feed(self.norms[1](x))


class First(nn.Module):
    """The first token only, which is what the head reads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (batch, tokens, width) to (batch, width)."""
        return x[:, 0]


def transformer(width: int = 128, layers: int = 4, batch: int = 32) -> tuple[nn.Module, torch.Tensor]:
    """Four layers of width 128, and a batch of 32 sequences of 64 tokens: 0.79 M weights."""
    torch.manual_seed(0)
    body = [Attention(width) for _ in range(layers)]
    return nn.Sequential(*body, First(), nn.Linear(width, 10)), torch.randn(batch, 64, width)


def step_of(
    model: Callable[[torch.Tensor], torch.Tensor], optimizer: torch.optim.Optimizer, inputs: torch.Tensor
) -> Step:
    """One training step on a fixed batch."""
    labels = torch.arange(len(inputs), device=inputs.device) % 10

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(inputs).float(), labels).backward()
        optimizer.step()

    return step
