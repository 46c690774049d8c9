"""Log what the masks do."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.errors import SparsityError
from lightning_sparse.masks import pack_bits, sparsity_of, unpack_bits


class SparsityMonitor(Callback):
    """Log sparsity, per-layer sparsity, turnover and the connections that have ever lived; show the sparsity while training.

    At every mask update it sends to the Trainer's loggers ``sparsity``, ``sparsity/<parameter>``, ``turnover`` (share of
    the living replaced) and ``ever_lived`` (share of all connections that have lived at some time: the "explored" weights
    of Liu et al. 2021, in-time over-parameterisation, arXiv 2102.02887). The sparsity is also a metric that ModelCheckpoint
    can monitor. Without a sparsity callback it counts the model's zeros once an epoch.

    Cost: one byte a sparsifiable weight, and one pass over them at each update.

    Args:
        per_layer: whether to log every parameter's sparsity too.

    Example:
        >>> from lightning_sparse import GradualPruning, SparsityMonitor
        >>> callbacks = [GradualPruning(0.9), SparsityMonitor()]
    """

    def __init__(self, per_layer: bool = True) -> None:
        super().__init__()
        self.per_layer = per_layer
        self._ever: dict[str, Tensor] = {}
        self._seen: dict[str, int] = {}
        self._resumed = False

    @property
    def ever_lived(self) -> float:
        """Share of the sparsifiable connections that have lived at some time, in [0, 1]."""
        total = sum(mask.numel() for mask in self._ever.values())
        return sum(int(mask.sum()) for mask in self._ever.values()) / total if total else 1.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget an earlier training, unless this one goes on with it."""
        self._seen = {}
        if not self._resumed:
            self._ever = {}
        self._resumed = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what lives before the first step."""
        self._remember(_sparse(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log if the masks have changed since the last batch; at the first batch of an epoch in any case."""
        callbacks = _sparse(trainer)
        changed = any(len(callback.history) != self._seen.get(callback.state_key) for callback in callbacks)
        if callbacks and (changed or batch_idx == 0):
            metrics = self._metrics(callbacks)
        elif not callbacks and batch_idx == 0:
            metrics = _zeros(pl_module)
        else:
            return
        if metrics:
            pl_module.log("sparsity", metrics["sparsity"], prog_bar=True, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=trainer.global_step)

    def _metrics(self, callbacks: list[SparseTraining]) -> dict[str, float]:
        total = sum(callback.masks.total for callback in callbacks)
        living = sum(callback.masks.living for callback in callbacks)
        metrics = {"sparsity": (total - living) / total}
        self._remember(callbacks)
        replaced = 0
        for callback in callbacks:
            new = callback.history[self._seen.get(callback.state_key, len(callback.history)) :]
            replaced += sum(update.replaced for update in new)
            self._seen[callback.state_key] = len(callback.history)
            if self.per_layer:
                metrics |= {f"sparsity/{name}": share for name, share in callback.masks.layer_sparsity().items()}
        return metrics | {"turnover": replaced / living, "ever_lived": self.ever_lived}

    def _remember(self, callbacks: list[SparseTraining]) -> None:
        for callback in callbacks:
            for name, mask in callback.masks.items():
                self._ever[name] = mask | self._ever.get(name, torch.zeros_like(mask)).to(mask.device)

    def state_dict(self) -> dict[str, Any]:
        """Which connections have ever lived, at one bit a weight."""
        return {"ever_lived": {name: pack_bits(mask) for name, mask in self._ever.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._ever = {name: unpack_bits(packed) for name, packed in state_dict["ever_lived"].items()}
        self._resumed = True


def _sparse(trainer: Trainer) -> list[SparseTraining]:
    return [callback for callback in trainer.callbacks if isinstance(callback, SparseTraining)]  # type: ignore[attr-defined]


def _zeros(model: LightningModule) -> dict[str, float]:
    try:
        return {"sparsity": sparsity_of(model)}
    except SparsityError:  # nothing here that could be sparse
        return {}
