"""Train a module that looks at its weights in every step, and check what it saw."""

import torch
from lightning.pytorch import LightningModule
from torch import nn

import settings


def fit(make_trainer, method, model, *callbacks, **arguments):
    trainer = make_trainer(method, *callbacks, **{"max_epochs": 2, **arguments})
    trainer.fit(model, settings.batches())
    return trainer


def check(model, method, names=None, sparsity=0.9) -> None:
    if names is not None:
        assert list(method.masks) == names
    assert method.masks.total == sum(model.get_parameter(name).numel() for name in method.masks)
    assert settings.exact(method.masks, sparsity)
    assert settings.dead_are_zero(model, method.masks)
    assert model.looked == 20


class Backboned(LightningModule):
    """Somebody's features and a head; only the head is given to the optimizer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 30), nn.ReLU())
        self.head = nn.Linear(30, 10)
        self.looked = 0

    def training_step(self, batch, batch_idx):
        assert settings.dead_are_zero(self, self.trainer.callbacks[0].masks)
        self.looked += 1
        return nn.functional.cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
