"""How every figure looks: fonts, colours, size, caption and files."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: two columns of a paper
# Okabe and Ito's palette, which colour-blind readers can tell apart, without black (dense) and yellow (faint on paper).
PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
MARKERS = ["o", "s", "^", "D", "v", "P"]  # a second cue, for print without colour

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
    "svg.fonttype": "path",  # the page must look the same without the font
    "svg.hashsalt": "lightning_sparse",  # the same records give the same file
}


@contextmanager
def style() -> Iterator[None]:
    """Draw and save with the report's settings instead of the user's ``matplotlibrc``, then restore the user's."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        settings: Any = matplotlib.rcParams  # typed, from matplotlib 3.11 on, by every key it may hold
        settings.update(STYLE)
        yield


def inches(axes: Axes) -> float:
    """Approximate width of a panel before the layout."""
    place = axes.get_subplotspec()
    return 0.85 * WIDTH / (place.get_gridspec().ncols if place else 1)


def spaced(places: list[float], room: float) -> list[int]:
    """Choose which of ascending places to label so that labels are ``room`` apart: the last one, and what fits before it.

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
    # Spare cells are at the end of the first row, for the legend, because the last row has the x axis.
    first = columns - (rows * columns - count)
    for spare in grid[first:columns]:
        spare.axis("off")
    return figure, grid[:first] + grid[columns:]


def lowest(grid: list[Axes]) -> list[Axes]:
    """The panels without a panel below them, which have the name of the x axis."""
    place = grid[0].get_subplotspec()
    return grid[-(place.get_gridspec().ncols if place else 1) :]


def legend(figure: Figure, grid: list[Axes], *, right: bool = False) -> None:
    """One legend for all panels: in a spare cell, else to their ``right`` or above them."""
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
    """Write the caption under the panels, and keep it as the figure's label, which becomes the page's alternative text."""
    lines = textwrap.wrap(text, int(18 * figure.get_size_inches()[0]))
    share = (0.14 * len(lines) + 0.1) / figure.get_size_inches()[1]
    figure.set_label(text)
    figure.set_layout_engine("constrained", rect=(0, share, 1, 1 - share))
    figure.text(0.01, 0.05 / figure.get_size_inches()[1], "\n".join(lines), fontsize=7, color="#333333", va="bottom")


def save(figure: Figure, stem: Path) -> None:
    """Write ``<stem>.png`` (150 dpi) and ``<stem>.svg``, each whole or not at all."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    _save(figure, Path(f"{stem}.png"), dpi=150)
    figure.set_layout_engine("none")  # a second layout would take half as long again and change nothing
    _save(figure, Path(f"{stem}.svg"), metadata={"Date": None})


def _save(figure: Figure, path: Path, **how: Any) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    figure.savefig(part, format=path.suffix[1:], **how)
    os.replace(part, path)
