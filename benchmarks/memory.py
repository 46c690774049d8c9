"""What masks, scores and monitors hold in memory and in a checkpoint, per weight: every tensor they refer to is counted."""

from __future__ import annotations

import gc
import io
from types import FunctionType, ModuleType

import torch
from harness import Table
from lightning.pytorch import LightningModule, Trainer
from steps import residual
from torch import nn
from torch.utils.data import DataLoader

from lightning_sparse import BrainDevelopment, GradualPruning, Masks, SparsityMonitor, sparsifiable


class Module(LightningModule):
    """ResNet-18 trained only to make its weights small, so that a step needs no images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = residual()[0]

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        """The sum of the squared weights."""
        return sum(weight.square().sum() for weight in self.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def held(root: object, apart_from: nn.Module) -> int:
    """Bytes of the tensors that can be reached from an object, without those of the model."""
    theirs = {tensor.untyped_storage().data_ptr() for tensor in [*apart_from.parameters(), *apart_from.buffers()]}
    theirs |= {p.grad.untyped_storage().data_ptr() for p in apart_from.parameters() if p.grad is not None}
    seen, storages, todo = set(), {}, [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type | FunctionType | ModuleType | nn.Module | Trainer):
            continue
        seen.add(id(thing))
        if isinstance(thing, torch.Tensor):
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif not isinstance(thing, torch.optim.Optimizer):
            todo.extend(gc.get_referents(thing))
    return sum(size for place, size in storages.items() if place not in theirs)


def trained(*callbacks):
    module = Module()
    trainer = Trainer(
        max_steps=8,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, DataLoader(torch.zeros(8, 1), batch_size=None))
    return module


def saved(state: object) -> int:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


if __name__ == "__main__":
    table = Table("Memory, ResNet-18: bytes by sparse weight")
    pruning, monitor = GradualPruning(0.9, every=1, end=1.0), SparsityMonitor()
    module = trained(pruning, monitor)
    weights = sparsifiable(module)
    count = sum(weight.numel() for weight in weights.values())
    growing = BrainDevelopment(0.9, growth="momentum", every=1)
    table.add("masks while training", held(Masks.dense(weights), module) / count, 4.01)
    table.add("masks of one byte", held(Masks.dense(weights, compact=True), module) / count, 1.01)
    table.add("all that GradualPruning holds", held(pruning, module) / count, 4.01)
    table.add("SparsityMonitor, in addition", (held([pruning, monitor], module) - held(pruning, module)) / count, 1.01)
    module = trained(growing)
    table.add("all that BrainDevelopment with growth by momentum holds", held(growing, module) / count, 8.01)
    table.show()
    table = Table("Checkpoint, ResNet-18: bits by sparse weight")
    state = pruning.state_dict()
    table.add("masks", 8 * saved(state["masks"]) / count, 1.01)
    table.add("all that GradualPruning saves", 8 * saved(state) / count, 1.02)
    table.add("SparsityMonitor, in addition", 8 * saved(monitor.state_dict()) / count, 2.02)
    table.show()
