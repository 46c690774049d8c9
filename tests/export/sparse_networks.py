"""Networks with zeros at random places, one that reads a weight by itself, and when two outputs are equal."""

from itertools import pairwise

import torch
from torch import nn


def pruned(model, density=0.02):
    generator = torch.Generator().manual_seed(1)  # not that of the weights: only the negative ones would live
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.mul_(torch.rand(weight.shape, generator=generator) < density)
    return model


def mlp(*widths, bias=True):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def close(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


class Reads(nn.Module):
    """Uses a weight without calling its layer, and calls another one twice, under two names."""

    def __init__(self):
        super().__init__()
        self.read, self.twice, self.never = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)
        self.also = self.twice

    def forward(self, x):
        return {"out": (self.also(self.twice(nn.functional.linear(x, self.read.weight))), None)}
