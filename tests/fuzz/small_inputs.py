"""What the right calls are made with: a network, images, maps and files, small enough to be made hundreds of times."""

import numpy as np
import torch
from torch import nn

from lightning_sparse import Curve, Recipe


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).eval()


def images(n=8):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def labels(n=8):
    return torch.arange(n) % 4


def pair(n=8):
    return images(n), labels(n)


def maps(n=8, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8))


def masks():
    return {"0.weight": torch.rand(3, 1, 3, 3) > 0.5, "4.weight": torch.rand(4, 108) > 0.5}


def measured():
    from lightning_sparse.measure import measure_saliency

    return measure_saliency(net(), pair(), methods=["gradient"], measures=["gini"]).arrays


def packed():
    from lightning_sparse.export import save_packed

    save_packed(net(), None, "written.packed")
    return "written.packed"


def sensitivity():
    from lightning_sparse.measure import measure_sensitivity_of_layers

    return measure_sensitivity_of_layers(net(), pair(), sparsities=[0.5])


def optimizer(model):
    return torch.optim.SGD(model.parameters(), 0.1)


def attached():
    model = net().train()
    return {
        "optimizer": optimizer(model),
        "model": model,
        "recipe": Recipe(Curve(0.5)),
        "total_steps": 8,
        "state": None,
    }


def attached_with_batches():
    return attached() | {"batches": [pair()], "loss_fn": nn.functional.cross_entropy}


def shape():
    return {"shape": (1, 28, 28), "classes": 4}  # a width of 90 is a network that takes minutes to make
