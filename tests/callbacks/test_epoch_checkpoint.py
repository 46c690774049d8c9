"""A training resumed from an epoch's checkpoint equals the one that was never stopped, whatever else the module does."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional as F

from lightning_sparse import GradualPruning, RandomState
from lightning_sparse.callbacks import epoch_checkpoint
from lightning_sparse.callbacks.epoch_checkpoint import EndCheckpoint, EpochCheckpoint
from lightning_sparse.data.images import ImageData


class Busy(LightningModule):
    """Dropout, a buffer that changes at an epoch's end, and a learning rate that waits for a plateau."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)
        self.register_buffer("shift", torch.zeros(10))

    def forward(self, x):
        return self.layer(F.dropout(x.flatten(1), 0.2, self.training)) + self.shift

    def training_step(self, batch, _):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, _):
        self.log("val_accuracy", (self(batch[0]).argmax(1) == batch[1]).float().mean())

    def on_train_epoch_end(self):
        self.shift += self.layer.bias.detach()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="min", factor=0.5, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": "val_accuracy"}}


class Stop(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 2:
            raise RuntimeError("stopped")


def fit(folder, workers, *callbacks, start=None):
    torch.manual_seed(0)
    model = Busy()
    data = ImageData("digits", shape=(1, 8, 8), classes=10, mean=[0.3], std=[0.4], num_workers=workers, batch_size=256)
    keep = [RandomState(), EpochCheckpoint(folder / "training.ckpt"), EndCheckpoint(folder / "end.ckpt")]
    trainer = Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[GradualPruning(0.8), *callbacks, *keep],
    )
    trainer.fit(model, datamodule=data, ckpt_path=start)
    return torch.load(folder / "end.ckpt", weights_only=True)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("workers", [0, 1])
def test_it_goes_on_bit_for_bit(workers, tmp_path, monkeypatch):
    monkeypatch.setattr(epoch_checkpoint, "COSTS_AT_MOST", 1e9)  # every epoch
    whole = fit(tmp_path, workers)
    with pytest.raises(RuntimeError, match="stopped"):
        fit(tmp_path, workers, Stop())
    assert torch.load(tmp_path / "training.ckpt", weights_only=True)["epoch"] == 1
    again = fit(tmp_path, workers, start=tmp_path / "training.ckpt")
    assert all(torch.equal(whole["state_dict"][name], again["state_dict"][name]) for name in whole["state_dict"])
    rates = [content["optimizer_states"][0]["param_groups"][0]["lr"] for content in (whole, again)]
    assert rates[0] == rates[1] < 0.5


@pytest.mark.filterwarnings("ignore")
def test_where_saving_costs_more_than_a_twentieth_epochs_are_left_out(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(epoch_checkpoint, "save_whole", lambda trainer, path: saved.append(path.name))
    monkeypatch.setattr(epoch_checkpoint, "COSTS_AT_MOST", 1e-9)  # of nothing
    with pytest.raises(FileNotFoundError):  # nothing was saved at the end either
        fit(tmp_path, 0)
    assert saved == ["training.ckpt", "end.ckpt"]
