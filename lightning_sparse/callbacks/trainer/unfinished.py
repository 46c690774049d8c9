"""What is said when a training has ended short of its recipe."""

from __future__ import annotations

import warnings

from lightning_sparse.engine.engine import Engine


def warn_if_unfinished(engine: Engine, *, as_planned: bool) -> None:
    """Warn if nothing was replaced for want of steps, or if training stopped before the sparsity asked for was reached.

    Args:
        engine: of the training that has ended.
        as_planned: whether it was neither stopped early nor a trial run, so that too few steps were meant.
    """
    plan, clock, masks = engine.plan, engine.clock, engine.masks
    replaced = any(update.replaced for update in engine.history)
    if as_planned and 0 < clock < int(plan.every) and plan.turnover.highest > 0.0 and not replaced:
        warnings.warn(
            f"no connection was replaced: every={plan.every} steps, and the training had {clock}; write a smaller every",
            stacklevel=3,
        )
    asked = plan.sparsity.final
    if clock < plan.sparsity.end and round(asked * masks.total) != masks.total - masks.living:
        warnings.warn(
            f"training stopped at step {clock}, before step {plan.sparsity.end} where the sparsity asked for would have been "
            f"reached: asked {asked:g}, achieved {masks.sparsity:.4f}",
            stacklevel=3,
        )
