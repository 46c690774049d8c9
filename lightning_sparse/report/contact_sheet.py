"""Saliency maps of the same images side by side: the input, the dense network, then sparser and sparser ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from lightning_sparse.drawing.style import caption
from lightning_sparse.results.jobs import arrays_file
from lightning_sparse.tables.method_names import dense_of, is_dense

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_sparse.tables.collect import Sweep

    Saved = dict[str, np.ndarray[Any, Any]]

ROWS = 5
NOT_A_MAP = {"images", "labels", "prediction", "confidence"}
WRONG = "#B00020"


def attributions(sweep: Sweep) -> list[str]:
    """Names of the attributions whose maps the sweep's jobs saved, the most careful first."""
    saved = next((maps for job in sweep.started.to_dict("records") if (maps := _load(sweep, job))), {})
    return sorted((name for name, array in saved.items() if name not in NOT_A_MAP and array.ndim == 3), reverse=True)


def contact_sheet(sweep: Sweep, method: str, attribution: str) -> Figure | None:
    """Draw the maps of one method, first seed.

    Rows are the first images, of different classes, that the dense network classifies correctly (the first of each
    class if there is no dense network). All maps of a row share one colour scale.

    Args:
        sweep: the sweep, over one data set and one model.
        method: a method of the sweep other than dense.
        attribution: one of :func:`attributions`.

    Returns:
        The figure, or None if no job of the method's first seed saved maps.
    """
    dense = dense_of(method, sweep.jobs)
    seed = sweep.started.loc[sweep.started["method"].isin([dense, method]), "seed"].min()
    jobs = sweep.jobs[(sweep.jobs["seed"] == seed) & sweep.jobs["method"].isin([dense, method])]
    jobs = jobs.assign(sparse=jobs["method"] != dense).sort_values(["sparse", "sparsity_asked"])
    columns = [(job, _load(sweep, job)) for job in jobs.to_dict("records")]
    saved = [maps for _, maps in columns if attribution in maps]
    if not saved:
        return None
    # Maps of other images (measured with other settings) have no place beside these.
    columns = [(job, maps if _same_images(maps, saved) else {}) for job, maps in columns]
    saved = [maps for _, maps in columns if attribution in maps]
    if not any(job["method"] == method and attribution in maps for job, maps in columns):
        return None
    rows = _choose(saved[0])
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.98 * (len(columns) + 1), 1.12 * len(rows) + 0.9), layout="constrained")
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.suptitle(f"{method}: {attribution.replace('_', ' ')}", fontsize=9.5)
    for i, image in enumerate(rows):
        top = max(float(maps[attribution][image].max()) for maps in saved) or 1.0
        scale = {"cmap": "viridis", "vmin": 0, "vmax": top}
        _show(grid[i, 0], saved[0]["images"][image].transpose(1, 2, 0), {"cmap": "gray", "vmin": 0, "vmax": 1})
        grid[i, 0].set_xlabel(f"class {saved[0]['labels'][image]}", fontsize=7)
        for axes, (job, maps) in zip(grid[i, 1:], columns, strict=True):
            if attribution not in maps:
                _show(axes, None, scale)
                axes.text(0.5, 0.5, job["status"], ha="center", va="center", transform=axes.transAxes, color=WRONG)
                continue
            _show(axes, maps[attribution][image], scale)
            right = maps["prediction"][image] == maps["labels"][image]
            says = f"{'' if right else '✗ '}{maps['prediction'][image]}, {100 * maps['confidence'][image]:.0f} %"
            axes.set_xlabel(says, fontsize=7, color="black" if right else WRONG)
    for axes, name in zip(grid[0], ["input", *[_heading(job) for job, _ in columns]], strict=True):
        axes.set_title(name, fontsize=8)
    caption(
        figure,
        f"{sweep.name}, seed {seed}. Brighter pixels matter more to the score of the true class; the maps of one row "
        "share one colour scale, from 0. Under each map: predicted class and its probability, ✗ and red where it is "
        "wrong.",
    )
    return figure


def _choose(maps: Saved) -> list[int]:
    """The first image of each class that the network has right, then the first of each class, up to five."""
    right = [i for i, label in enumerate(maps["labels"]) if maps["prediction"][i] == label]
    firsts: dict[int, int] = {}
    for i in [*right, *range(len(maps["labels"]))]:
        firsts.setdefault(int(maps["labels"][i]), i)
    return sorted(list(firsts.values())[:ROWS])


def _heading(job: dict[str, Any]) -> str:
    return "dense" if is_dense(job["method"]) else f"sparsity\n{job['sparsity_asked']:g}"


def _show(axes: Axes, picture: np.ndarray[Any, Any] | None, scale: dict[str, Any]) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bbbbbb")
    if picture is None:
        axes.set_box_aspect(1)
    else:
        # 8 x 8 digits are shown as the squares they are: smoothing would draw detail that no network saw.
        axes.imshow(picture.squeeze(), interpolation="nearest", **scale)


def _same_images(maps: Saved, saved: list[Saved]) -> bool:
    import numpy as np

    return "images" in maps and np.array_equal(maps["images"], saved[0]["images"])


def _load(sweep: Sweep, job: dict[Any, Any]) -> Saved:
    import numpy as np

    file = arrays_file(sweep.folder / job["folder"], job["keys"], "saliency")
    if file is None:
        return {}
    try:
        # Not there, or torn by a kill: an empty cell, and not the loss of the report.
        with file.open("rb") as opened, np.load(opened) as saved:  # numpy leaves a torn file open
            return {name: saved[name] for name in saved.files}
    except (
        OSError,
        ValueError,
        EOFError,
        BadZipFile,
    ):
        return {}
