"""A whole Trainer.fit: 4 epochs of 100 steps of LeNet-300-100, an update after each epoch, compared with ModelPruning."""

from __future__ import annotations

import logging
import warnings

import torch
from harness import Table, milliseconds, race, ratio
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from steps import lenet
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_sparse import GradualPruning, sparsity_of

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore")

EPOCHS, STEPS = 4, 100
generator = torch.Generator().manual_seed(0)
batches = [
    (torch.randn(128, 784, generator=generator), torch.randint(0, 10, (128,), generator=generator))
    for _ in range(STEPS)
]
FINAL = 1 - 0.5**EPOCHS


class Module(LightningModule):
    """LeNet-300-100 with SGD."""

    def __init__(self) -> None:
        super().__init__()
        self.net = lenet()[0]

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Cross-entropy."""
        inputs, labels = batch
        return F.cross_entropy(self.net(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """So low a rate that the network does not learn its batches by heart."""
        return torch.optim.SGD(self.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4)


def fit(callback: Callback | None = None, module: LightningModule | None = None):
    module = module or Module()
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else [],
    )

    def run() -> None:
        trainer.fit(module, DataLoader(batches, batch_size=None))
        assert callback is None or abs(sparsity_of(module) - FINAL) < 1e-4

    return run


def with_model_pruning():
    module = Module()
    layers = [(layer, "weight") for layer in module.net if isinstance(layer, nn.Linear)]
    halving = ModelPruning("l1_unstructured", layers, amount=0.5, use_lottery_ticket_hypothesis=False)
    return fit(halving, module)


if __name__ == "__main__":
    times = race(
        {
            "dense": fit,
            "dense again": fit,
            "ours": lambda: fit(GradualPruning(FINAL, end=1.0, every=STEPS)),
            "ours, often": lambda: fit(GradualPruning(FINAL, end=1.0)),
            "ModelPruning": with_model_pruning,
        },
        rounds=9,
    )
    table = Table(
        f"Trainer.fit, LeNet-300-100, batch 128, {EPOCHS} epochs of {STEPS} steps: ratio to dense "
        f"({milliseconds(times, 'dense'):.0f} ms)",
        ratio(times, "dense again", "dense"),
    )
    table.add("GradualPruning, an update after each epoch", ratio(times, "ours", "dense"), 1.07)
    table.add("the same, ratio to ModelPruning", ratio(times, "ours", "ModelPruning"), 0.93)
    table.add("ModelPruning (without its lottery tickets)", ratio(times, "ModelPruning", "dense"))
    table.add("GradualPruning, an update every 4 steps", ratio(times, "ours, often", "dense"))
    table.show()
