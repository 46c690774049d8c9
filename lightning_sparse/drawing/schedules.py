"""A schedule as a picture and as a table, before training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lightning_sparse.drawing.style import PALETTE, style
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.times import check_total
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.extras import need
from lightning_sparse.results.text_table import text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSITY, TURNOVER = PALETTE[0], PALETTE[4]  # dark and light without colour
BAND = "#ececec"  # every second phase
MOST_UPDATES = 50_000  # of more, every second, third ... is looked at: more than any screen can show
TOP = 1.2  # the names of phases are above 1
HEADS = ("step", "training %", "phase", "sparsity %", "density %", "turnover %")
SIDES = ">><>>>"  # numbers to the right


def plot_schedule(schedule: Any, total_steps: int | None = 1000, axes: Axes | None = None) -> Axes:
    """Draw a recipe: the density that the masks will have, the phases, and the share that each update replaces.

    The line is the density asked for, constant between two updates of the masks; a bar is the turnover at an update, as a
    share of the living; the name of a phase is above it if there is room. A curve alone has no updates and may stand for
    anything, so its own value is drawn.

    Args:
        schedule: a :class:`~lightning_sparse.Recipe`, a sparsity callback, or a :class:`~lightning_sparse.Curve`.
        total_steps: optimizer steps of the training; None ends the plot at the schedule's last step, if all its times are
            steps. A recipe's own ``total_steps`` has precedence.
        axes: where to draw; None makes a figure with a legend, which ``plt.show()`` shows.

    Returns:
        The axes: optimizer steps against shares in [0, 1].

    Raises:
        SparsityError: if the schedule needs ``total_steps`` or ends after them, or if matplotlib is missing.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from lightning_sparse.engine.schedules import cubic
        >>> recipe = Recipe(cubic(0.9, end=0.75), every=0.25)
        >>> line = plot_schedule(recipe, total_steps=8, axes=Figure().subplots()).lines[0]
        >>> [(int(step), round(float(density), 4)) for step, density in line.get_xydata()]
        [(0, 1.0), (2, 0.3667), (4, 0.1333), (6, 0.1), (8, 0.1)]
    """
    need("matplotlib")
    if not (axes is None or hasattr(axes, "set_ylabel")):
        raise SparsityError(f"axes={axes!r} is no matplotlib Axes: write axes=plt.subplots()[1], or axes=None")
    recipe = getattr(schedule, "recipe", schedule)
    alone = isinstance(recipe, Curve)
    if alone:  # as a recipe that looks at it a thousand times
        recipe = Recipe(recipe, every=max(1, (check_total("total_steps", total_steps) or 0) // 1000))
    plan, total, _ = _plan(recipe, total_steps)
    steps = sorted({0, *_updates(plan, total), total})
    values = [plan.sparsity(step) for step in steps]
    heights = values if alone else [1.0 - value for value in values]
    replaced = {step: share for step in steps if (share := plan.turnover_at(step)) > 0.0}
    with style() if axes is None else nullcontext():
        panel = _new_axes() if axes is None else axes
        panel.set(xlim=(0, total), ylim=(0, TOP), yticks=[0, 0.25, 0.5, 0.75, 1], xlabel="optimizer step")
        panel.set_ylabel("value" if alone else "density")
        panel.grid(False)
        _phases(panel, plan, total)
        panel.fill_between(steps, heights, step="post", color=DENSITY, alpha=0.2, linewidth=0)
        panel.plot(steps, heights, drawstyle="steps-post", color=DENSITY, label=panel.get_ylabel(), zorder=3)
        if replaced:
            label = "turnover at an update, as a share of the living"
            panel.vlines(list(replaced), 0, list(replaced.values()), color=TURNOVER, linewidth=1.4, label=label)
        if axes is None:
            panel.figure.legend(loc="outside upper left", ncols=2, frameon=False)
    return panel


def schedule_table(schedule: Any, total_steps: int | None = 1000, most: int | None = 20) -> str:
    """Write a recipe down: one line for each update of the masks.

    Args:
        schedule: a :class:`~lightning_sparse.Recipe` or a sparsity callback.
        total_steps: optimizer steps of the training, as in :func:`plot_schedule`.
        most: how many lines at most, spread evenly over the updates; None for all. The first update, the first of each
            phase and the last are always shown.

    Returns:
        Plain text in columns: the step after which the update comes (0 is before the first), the share of the training that
        has passed, the phase, the sparsity and the density after the update, and the share of the living that it replaces.
        Shares are in percent.

    Raises:
        SparsityError: if the schedule needs ``total_steps`` or ends after them, or if it is a curve, which has no updates.

    Example:
        >>> sparsity = Curve(0.0).stairs(0.8, 0.9, 2, name="prune")
        >>> turnover = Curve(0.0).then(0.8).then(1.0, 0.2)
        >>> print(schedule_table(Recipe(sparsity, turnover=turnover, every=0.05), total_steps=100))
        step  training %  phase    sparsity %  density %  turnover %
          40        40.0  prune 1       45.00      55.00        0.00
          80        80.0  prune 2       90.00      10.00       20.00
          85        85.0  prune 2       90.00      10.00       20.00
          90        90.0  prune 2       90.00      10.00       20.00
          95        95.0  prune 2       90.00      10.00       20.00
         100       100.0  prune 2       90.00      10.00       20.00
    """
    if most is not None:
        check_count("most", most, 0, write=20)
    plan, total, left = _plan(getattr(schedule, "recipe", schedule), total_steps)
    steps = list(_updates(plan, total))
    shown = _thinned([_phase(plan, step) for step in steps], most)
    rows = [HEADS, *(_row(plan, steps[i], total) for i in shown)]
    several = "" if left == 1 else f"about {left * len(steps)}"
    left_out = [f"({len(shown)} of {several or len(steps)} updates)"] if several or len(shown) < len(steps) else []
    return "\n".join([text_table(rows, SIDES), *left_out])


def _plan(recipe: Any, total_steps: int | None) -> tuple[Recipe, int, int]:
    """The recipe with every time in steps, the number of steps, and of how many updates in a row one is looked at."""
    if not isinstance(recipe, Recipe):
        raise SparsityError(
            f"schedule={recipe!r} is no recipe: give a Recipe(...) or a callback such as GradualPruning(0.9); for the "
            "updates of a Curve, which alone can only be drawn, write Recipe(curve)"
        )
    plan = recipe.resolve(check_total("total_steps", total_steps))
    end = max(plan.sparsity.end, plan.turnover.end)
    total = recipe.total_steps or total_steps or end
    if end > total:
        raise SparsityError(
            f"total_steps={total} is a training that stops before the schedule does, at step {end}: write "
            f"total_steps={end} or more"
        )
    if total == 0:
        raise SparsityError("total_steps=None, and the schedule has no end of its own: write total_steps=1000")
    every, left = int(plan.every), max(1, total // int(plan.every) // MOST_UPDATES)
    return (plan if left == 1 else replace(plan, every=left * every)), total, left


def _updates(plan: Recipe, total: int) -> Iterator[int]:
    step: int | None = 0 if plan.due(0) else plan.next_due(0)
    while step is not None and step <= total:
        yield step
        step = plan.next_due(step)


def _phase(plan: Recipe, step: int) -> str:
    """The phase of the sparsity, or of the turnover if the sparsity has no phases, for example because it is constant."""
    return plan.sparsity.phase(step) or plan.turnover.phase(step)


def _row(plan: Recipe, step: int, total: int) -> tuple[str, ...]:
    sparsity = plan.sparsity(step)
    percents = [f"{100 * share:.2f}" for share in (sparsity, 1.0 - sparsity, plan.turnover_at(step))]
    return (str(step), f"{100 * step / total:.1f}", _phase(plan, step), *percents)


def _thinned(phases: list[str], most: int | None) -> list[int]:
    """Which updates to show, given the phase of each."""
    count = len(phases)
    kept = {i for i in range(count) if i in (0, count - 1) or phases[i] != phases[i - 1]}
    others = [i for i in range(count) if i not in kept]
    room = len(others) if most is None else min(len(others), max(0, most - len(kept)))
    return sorted(kept | {others[(2 * k + 1) * len(others) // (2 * room)] for k in range(room)})


def _new_axes() -> Axes:
    from matplotlib import pyplot  # a figure that a notebook and plt.show() know of

    return pyplot.subplots(figsize=(5.4, 2.7), layout="constrained")[1]


def _phases(axes: Axes, plan: Recipe, total: int) -> None:
    """Shade every second phase, and write the names that fit."""
    from matplotlib.textpath import TextPath

    ends = (int(segment.end) for curve in (plan.sparsity, plan.turnover) for segment in curve.segments)
    begins = [0]
    for step in sorted({end for end in ends if 0 < end < total}):
        if _phase(plan, step) != _phase(plan, begins[-1]):
            begins.append(step)
    points = axes.get_window_extent().width * 72 / axes.figure.dpi / total  # a step's width, before the layout
    for i, (begin, end) in enumerate(zip(begins, [*begins[1:], total], strict=True)):
        name = _phase(plan, begin)
        if i % 2:
            axes.axvspan(begin, end, color=BAND, linewidth=0, zorder=0)
        if name and TextPath((0, 0), name, size=7).get_extents().width < points * (end - begin):
            axes.text((begin + end) / 2, 0.5 * (1 + TOP), name, size=7, ha="center", va="center", color="#333333")
