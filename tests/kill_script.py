"""A training script that can be killed and started again: `python kill_script.py FOLDER METHOD DIE_AT`.

It resumes from FOLDER/last.ckpt if that is there. At batch DIE_AT of the whole training it kills itself, as `kill -9`
would; with 0 it never does. At its end it saves FOLDER/end.pt: weights, masks, history and the validation scores.
"""

import os
import signal
import sys
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

import settings
from lightning_sparse import RandomState


class Dropout(settings.Module):
    def forward(self, x):
        return self.head(nn.functional.dropout(self.body(x), 0.2, self.training))


class Death(Callback):
    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.at > 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Scores(Callback):
    """Validation accuracies of the whole training, before and after a resume."""

    def __init__(self):
        self.seen = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.seen.append(float(trainer.callback_metrics["accuracy"]))

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state_dict):
        self.seen = state_dict["seen"]


def loaders(kind):
    if kind == "stateful":
        from torchdata.stateful_dataloader import StatefulDataLoader

        return StatefulDataLoader(settings.digits(), batch_size=64, shuffle=True), settings.batches()
    return settings.batches(shuffle=True), settings.batches()


def train(method, kind, *callbacks, start=None):
    """Four epochs, from a checkpoint if one is given; ``method`` None is a dense run."""
    torch.manual_seed(5)
    model, sparsity, scores = Dropout(), settings.METHODS[method](0.9) if method else None, Scores()
    mine = [sparsity] if sparsity else []
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = settings.quiet(*mine, RandomState(), scores, *callbacks, enable_checkpointing=saves)
    arguments = {"ckpt_path": start, **settings.SAFE} if start else {}
    trainer.fit(model, *loaders(kind), **arguments)
    return {
        "weights": model.state_dict(),
        "masks": dict(sparsity.masks) if sparsity else {},
        "history": [asdict(update) for update in sparsity.history] if sparsity else [],
        "scores": scores.seen,
    }


def main(folder, method, die_at):
    warnings.simplefilter("ignore")
    last = folder / "last.ckpt"
    keep = ModelCheckpoint(folder, save_last=True, save_top_k=0, every_n_epochs=1, save_on_train_epoch_end=True)
    torch.save(train(method, "plain", Death(die_at), keep, start=last if last.exists() else None), folder / "end.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
