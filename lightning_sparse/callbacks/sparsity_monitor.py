"""Log what the masks do and what the training costs."""

from __future__ import annotations

import warnings
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_sparse.anatomy.flops import TrainingFlops
from lightning_sparse.callbacks.sparse_training import SparseTraining
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.resumed_from import restoring
from lightning_sparse.engine.masks import sparsity_of
from lightning_sparse.engine.monitoring import Monitoring
from lightning_sparse.errors import SparsityError, check_flag


class SparsityMonitor(OneOfAKind):
    """Log what the masks do, which connections last, which units are cut off and what the training costs.

    It sends to the Trainer's loggers, at every mask update and at the first batch of an epoch:

    - ``sparsity`` (also a metric that ModelCheckpoint can monitor) and ``layer_sparsity/<parameter>``;
    - ``turnover``: share of the living replaced by that update;
    - ``ever_lived``: share of all connections that have lived at some time, the "explored" weights of Liu et al. 2021,
      in-time over-parameterisation (arXiv 2102.02887);
    - ``age/mean`` and ``age/median``: optimizer steps since the living were born, and ``survivors``: the share of them
      that have lived since the training began, without a break;
    - ``dead_units`` and ``layer_dead_units/<parameter>``: share of units that carry nothing, see
      :func:`~lightning_sparse.anatomy.dead_units.dead_units`. The first batch's autograd graph shows which layer feeds
      which: in plain chains of layers (inside residual branches too) whole paths count, elsewhere only missing incoming
      connections do. It warns by name, once each, of a layer that nothing flows through any more and of outputs that are the
      same for every input;
    - ``flops/dense``, ``flops/sparse``, ``flops/share``: theoretical FLOPs of this rank's batches so far, see
      :class:`~lightning_sparse.anatomy.flops.TrainingFlops`; once more when training ends. Shapes are read in the first
      batch, other batches count in proportion to their size; with ``torch.compile``, which hides its layers, these are
      left out.

    Without a sparsity callback it logs the share of the model's weights that are zero, and the dense FLOPs, once an epoch.

    It looks at the masks when a batch ends: of several updates within one, births are those of the last.

    Cost: a byte a sparsifiable weight (two beyond 126 updates with births, four beyond 32,766), in a checkpoint as few bits
    as can number those updates (two if there are none, seven for 100), some passes over the masks at each update, and two
    additions a batch.

    Args:
        per_layer: whether to log every parameter's sparsity and dead units too.

    Example:
        >>> from lightning_sparse import GradualPruning, SparsityMonitor
        >>> callbacks = [GradualPruning(0.9), SparsityMonitor()]
    """

    def __init__(self, per_layer: bool = True) -> None:
        super().__init__()
        self.per_layer = check_flag("per_layer", per_layer)
        self._monitoring = Monitoring()
        self._begun, self._step = False, 0

    @property
    def ever_lived(self) -> float:
        """Share of the sparsifiable connections that have lived at some time, in [0, 1]."""
        return self._monitoring.ever_lived

    @property
    def flops(self) -> TrainingFlops:
        """FLOPs of the training so far: ``monitor.flops.dense``, ``monitor.flops.sparse``."""
        return self._monitoring.flops

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget an earlier training, unless this one goes on with it on the same Trainer; a checkpoint is read later."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not (trainer.ckpt_path is None and trainer.global_step > 0):
            self._monitoring = Monitoring()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Release what an earlier fit has left."""
        self._monitoring.close()
        self._begun = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin only now, because the sparsity callback may come after this one."""
        if not self._begun:
            self._begun, self._step = True, trainer.global_step
            engines = {str(callback.state_key): callback.engine for callback in callbacks_of(trainer, SparseTraining)}
            self._monitoring.begin(pl_module, {key: engine for key, engine in engines.items() if engine is not None})

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Keep the loss, whose graph shows which layer feeds which."""
        self._monitoring.before_backward(loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record again."""
        self._monitoring.after_backward()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log if the masks have changed since the last batch, and at the first batch of an epoch in any case."""
        before, self._step = self._step, trainer.global_step
        news = self._monitoring.batch(batch, stepped=self._step != before)
        if news:
            for message in self._monitoring.update(pl_module):
                if trainer.is_global_zero:
                    warnings.warn(message, stacklevel=2)
        if news or batch_idx == 0:
            metrics = self._metrics(pl_module, sparse=bool(callbacks_of(trainer, SparseTraining)))
            if metrics:
                pl_module.log("sparsity", metrics["sparsity"], prog_bar=True, logger=False)
                _send(trainer, metrics)

    def _metrics(self, pl_module: LightningModule, sparse: bool) -> dict[str, float]:
        if sparse:
            return self._monitoring.metrics(per_layer=self.per_layer)
        try:
            return {"sparsity": sparsity_of(pl_module)} | self._monitoring.costs()
        except SparsityError:  # nothing here that could be sparse
            return {}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the cost of the whole training."""
        _send(trainer, self._monitoring.costs())

    def teardown(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Leave no hook behind."""
        self._monitoring.close()

    on_exception = teardown

    def state_dict(self) -> dict[str, Any]:
        """When each connection was born and what the training has cost, loadable with ``weights_only=True``."""
        return self._monitoring.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._monitoring.close()
        self._monitoring = Monitoring()
        with restoring("SparsityMonitor"):
            self._monitoring.load_state_dict(state_dict)


def _send(trainer: Trainer, metrics: dict[str, float]) -> None:
    for logger in trainer.loggers if metrics else []:
        logger.log_metrics(metrics, step=trainer.global_step)
