"""Train a network whose layers are products of smaller ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ReferenceType, ref

from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.private import spawns_its_ranks
from lightning_sparse.compress.factorised import factorise_layers
from lightning_sparse.compress.factors import Factors
from lightning_sparse.compress.steps.factorise import Factorise as Step
from lightning_sparse.errors import SparsityError, check_flag


class Factorise(OneOfAKind):
    """Replace layers by products of smaller ones before training begins, and train those.

    The layers are replaced in place, in ``setup``, before the optimizers are made; put this callback in front of a sparsity
    callback, which then prunes the factors. A checkpoint holds the factors, under names such as ``net.1.0.weight``: a Trainer
    with this callback loads it into the module as it was written.

    Args:
        rank: of every layer, or its full one where that is less. None takes ``share``.
        kind: ``"svd"``, ``"tucker"`` (Kim et al. 2016, arXiv 1511.06530), ``"cp"`` (Lebedev et al. 2015, arXiv 1412.6553) or
            ``"tensor_train"`` (Novikov et al. 2015, arXiv 1509.06569).
        share: of the weights that is left, in (0, 1). None, without a rank, is 0.5.
        fresh: draw factors at random, with the spread of each layer's weight, to train from the start; False decomposes the
            weights that the module has, to go on with a network that is trained.
        include: patterns of names of weights, such as ``"encoder.*"``; None takes all Linear and Conv layers.
        exclude: patterns to leave out.

    Attributes:
        factors: what became of the layers; None before.
        left_alone: why others were not replaced, by name.

    Raises:
        SparsityError: on arguments out of range; in ``setup``, if no layer would be smaller, or under a strategy that spawns
            processes, after which the module of this process would be as it was.

    Example:
        >>> from lightning_sparse import Factorise, GradualPruning
        >>> callbacks = [Factorise(share=0.3), GradualPruning(0.8)]
    """

    def __init__(
        self,
        rank: int | None = None,
        kind: str = "svd",
        *,
        share: float | None = None,
        fresh: bool = True,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._step = Step(rank, kind, 0.5 if rank is None and share is None else share)
        self.fresh = check_flag("fresh", fresh)
        self.include, self.exclude = check_patterns("include", include), check_patterns("exclude", exclude)
        self.factors: list[Factors] | None = None
        self.left_alone: dict[str, str] = {}
        self._done: ReferenceType[LightningModule] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the layers, once for a module."""
        super().setup(trainer, pl_module, stage)
        if self._done is not None and self._done() is pl_module:
            return
        if spawns_its_ranks(trainer):
            raise SparsityError(
                f"Factorise cannot replace layers under strategy={type(trainer.strategy).__name__}, whose processes train a "
                "copy of the module: write strategy='ddp', or devices=1"
            )
        step = self._step
        self.factors, self.left_alone = factorise_layers(
            pl_module,
            step.share,
            step.kind,
            rank=step.rank,
            include=self.include,
            exclude=self.exclude,
            fresh=self.fresh,
        )
        self._done = ref(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse optimizers that were made before, and would train layers that are no longer there."""
        trained = {
            id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]
        }
        names = [name for name, parameter in pl_module.named_parameters() if id(parameter) in trained]
        mine = {factors.name for factors in self.factors or ()}
        if trained and not any(name.startswith(tuple(f"{each}." for each in mine)) for name in names):
            raise SparsityError(
                "no optimizer trains the factors that Factorise has made: make the optimizer in configure_optimizers(), "
                "which is called after it, and not before"
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy knows no module."""
        return {**vars(self), "_done": None}
