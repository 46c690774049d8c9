"""How each method looks in a figure: colour, marker, dashes; and the axis of density."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import cycle
from math import log10
from typing import TYPE_CHECKING, Any

from lightning_sparse.drawing.style import MARKERS, PALETTE, inches, spaced
from lightning_sparse.tables.method_names import base, is_control, is_dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DENSE = "#000000"
CONTROLS = {
    "static": {"color": "#777777", "marker": "x", "linestyle": ":"},
    "small_dense": {"color": "#777777", "marker": "+", "linestyle": "-."},
}


def looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give every method except dense its colour, marker and line, for all figures of a sweep; controls are grey.

    Example:
        >>> looks(["dense", "gradual", "brain"])["gradual"]
        {'color': '#D55E00', 'marker': 's', 'linestyle': '-'}
    """
    given = sorted(set(methods))
    names = [name for name in given if not is_dense(name) and not is_control(name)]
    pairs = len(PALETTE)
    found: dict[str, dict[str, Any]] = {
        name: {"color": PALETTE[i % pairs], "marker": MARKERS[(i + i // pairs) % pairs], "linestyle": "-"}
        for i, name in enumerate(names)
    }
    return found | {name: CONTROLS[base(name)] for name in given if is_control(name)}


def dense_dashes(methods: Iterable[str]) -> dict[str, str]:
    """The line style of each sweep's dense networks; all are black."""
    return dict(zip(sorted({name for name in methods if is_dense(name)}), cycle(["--", ":", "-."]), strict=False))


def level_colors(levels: Iterable[float], *, dark: bool = False) -> dict[float, str]:
    """Colours for sparsities, by rank, so that 0.95 and 0.98 differ; sparser stands out more from the paper."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis" if dark else "viridis_r"]
    first, span = (
        (0.25, 0.75) if dark else (0.12, 0.8)
    )  # without the end of the map that is as dark or pale as the paper
    known = sorted(levels)
    return {level: to_hex(scale(first + span * i / max(1, len(known) - 1))) for i, level in enumerate(known)}


def density_axis(axes: Axes, sparsities: Iterable[float], *, by_bits: bool = False) -> None:
    """Make x the density on a log axis, sparser to the right; labels are density and, below it, sparsity, or bits alone."""
    levels, left, right = densities(sparsities)
    if not levels:
        axes.set_xticks([])
        return
    axes.set_xlim(left, right)  # before the scale, which finds no limits of its own at a single level
    axes.set_xscale("log")
    axes.set_xticks([], minor=True)
    axes.set_xticks(levels, labels=density_names(levels, 0.33 / inches(axes) * log10(left / right), by_bits=by_bits))


def densities(sparsities: Iterable[float]) -> tuple[list[float], float, float]:
    """The levels of a density axis, sparser to the right, and its ends; no levels if nothing is sparse.

    Example:
        >>> densities([0.5, 0.75, 0.75])
        ([0.5, 0.25], 0.625, 0.2)
    """
    levels = sorted({1 - s for s in sparsities if s < 1}, reverse=True)
    return (levels, levels[0] * 1.25, levels[-1] / 1.25) if levels else ([], 1.0, 0.1)


def density_names(levels: list[float], room: float, *, by_bits: bool = False) -> list[str]:
    r"""Labels for the levels of a density axis: density and sparsity, or nothing within ``room`` decades of another label.

    Example:
        >>> density_names([0.5, 0.25], room=0.1)
        ['50 %\n0.5', '25 %\n0.75']
    """
    if not levels:  # dense alone
        return []
    written = {levels[i] for i in spaced([-log10(level) for level in levels], room)}
    return [_density_name(d, by_bits) if d in written else "" for d in levels]


def _density_name(density: float, by_bits: bool) -> str:
    return f"{100 * density:.3g} %" if by_bits else f"{100 * density:.3g} %\n{1 - density:.4g}"
