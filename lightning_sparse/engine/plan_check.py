"""What can be foreseen of a plan when the length of the training is known: a target that comes too late, idle turnover."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from lightning_sparse.engine.masks import Masks
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.schedules import Curve


def foresee(recipe: Recipe, plan: Recipe, masks: Masks, total_steps: int, reached_by: str | None = None) -> str | None:
    """Say what a training will not do although it was asked for, and what to write, or return None.

    Args:
        recipe: what was asked for.
        plan: the same with its times in steps.
        masks: the masks before the first step.
        total_steps: how many optimizer steps the training will take.
        reached_by: the argument that says when the final sparsity is reached, if one does.

    Example:
        >>> from lightning_sparse import Curve
        >>> recipe = Recipe(Curve(0.0).then(500).then(500, 0.9))
        >>> foresee(recipe, recipe.resolve(76), Masks({}), 76)
        'sparsity 0.9 is planned for step 500, and this training has 76 steps: write 76 or less instead of 500'
    """
    late = _late(recipe, plan, total_steps, reached_by, "sparsity")
    if late is None and recipe.total_steps is None:  # otherwise a longer training is meant, in several fits
        late = _late(recipe, plan, total_steps, None, "turnover")
    idle = _idle(plan, _living(plan, masks), total_steps)
    at_once = None if late else _at_once(plan, total_steps)
    return "; ".join(said for said in (late, at_once, idle, _never_back(plan, total_steps)) if said) or None


def _late(recipe: Recipe, plan: Recipe, total: int, reached_by: str | None, what: str) -> str | None:
    curve: Curve = getattr(plan, what)
    step, final = curve.settled, curve.final
    if step <= total or curve(total) == final:
        return None
    said = f"{what} {final:g} is planned for step {step}, and this training has {total} steps"
    if recipe.total_steps and getattr(replace(recipe, total_steps=total).resolve(None), what).settled <= total:
        return f"{said}: write total_steps={total}, or leave total_steps out"
    if reached_by:
        return f"{said}: write {reached_by}={total if total > 1 else 1.0} or less"
    return f"{said}: write {total} or less instead of {step}"


def _at_once(plan: Recipe, total: int) -> str | None:
    """Say that a curve which moves jumps, because the time between two updates is longer than the training."""
    every = int(plan.every)
    for piece in plan.sparsity.pieces():
        if piece.moves and piece.end - piece.begin > 1 and every > total >= piece.end:
            return (
                f"sparsity goes from {piece.first:g} to {piece.last:g} in one jump at step {piece.end}: every={every} "
                f"is longer than the training of {total} steps, write every={max(1, (piece.end - piece.begin) // 10)}"
            )
    return None


def _never_back(plan: Recipe, total: int) -> str | None:
    """Say that weights are never taken back, because the step they were to be kept at comes after the last deaths."""
    to, last = int(plan.rewind.to) if plan.rewind else 0, min(plan.sparsity.settled, total)
    if plan.rewind is None or to < last or plan.sparsity.highest == 0.0 or plan.sparsity.settled == 0:
        return None
    return (
        f"no weight will be taken back, because rewind= says step {to}, and the last connections die at step {last}: write "
        f"rewind=Rewind(to={max(0, last // 10)}) for an earlier step"
    )


def _idle(plan: Recipe, living: Mapping[str, float], total: int) -> str | None:
    if plan.turnover.highest == 0.0 or plan.sparsity.highest == 0.0 or _replaces(plan, living, total):
        return None
    every = max(1, min(total, plan.turnover.end or total) // 10)
    while every > 1 and not _replaces(replace(plan, every=every), living, total):
        every //= 2
    said = f"no connection will be replaced in the {total} steps of this training"
    if _replaces(replace(plan, every=every), living, total):
        return f"{said}, because no update comes while the turnover is enough for one: write every={every}"
    return f"{said}: write a larger turnover, or earlier times for it"


def _replaces(plan: Recipe, living: Mapping[str, float], total: int) -> bool:
    """Whether turnover is enough to replace a connection in any layer at any update."""
    return any(
        round(plan.turnover_at(step) * count * (1.0 - plan.sparsity(step))) > 0
        for step in _turning(plan, total)
        if plan.sparsity(step) > 0.0
        for count in living.values()
    )


def _turning(plan: Recipe, total: int) -> Iterator[int]:
    """The first and last update of each stretch of the turnover: between them a stretch only rises, or only falls."""
    every, stretches = int(plan.every), [(piece.begin, piece.end) for piece in plan.turnover.pieces()]
    for begin, end in (*stretches, (plan.turnover.end, total + 1)):
        first = begin or every
        last = begin + (min(end - 1, total) - begin) // every * every
        if first <= last:
            yield from (first, last)


def _living(plan: Recipe, masks: Masks) -> dict[str, float]:
    """Units of each layer, at a sparsity of zero if the layers' shares are as at birth."""
    dense = 1.0 - plan.sparsity(0)
    return {name: masks.count(name) / plan.units.size(mask.shape) / dense for name, mask in masks.items()}
