"""A training that is killed again and again within its first epoch: `python within_epoch_script.py FOLDER`.

Each child trains from FOLDER/training.ckpt, if that is there, and is killed by `kill -9` three batches later. The last one
is left alone. One that was never killed ends in FOLDER/whole.ckpt, the other in FOLDER/end.ckpt. It prints where each began.
"""

import os
import signal
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ProgressBar
from torch import nn
from torch.nn import functional as F

from lightning_sparse import AdversarialTraining, BrainDevelopment, RandomState, SparsityMonitor
from lightning_sparse.callbacks import epoch_checkpoint
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.data.images import ImageData


class Net(LightningModule):
    """Dropout, BatchNorm, and a learning rate that moves with each step."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.body(x))

    def training_step(self, batch, _):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss, on_epoch=True)
        return loss

    def validation_step(self, batch, _):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


class Death(ProgressBar):
    """Takes the place of a progress bar, because what does anything in an epoch is not resumed within it."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        print(trainer.current_epoch, trainer.global_step, flush=True)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.after -= 1
        if self.after == 0:
            os.kill(os.getpid(), signal.SIGKILL)


Death.__module__ = "lightning_sparse.looks_on"  # as if it were ours


def fit(folder, end, *callbacks, workers=0, accumulate=1, module=Net):
    """Two epochs of 24 batches, from the checkpoint in ``folder`` if there is one."""
    seed_everything(0, verbose=False)
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4], num_workers=workers, batch_size=54)
    kept = folder / "training.ckpt"
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        accumulate_grad_batches=accumulate,
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[*callbacks, RandomState(), EpochCheckpoint(kept), EndCheckpoint(folder / end)],
    )
    trainer.fit(module(), datamodule=data, ckpt_path=kept if kept.exists() else None, weights_only=True)


def starve(folder, kills):
    epoch_checkpoint.LONG, epoch_checkpoint.COSTS_AT_MOST = 0.0, 1e9
    make = lambda: [BrainDevelopment(0.8, growth="momentum"), AdversarialTraining(0.05), SparsityMonitor()]  # noqa: E731
    fit(folder, "whole.ckpt", *make())
    (folder / "training.ckpt").unlink(missing_ok=True)
    for after in [3] * kills + [10**6]:
        child = os.fork()
        if child == 0:
            fit(folder, "end.ckpt", *make(), Death(after))
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    starve(Path(sys.argv[1]), int(sys.argv[2]))
