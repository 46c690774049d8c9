"""Networks to pack: of many types of layers and tensors, and a tiny one."""

import math
import random

import torch
from torch import nn

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}


class Mixed(nn.Module):
    """Layers, norms and buffers of many types, some tied, some empty; any of the layers may be missing."""

    def __init__(self, seed, dtype):
        super().__init__()
        choose = random.Random(seed)
        width = choose.randint(1, 40)
        for name, make in {
            "linear": lambda: nn.Linear(width, choose.randint(1, 60)),
            "conv": lambda: nn.Conv2d(choose.randint(1, 8), 2 * width, choose.randint(1, 3), bias=False),
            "grouped": lambda: nn.ConvTranspose1d(2 * width, 2 * width, 3, groups=2),
            "norm": lambda: nn.BatchNorm2d(width),
            "lstm": lambda: nn.LSTM(3, choose.randint(1, 9)),
            "embedding": lambda: nn.Embedding(20, width),
        }.items():
            if choose.random() < 0.7:
                setattr(self, name, make())
        if hasattr(self, "embedding"):
            self.head = nn.Linear(width, 20)
            self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.tensor(choose.choice([0.0, math.nan, math.inf, -0.0, 1e-42])))
        self.to(dtype)
        for kind in (
            torch.bool,
            torch.uint8,
            torch.int16,
            torch.int64,
            torch.complex64,
            torch.float64,
            torch.float8_e5m2,
        ):
            self.register_buffer(str(kind)[6:], (100 * torch.randn(choose.randint(0, 3), 5)).to(kind))
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.register_buffer("left_out", torch.randn(3), persistent=False)


def mixed(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    return Mixed(seed, dtype)


def masks_of(model, seed, include=()):
    """Random masks of the weights of layers and of others that are named, applied."""
    torch.manual_seed(seed)
    found = {}
    for name, weight in model.named_parameters():
        if weight.dim() > 1 and (name.startswith(("linear", "conv", "grouped")) or name in include):
            density = random.Random(seed).choice([0.0, 0.02, 0.3, 0.95, 1.0])
            found[name] = torch.rand(weight.shape) < density
            weight.data[~found[name]] = 0
    return found


def bits(model):
    return {name: t.contiguous().reshape(-1).view(BITS[t.element_size()]) for name, t in model.state_dict().items()}


def same_bits(one, two):
    a, b = bits(one), bits(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tiny():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5))
    model[0].weight.data[torch.rand(5, 6) < 0.6] = 0
    return model
