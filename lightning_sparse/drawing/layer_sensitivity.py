"""A heat map of what a network loses when one layer alone is pruned."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from lightning_sparse.drawing.style import WIDTH, style
from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need
from lightning_sparse.results.layer_sensitivity import TOGETHER, changes_by_layer
from lightning_sparse.results.records import Measured, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DARKEST = 50.0  # points; more is as bad
POWER = 0.4  # of the shades, so that small losses can be told apart
TICKS = (0, 1, 5, 10, 20, 50)  # points, of the bar of shades
SHADES = "Blues"
BAR = "points of accuracy lost"
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
        panel.imshow(losses, cmap=SHADES, norm=PowerNorm(POWER, 0, DARKEST, clip=True), aspect="auto")
        panel.grid(False)
        panel.tick_params(length=0)
        panel.set_xlabel("sparsity of the layer, %")
        panel.set_xticks(range(len(sparsities)), [f"{100 * sparsity:.6g}" for sparsity in sparsities])
        panel.set_yticks(range(len(layers)), [short(layer) for layer in layers])
        if layers[-1] == TOGETHER:
            panel.axhline(len(layers) - 1.5, color="white", linewidth=3)
        for y, layer in enumerate(layers if len(layers) <= MOST_NUMBERS else ()):
            for x, sparsity in enumerate(sparsities):
                if sparsity in rows[layer]:
                    _write(panel, x, y, rows[layer][sparsity])
        if axes is None:
            bar_of_shades([panel])
    return panel


def cell(row: Record) -> tuple[str, bool]:
    """What a cell says, in points of percent, and whether in bold: the interval leaves out zero.

    Example:
        >>> cell(Record("sensitivity_accuracy_change", -0.016, 500, -0.02, -0.01)), cell(Record("", 0.0002, 500))
        (('-1.6', True), ('0', False))
    """
    points = 100 * row.value
    return f"{points:+.1f}" if abs(points) >= 0.05 else "0", row.low > 0 or row.high < 0


def short(layer: str) -> str:
    """A layer's name without what all of them have in common."""
    return layer.removesuffix(".weight")


def inches_of(layers: int) -> float:
    """How high a heat map of so many layers is."""
    return min(1.0 + 0.2 * layers, 20.0)


def bar_of_shades(panels: list[Axes]) -> None:
    """Draw what the shades mean, to the right of the heat maps, all of which have the same."""
    bar = panels[0].figure.colorbar(panels[0].images[0], ax=panels, label=BAR, ticks=list(TICKS), aspect=40)
    bar.outline.set_visible(False)


def _write(panel: Axes, x: int, y: int, row: Record) -> None:
    text, bold = cell(row)
    colour = "white" if 100 * row.value < -DARK else "#333333"
    panel.text(x, y, text, size=7, weight="bold" if bold else "normal", color=colour, ha="center", va="center")


def _new_axes(layers: int) -> Axes:
    from matplotlib import pyplot  # a figure that a notebook and plt.show() know of

    return pyplot.subplots(figsize=(WIDTH, inches_of(layers)), layout="constrained")[1]
