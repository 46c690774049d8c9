"""How every figure looks: fonts, the colour of each method, the density axis, the caption and the files."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from math import log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.names import CONTROL_NAMES, base, is_control, is_dense

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: two columns of a paper
DENSE = "#000000"
# Okabe and Ito's palette, which colour-blind readers can tell apart, without black (dense) and yellow (faint on paper).
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P"]  # a second cue, for print without colour

CONTROLS: dict[str, dict[str, Any]] = dict(
    zip(
        CONTROL_NAMES,
        (
            {"color": "#777777", "marker": "x", "linestyle": ":"},
            {"color": "#777777", "marker": "+", "linestyle": "-."},
        ),
        strict=True,
    )
)

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a method may be called anything, dollar signs included
    "svg.fonttype": "path",  # the page must look the same where the font is missing
    "svg.hashsalt": "lightning_sparse",  # the same records give the same file
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save with the report's settings instead of the user's ``matplotlibrc``, and restore those."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # typed, from matplotlib 3.11 on, by every key it may hold
        settings.update(STYLE)
        yield


def looks(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Give every method except dense its colour, marker and line, the same in every figure of a sweep; controls are grey.

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
    """How the line of each sweep's dense networks is broken; all are black."""
    return dict(zip(sorted({name for name in methods if is_dense(name)}), cycle(["--", ":", "-."]), strict=False))


def level_colors(levels: Iterable[float], *, dark: bool = False) -> dict[float, str]:
    """Colours for sparsities, by rank: 0.95 and 0.98 must be told apart. Sparser stands out more from the paper."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    # The end of the map that is as pale as the paper, or as dark, is left out.
    scale = colormaps["viridis" if dark else "viridis_r"]
    known = sorted(levels)
    places = [
        (0.25 if dark else 0.12) + (0.75 if dark else 0.8) * i / max(1, len(known) - 1) for i in range(len(known))
    ]
    return {level: to_hex(scale(place)) for level, place in zip(known, places, strict=True)}


def density_axis(axes: Axes, sparsities: Iterable[float]) -> None:
    """Make x the density on a log axis, sparser to the right; labels are density and, below it, sparsity."""
    levels, left, right = densities(sparsities)
    if not levels:
        axes.set_xticks([])
        return
    axes.set_xlim(left, right)  # before the scale, which would look for limits of its own and find none at one level
    axes.set_xscale("log")
    axes.set_xticks([], minor=True)
    # Ticks at every level, text only where it does not touch other text.
    names = density_names(levels, 0.33 / inches(axes) * log10(left / right))
    axes.set_xticks(levels, labels=names)


def densities(sparsities: Iterable[float]) -> tuple[list[float], float, float]:
    """The levels of a density axis, sparser to the right, and its ends; no levels if nothing is sparse.

    Example:
        >>> densities([0.5, 0.75, 0.75])
        ([0.5, 0.25], 0.625, 0.2)
    """
    levels = sorted({1 - s for s in sparsities if s < 1}, reverse=True)
    return (levels, levels[0] * 1.25, levels[-1] / 1.25) if levels else ([], 1.0, 0.1)


def density_names(levels: list[float], room: float) -> list[str]:
    r"""What is written at the levels of a density axis: density and sparsity, or nothing within ``room`` decades of others.

    Example:
        >>> density_names([0.5, 0.25], room=0.1)
        ['50 %\n0.5', '25 %\n0.75']
    """
    if not levels:  # dense alone
        return []
    written = {levels[i] for i in spaced([-log10(level) for level in levels], room)}
    return [f"{100 * d:.3g} %\n{1 - d:.4g}" if d in written else "" for d in levels]


def inches(axes: Axes) -> float:
    """Width of a panel, roughly, before it is laid out."""
    place = axes.get_subplotspec()
    return 0.85 * WIDTH / (place.get_gridspec().ncols if place else 1)


def spaced(places: list[float], room: float) -> list[int]:
    """Choose which of ascending places to label so that labels lie ``room`` apart: the last one and what fits before.

    Example:
        >>> spaced([0.0, 1.0, 1.1, 5.0], room=0.5)
        [0, 1, 3]
    """
    kept: list[int] = []
    for i, place in enumerate(places[:-1]):
        if places[-1] - place >= room and (not kept or place - places[kept[-1]] >= room):
            kept.append(i)
    return [*kept, len(places) - 1]


def panels(count: int, height: float = 2.25, *, same_y: bool = True) -> tuple[Figure, list[Axes]]:
    """Start a figure of small multiples that share their axes, at most three in a row."""
    from matplotlib.figure import Figure

    columns = 2 if count in (1, 2, 4) else 3
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, height * rows + 1.0), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=same_y, squeeze=False).flatten().tolist()
    # Cells to spare are left at the end of the first row, where the legend finds room; the last row carries the x axis.
    first = columns - (rows * columns - count)
    for spare in grid[first:columns]:
        spare.axis("off")
    return figure, grid[:first] + grid[columns:]


def lowest(grid: list[Axes]) -> list[Axes]:
    """The panels that have no panel below them, and so carry the name of the axis."""
    place = grid[0].get_subplotspec()
    return grid[-(place.get_gridspec().ncols if place else 1) :]


def legend(figure: Figure, grid: list[Axes], *, right: bool = False) -> None:
    """Explain every mark once for all panels: in a spare cell, else above them, or to their right if there are many."""
    entries: dict[str, Any] = {}
    for axes in grid:
        handles, labels = axes.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    spare = [axes for axes in figure.axes if axes not in grid]
    if spare:
        many = {"ncols": 2, "fontsize": 6.5} if len(entries) > 9 else {}
        spare[0].legend(entries.values(), entries.keys(), frameon=False, loc="center", **many)
    elif right:
        figure.legend(entries.values(), entries.keys(), frameon=False, loc="outside right center")
    elif entries:
        figure.legend(entries.values(), entries.keys(), frameon=False, loc="outside upper center", ncols=6)


def caption(figure: Figure, text: str) -> None:
    """Write the caption under the panels; it is kept as the figure's label, for readers who cannot see it."""
    lines = textwrap.wrap(text, int(18 * figure.get_size_inches()[0]))
    share = (0.14 * len(lines) + 0.1) / figure.get_size_inches()[1]
    figure.set_label(text)
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    figure.text(0.01, 0.05 / figure.get_size_inches()[1], "\n".join(lines), fontsize=7, color="#333333", va="bottom")


def save(figure: Figure, stem: Path) -> None:
    """Write ``<stem>.png`` (150 dpi) and ``<stem>.svg``, each whole or not at all."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _save(figure, Path(f"{stem}.png"), dpi=150)
    figure.set_layout_engine("none")  # it is laid out: a second time takes half as long again and changes nothing
    _save(figure, Path(f"{stem}.svg"), metadata={"Date": None})


def _save(figure: Figure, path: Path, **how: Any) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    figure.savefig(part, format=path.suffix[1:], **how)
    os.replace(part, path)
