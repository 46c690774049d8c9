"""A training script under DDP, run by Lightning as two processes, once for all cases: `python ddp_script.py FOLDER`.

Ranks start from different seeds and see different data. Each writes the masks' checksums after every update, and a
fingerprint of its final weights, to FOLDER/<rank>.json.
"""

import json
import logging
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from lightning.pytorch import Callback
from torch import nn

import settings
from lightning_sparse import BrainDevelopment, GradualPruning, OneShot, SparsityError

CASES = {
    **settings.METHODS,
    **settings.RECIPES,
    "random-drop": lambda s, **k: GradualPruning(s, criterion="random", **k),
    "born-wanda": lambda s: OneShot(s, at=0, criterion="wanda", score_batches=2),
    "born-obs": lambda s: OneShot(s, at=0, reconstruct="obs", score_batches=2),
    "accumulated": settings.METHODS["brain"],
    "clipped": settings.METHODS["rigl"],
    "lbfgs": settings.METHODS["brain"],
}
ARGUMENTS = {"accumulated": {"accumulate_grad_batches": 2}, "clipped": {"gradient_clip_val": 0.1}}


class Checksums(Callback):
    """The masks' checksum after every batch in which they were updated, and at birth."""

    def __init__(self, watched):
        self.watched, self.seen, self.updates = watched, [], 0

    def on_train_start(self, trainer, pl_module):
        self.seen.append(self.watched.masks.checksum())
        self.updates = len(self.watched.history)

    def on_train_batch_end(self, trainer, pl_module, *args):
        if len(self.watched.history) > self.updates:
            self.updates = len(self.watched.history)
            self.seen.append(self.watched.masks.checksum())


class Slow(settings.Module):
    def configure_optimizers(self):
        return torch.optim.LBFGS(self.parameters(), lr=0.3, max_iter=4)


def by_rank(layer):
    """A score that each rank draws for itself, which must be refused."""
    return torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(dist.get_rank()))


def run(name, rank):
    torch.manual_seed(100 + rank)
    module = Slow if name == "lbfgs" else settings.Module
    model, method = module(seed=rank), CASES[name](0.9)
    nn.init.normal_(model.head.weight)
    watch = Checksums(method)
    trainer = settings.quiet(method, watch, devices=2, strategy="ddp", max_epochs=2, **ARGUMENTS.get(name, {}))
    trainer.fit(model, settings.batches())
    assert settings.dead_are_zero(model, method.masks)
    assert settings.exact(method.masks, method.recipe.sparsity.final)
    weights = float(sum(p.double().abs().sum() for p in model.parameters()))
    return {"checksums": watch.seen, "weights": weights, "clock": method.engine.clock}


def main(folder):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    trainer = settings.quiet(devices=2, strategy="ddp", max_epochs=1)  # launches the other process
    trainer.fit(settings.Module(), settings.batches())
    rank = trainer.global_rank
    found = {name: run(name, rank) for name in CASES}
    try:
        method = BrainDevelopment(0.9, growth=by_rank)
        settings.quiet(method, devices=2, strategy="ddp").fit(settings.Module(), settings.batches())
    except SparsityError as error:
        found["planted"] = str(error)
    (Path(folder) / f"{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
