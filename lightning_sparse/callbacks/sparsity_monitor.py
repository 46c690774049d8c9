"""Log what the masks do."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.masks import pack_bits, unpack_bits
from lightning_sparse.parameters import sparsifiable


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

    @property
    def ever_lived(self) -> float:
        """Share of the sparsifiable connections that have lived at some time, in [0, 1]."""
        total = sum(mask.numel() for mask in self._ever.values())
        return sum(int(mask.sum()) for mask in self._ever.values()) / total if total else 1.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log where training starts; the sparsity callbacks may stand after this one, so their birth is logged later."""
        self._seen = {}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the sparsity at once, and not only from the first update of the epoch on."""
        self._log(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log if the masks have changed since the last batch."""
        engines = _sparse(trainer)
        if any(len(callback.history) != self._seen.get(callback.state_key) for callback in engines):
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks = _sparse(trainer)
        if not callbacks:
            weights = sparsifiable(pl_module)
            zeros, total = sum(int((w == 0).sum()) for w in weights.values()), sum(w.numel() for w in weights.values())
            metrics = {"sparsity": zeros / total}
        else:
            total = sum(callback.masks.total for callback in callbacks)
            living = sum(callback.masks.living for callback in callbacks)
            replaced = 0
            metrics = {"sparsity": (total - living) / total}
            for callback in callbacks:
                self._seen[callback.state_key] = len(callback.history)
                for name, mask in callback.masks.items():
                    self._ever[name] = mask | self._ever.get(name, torch.zeros_like(mask)).to(mask.device)
                if callback.history:
                    replaced += callback.history[-1].replaced
                if self.per_layer:
                    shares = callback.masks.layer_sparsity().items()
                    metrics |= {f"sparsity/{name}": share for name, share in shares}
            metrics |= {"turnover": replaced / living, "ever_lived": self.ever_lived}
        pl_module.log("sparsity", metrics["sparsity"], prog_bar=True, logger=False)
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=trainer.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Which connections have ever lived, at one bit a weight."""
        return {"ever_lived": {name: pack_bits(mask) for name, mask in self._ever.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._ever = {name: unpack_bits(packed) for name, packed in state_dict["ever_lived"].items()}


def _sparse(trainer: Trainer) -> list[SparseTraining]:
    return [callback for callback in trainer.callbacks if isinstance(callback, SparseTraining)]  # type: ignore[attr-defined]
