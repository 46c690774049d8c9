"""What tests of the monitor read."""

import csv

from lightning.pytorch.callbacks import ModelCheckpoint

import settings
from lightning_sparse import SparsityMonitor
from settings import SAFE


def logged(folder):
    with (folder / "curves" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("sparsity")]
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def resumed(make, path, make_trainer, loader, ckpt=None, **arguments):
    monitor, callback = SparsityMonitor(), make()
    keep = ModelCheckpoint(path, filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(callback, monitor, keep, enable_checkpointing=True, **arguments)
    trainer.fit(settings.Module(), loader, ckpt_path=ckpt, **SAFE)
    return monitor, trainer
