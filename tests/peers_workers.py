"""What one rank of a two-process training does, in a module because spawned processes import it by name."""

import logging
import os

import torch
from lightning.pytorch.callbacks import ModelPruning

from lightning_sparse import GradualPruning
from settings import Module, batches, quiet

RANDOM = {
    "theirs": lambda: ModelPruning(
        "random_unstructured", amount=0.5, parameter_names=["weight"], use_lottery_ticket_hypothesis=False
    ),
    "ours": lambda: GradualPruning(0.5, criterion="random"),
}


class SeededByRank(Module):
    """As after ``seed_everything(seed + rank)``: each rank draws its own augmentations."""

    def on_train_start(self):
        torch.manual_seed(self.global_rank)


def train_with_random_masks(rank: int, port: int, folder: str) -> None:
    """Train with each callback in turn, as rank ``rank`` of two, and leave the weights in ``folder``."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    logging.getLogger("lightning").setLevel(logging.ERROR)
    for whose, callback in RANDOM.items():
        model = SeededByRank()
        quiet(callback(), devices=2, strategy="ddp", max_epochs=1).fit(model, batches())
        weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.dim() == 2}
        torch.save(weights, f"{folder}/{whose}-{rank}.pt")
