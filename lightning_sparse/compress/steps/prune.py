"""Sparsification: connections die, and the rest is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.optim import Optimizer

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.compress.training import Training
from lightning_sparse.engine.attach import attach
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.schedules import Curve, cubic
from lightning_sparse.engine.update import allocate
from lightning_sparse.errors import SparsityError, check_share


@dataclass(frozen=True)
class Prune(Step):
    """Prune the weights of Linear and Conv layers; what lives is kept in 16 bits, unless a later step says it in fewer.

    Args:
        sparsity: share of the connections that die, in [0, 1). None is found by ``bits=``.
        method: a recipe or a sparsity callback that trains to a sparsity of its own, such as ``RigL(0.95)``; ``sparsity`` is
            then left out. None prunes by magnitude, gradually in the first half of the fine-tuning (Zhu & Gupta 2017, arXiv
            1710.01878), at once without one.
        allocation: how the living connections are shared between layers, ``"global"``, ``"uniform"`` or ``"erk"``.

    Example:
        >>> str(Prune(0.95))
        "Prune(sparsity=0.95, method=None, allocation='global')"
    """

    sparsity: float | None = None
    method: Any = None
    allocation: str = "global"

    place: ClassVar[int] = 2
    knob: ClassVar[str] = "sparsity"

    def __post_init__(self) -> None:
        if self.sparsity is not None:
            check_share("sparsity", self.sparsity, one_allowed=False)
        Recipe(Curve(0.5), allocation=self.allocation)  # refuses what is none
        if self.method is not None and self.sparsity is not None:
            raise SparsityError(
                f"sparsity={self.sparsity} and method={type(self.method).__name__}, which has a sparsity of its own: write "
                "Prune(method=...) alone"
            )
        if self.method is not None and not isinstance(getattr(self.method, "recipe", self.method), Recipe):
            raise SparsityError(
                f"method={self.method!r} is not a recipe: give a Recipe(...) or a callback such as GradualPruning(0.9)"
            )

    @property
    def free(self) -> bool:
        """Whether the sparsity is to be found."""
        return self.sparsity is None and self.method is None

    def settings(self, draft: Draft) -> Sequence[Any] | tuple[float, float]:
        """From one living connection a layer to all."""
        sizes = [weight.numel() for weight in draft.weights().values()]
        return (1 - len(sizes) / sum(sizes), 0.0)

    def apply(self, draft: Draft) -> None:
        """Let the smallest weights die."""
        if self.method is not None:
            raise SparsityError("Prune(method=...) has to be trained: write fine_tune=2, or Prune(0.95)")
        assert self.sparsity is not None
        weights = draft.weights()
        draft.alive = dict(allocate(weights, self.sparsity, self.allocation))
        for name, alive in draft.alive.items():
            weights[name].data.mul_(alive)

    def train(self, draft: Draft, training: Training) -> None:
        """Prune gradually, by the engine that the callbacks have."""
        if not training.epochs:
            self.apply(draft)
            return
        recipe = self.method or Recipe(cubic(self.sparsity, end=0.5), allocation=self.allocation)  # type: ignore[arg-type]
        engines: list[Engine] = []

        def hold(optimizer: Optimizer, steps: int) -> Engine:
            engines.append(attach(optimizer, draft.model, recipe, total_steps=steps))
            return engines[0]

        training.run(draft, what="Prune", hold=hold)
        draft.alive = dict(engines[0].masks)
