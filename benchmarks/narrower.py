"""What a narrower network saves in training: a step, and a whole training with `Shrink`."""

from __future__ import annotations

import logging
import warnings

import torch
from harness import Table, milliseconds, race, ratio
from lightning.pytorch import LightningModule, Trainer
from steps import Step, step_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from lightning_sparse import Curve, GradualPruning, Recipe, Shrink, attach
from lightning_sparse.export import shrink
from lightning_sparse.models import resnet20

ROUNDS, TRAININGS = 15, 3


class Training(LightningModule):
    """ResNet-20 on noise of 3 x 32 x 32: time does not depend on what is learned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = resnet20((3, 32, 32), 10)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """The loss."""
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD, as ResNets are trained."""
        return torch.optim.SGD(self.parameters(), 0.1, 0.9, weight_decay=5e-4)


def narrow_step(sparsity: float, images: Tensor) -> Step:
    """A step of the network that is left when this share of the channels of each group is removed."""
    torch.manual_seed(0)
    net = resnet20((3, 32, 32), 10)
    recipe = Recipe(Curve(sparsity), granularity="tied_channels", allocation="uniform")
    batch = (images, torch.arange(len(images)) % 10)
    attach(
        sgd(net), net, recipe, batches=[batch], loss_fn=lambda model, given: F.cross_entropy(model(given[0]), given[1])
    ).detach()
    small = shrink(net, images[:2]).model.train()
    return step_of(small, sgd(small), images)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 0.1, 0.9, weight_decay=5e-4)


def train(*callbacks: object) -> None:
    """Twelve epochs of ten batches."""
    data = DataLoader(TensorDataset(torch.randn(640, 3, 32, 32), torch.arange(640) % 10), batch_size=64)
    trainer = Trainer(
        max_epochs=12,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),  # type: ignore[arg-type]
    )
    trainer.fit(Training(), data)


def main() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    images = torch.randn(64, 3, 32, 32)

    def dense() -> Step:
        net = resnet20((3, 32, 32), 10)
        return step_of(net, sgd(net), images)

    ready = {"dense": dense(), "again": dense(), "half": narrow_step(0.5, images), "quarter": narrow_step(0.75, images)}
    times = race({name: (lambda step=step: step) for name, step in ready.items()}, ROUNDS)
    title = (
        f"Training step of ResNet-20, batch 64 of 3 x 32 x 32: ratio to dense ({milliseconds(times, 'dense'):.0f} ms)"
    )
    table = Table(title, ratio(times, "again", "dense"))
    table.add("half of the channels removed", ratio(times, "half", "dense"), 1 / 1.7)
    table.add("three quarters of the channels removed", ratio(times, "quarter", "dense"), 1 / 2.5)
    table.show()

    def training(sparsity: float, *others: type[Shrink]) -> Step:
        def run() -> None:
            prune = GradualPruning(sparsity, end=1 / 3, granularity="tied_channels", allocation="uniform")
            train(prune, *(kind() for kind in others))

        return run

    variants = {
        "masked": training(0.75),
        "again": training(0.75),
        "half": training(0.5, Shrink),
        "quarter": training(0.75, Shrink),
    }
    times = race({name: (lambda run=run: run) for name, run in variants.items()}, TRAININGS)
    title = (
        "A whole training of ResNet-20, channels pruned in its first third, with `Shrink()`: ratio to the same without it "
        f"({milliseconds(times, 'masked') / 1e3:.0f} s)"
    )
    table = Table(title, ratio(times, "again", "masked"))
    table.add("half of the channels", ratio(times, "half", "masked"))
    table.add("three quarters of the channels", ratio(times, "quarter", "masked"))
    table.show()


if __name__ == "__main__":
    main()
