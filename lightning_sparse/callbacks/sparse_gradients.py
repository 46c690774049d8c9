"""Train with few entries of the gradient that comes back to each layer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.callbacks.trainer.same_arguments import SameArguments
from lightning_sparse.ephemeral.sparse_gradients import ThinnedGradients
from lightning_sparse.errors import SparsityError, check_count, check_share


class SparseGradients(SameArguments):
    """Keep the ``k`` largest entries of an example's gradient at a layer's output (meProp).

    Sun et al. 2017, arXiv 1706.06197. The gradients of the layer's weights and of all layers before are computed from these
    alone. The entries of an example compete: of a Linear layer those at one position of a sequence, of a convolution all
    channels and positions. Nothing runs faster by it here; it is for asking how little of a gradient is needed. Gradients of
    the inputs in eval mode, as an attack takes them, are whole.

    It goes with any sparsity callback. A score that reads gradients reads those that training has.

    Args:
        k: how many entries are kept, >= 1; a layer that has no more keeps all.
        density: in place of ``k``, the share of a layer's entries, in (0, 1]; at least one is kept.
        include: shell-style patterns of the names of weights, whose layers are meant; None takes the trained Linear and Conv
            layers.
        exclude: patterns of names whose layers keep their gradients.

    Raises:
        SparsityError: on arguments out of range, and unless one of ``k`` and ``density`` is given.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), SparseGradients(k=30)]
    """

    def __init__(
        self,
        k: int | None = None,
        *,
        density: float | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if (k is None) == (density is None):
            raise SparsityError(f"k={k!r} and density={density!r}: write one of them, such as k=30 or density=0.1")
        self.k = None if k is None else check_count("k", k, write=30)
        if density is not None and not check_share("density", density):
            raise SparsityError(f"density={density!r} keeps no gradient: write a share such as 0.1")
        self.density = None if density is None else float(density)
        self.include, self.exclude = check_patterns("include", include), check_patterns("exclude", exclude)
        self._gradients: ThinnedGradients | None = None

    def arguments(self) -> dict[str, Any]:
        """What decides which entries are kept."""
        return {"k": self.k, "density": self.density}

    @contextmanager
    def paused(self) -> Any:
        """A context in which gradients are whole."""
        gradients = self._gradients
        if gradients is None:
            yield
            return
        gradients.active = False
        try:
            yield
        finally:
            gradients.active = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the layers, before anything that is compiled has run and after the module has made them."""
        self._detach()
        found = sparsifiable(pl_module, self.include, self.exclude)
        mine = {id(parameter) for parameter in found.values()}
        layers = [
            layer for layer in pl_module.modules() if any(id(each) in mine for each in layer.parameters(recurse=False))
        ]
        self._gradients = ThinnedGradients(layers, self._count)

    def _count(self, entries: int) -> int:
        return self.k if self.k is not None else max(1, round((self.density or 1.0) * entries))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind."""
        self._detach()

    def _detach(self) -> None:
        if self._gradients is not None:
            self._gradients.detach()
        self._gradients = None

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no hooks."""
        return {**vars(self), "_gradients": None}
