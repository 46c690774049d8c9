"""What a training that has ended says of a recipe that it did not carry out."""

from __future__ import annotations

import warnings

from lightning_sparse.engine.engine import Engine


def warn_if_unfinished(engine: Engine, *, as_planned: bool) -> None:
    """Warn if too few steps (``as_planned``: no early stop, no trial run) or an early stop kept it from its recipe."""
    plan, clock, masks = engine.plan, engine.clock, engine.masks
    replaced = any(update.replaced for update in engine.history)
    asked_for = min(plan.turnover.highest, plan.sparsity.highest) > 0.0
    if as_planned and 0 < clock < int(plan.every) and asked_for and not replaced:
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
