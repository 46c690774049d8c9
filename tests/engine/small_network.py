"""A small network with batches, and its weights as arrays."""

import torch
from torch import nn

NAMES = ["0.weight", "2.weight", "4.weight"]
SHAPES = [(9, 12), (7, 9), (5, 7)]
TOTAL = 206


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 9), nn.Tanh(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 5))


def batches(count):
    """Random numbers, three of whose columns are always zero: their weights never move, and many scores are equal."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x, y = torch.randn(16, 12, generator=generator), torch.randint(0, 5, (16,), generator=generator)
        x[:, ::5] = 0
        yield x, y


def loss_fn(net, batch):
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def arrays(tensors):
    return [tensor.detach().numpy().copy() for tensor in tensors]
