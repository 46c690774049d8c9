"""A heat map of what a network loses when one layer alone is pruned."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from lightning_sparse.drawing.style import WIDTH, style
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need
from lightning_sparse.measure.description.layer_sensitivity import TOGETHER, changes_by_layer
from lightning_sparse.results.records import Measured, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARKEST = 50.0  # points; more is as bad
DARK = 8.0  # points; where the numbers have to be white
MOST_NUMBERS = 95  # layers; with more, the cells are lower than their numbers


def plot_layer_sensitivity(measured: Measured, axes: Axes | None = None) -> Axes:
    """Draw the loss of accuracy by layer and sparsity, with all layers together in the lowest row.

    A cell is the accuracy less that of the unpruned network on the same images, in points of percent; it is bold where the
    95 % interval of the difference leaves out zero. The colours are spread so that small losses can be told apart, and end
    at 50 points.

    Args:
        measured: what :func:`~lightning_sparse.measure.measure_sensitivity_of_layers` returned.
        axes: where to draw; None makes a figure as high as its layers need, which ``plt.show()`` shows.

    Returns:
        The axes: sparsities to the right, layers from the first down.

    Raises:
        SparsityError: if ``measured`` is something else, or if matplotlib is missing.

    Example:
        >>> from matplotlib.figure import Figure
        >>> from lightning_sparse.results.records import Record
        >>> changes = {"fc1.weight 0.9": -0.004, "fc2.weight 0.9": -0.05, "all layers 0.9": -0.16}
        >>> rows = [Record("sensitivity_accuracy_change", change, 500, condition=name) for name, change in changes.items()]
        >>> axes = plot_layer_sensitivity(Measured(rows), Figure().subplots())
        >>> [text.get_text() for text in axes.texts]
        ['-0.4', '-5.0', '-16.0']
    """
    need("matplotlib")
    from matplotlib.colors import PowerNorm

    if not (axes is None or hasattr(axes, "set_ylabel")):
        raise SparsityError(f"axes={axes!r} is no matplotlib Axes: write axes=plt.subplots()[1], or axes=None")
    rows = changes_by_layer(measured)
    layers, sparsities = list(rows), sorted({sparsity for row in rows.values() for sparsity in row})
    with style() if axes is None else nullcontext():
        panel = _new_axes(len(layers)) if axes is None else axes
        losses = [[-100 * rows[y][x].value if x in rows[y] else float("nan") for x in sparsities] for y in layers]
        shades = panel.imshow(losses, cmap="Blues", norm=PowerNorm(0.4, 0, DARKEST, clip=True), aspect="auto")
        panel.grid(False)
        panel.tick_params(length=0)
        panel.set_xlabel("sparsity of the layer, %")
        panel.set_xticks(range(len(sparsities)), [f"{100 * sparsity:.6g}" for sparsity in sparsities])
        panel.set_yticks(range(len(layers)), [layer.removesuffix(".weight") for layer in layers])
        if layers[-1] == TOGETHER:
            panel.axhline(len(layers) - 1.5, color="white", linewidth=3)
        for y, layer in enumerate(layers if len(layers) <= MOST_NUMBERS else ()):
            for x, sparsity in enumerate(sparsities):
                if sparsity in rows[layer]:
                    _write(panel, x, y, rows[layer][sparsity])
        if axes is None:
            ticks = [0, 1, 5, 10, 20, 50]
            bar = panel.figure.colorbar(shades, ax=panel, label="points of accuracy lost", ticks=ticks, aspect=40)
            bar.outline.set_visible(False)
    return panel


def _write(panel: Axes, x: int, y: int, row: Record) -> None:
    points = 100 * row.value
    text = f"{points:+.1f}" if abs(points) >= 0.05 else "0"
    weight = "bold" if row.low > 0 or row.high < 0 else "normal"
    colour = "white" if points < -DARK else "#333333"
    panel.text(x, y, text, size=7, weight=weight, color=colour, ha="center", va="center")


def _new_axes(layers: int) -> Axes:
    from matplotlib import pyplot  # a figure that a notebook and plt.show() know of

    return pyplot.subplots(figsize=(WIDTH, min(1.0 + 0.2 * layers, 20.0)), layout="constrained")[1]
