"""Images to look at: those that pruning forgets, and those whose gradients varied most and least during training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_sparse.drawing.style import WIDTH, caption
from lightning_sparse.results.arrays import forgotten_file, load, read
from lightning_sparse.tables.method_names import base, level_words

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_sparse.tables.collect import Sweep

    Array = npt.NDArray[Any]

MOST = 24
OF_A_CLASS = 4
COLUMNS = 8
WRONG = "#B00020"


def forgotten(sweep: Sweep, method: str) -> Figure | None:
    """Draw the images that the sparsest networks of a method have forgotten; None if there are none."""
    job = next(job for job in sweep.started if job.method == method)
    file = forgotten_file(job.folder.parent, job.data, job.model, base(method))
    kept = read(file, "forgotten") if file.exists() else None
    if kept is None:
        return None
    sparse, dense = kept["networks"]
    level = level_words(float(kept["sparsity"]), job.compressed)
    title = f"{method}: what {level} forgets ({sparse} sparse networks, {dense} dense)"
    return gallery(kept["images"], kept["labels"], kept["dense"], kept["sparse"], title)


def variable(sweep: Sweep, method: str) -> Figure | None:
    """Draw the images whose gradients varied most and least in the first training of a method, if it was recorded."""
    jobs = sorted((job for job in sweep.started if job.method == method), key=lambda job: job.seed)
    kept = next((arrays for job in jobs if (arrays := load(job, "vog"))), None)
    if kept is None or not {"images", "labels"} <= kept.keys():
        return None
    return vog_gallery(kept["images"].astype(np.float32), kept["labels"], kept["vog_in_class"])


def gallery(images: Array, labels: Array, dense_pred: Array, sparse_pred: Array, title: str) -> Figure | None:
    """Draw images that dense and sparse networks put in different classes, in the order of their labels; None without any.

    At most 24: the first of each class, then the second of each, up to four of a class.

    Args:
        images: (n, C, H, W) in [0, 1], one channel or three.
        labels: (n,).
        dense_pred: (n,), the class that most dense networks give, -1 for a tie.
        sparse_pred: (n,), the same for the sparse networks.
        title: names the networks.

    Example:
        >>> images, labels = np.zeros((3, 1, 8, 8)), np.array([0, 1, 2])
        >>> figure = gallery(images, labels, labels, np.array([0, 2, -1]), "gradual, sparsity 0.98")
        >>> [axes.get_xlabel().splitlines() for axes in figure.axes if axes.images]
        [['label 1', 'dense 1', '✗ sparse 2']]
    """
    forgotten = np.flatnonzero((dense_pred >= 0) & (sparse_pred >= 0) & (dense_pred != sparse_pred))
    if not len(forgotten):
        return None
    chosen = _some_of_each_class(forgotten, labels)
    figure, grid = _grid(len(chosen), title)
    for axes, i in zip(grid, chosen, strict=True):
        show(axes, images[i])
        says = [("dense", dense_pred[i]), ("sparse", sparse_pred[i])]
        lines = [f"{'' if name == labels[i] else '✗ '}{who} {name}" for who, name in says]
        axes.set_xlabel("\n".join([f"label {labels[i]}", *lines]), fontsize=6.5)
        axes.xaxis.label.set_color("black" if sparse_pred[i] == labels[i] else WRONG)
    right = int((sparse_pred == labels)[forgotten].sum())
    caption(
        figure,
        f"{len(chosen)} of the {len(forgotten)} images (of {len(labels)}) that most sparse networks give another class than "
        f"most dense ones. ✗ is wrong; the text is red where the sparse networks are, and black where they are right "
        f"({right} of the {len(forgotten)}).",
    )
    return figure


def vog_gallery(images: Array, labels: Array, vog_normalised: Array) -> Figure:
    """Draw up to 16 images with the highest variance of gradients for their class, and below as many with the lowest.

    Args:
        images: (n, C, H, W) in [0, 1], one channel or three.
        labels: (n,).
        vog_normalised: (n,), from :func:`~lightning_sparse.measure.class_normalised`; NaN is left out.

    Example:
        >>> figure = vog_gallery(np.zeros((3, 1, 8, 8)), np.array([0, 0, 1]), np.array([-1.0, 1.0, np.nan]))
        >>> [axes.get_xlabel().splitlines() for axes in figure.axes if axes.images]
        [['class 0', '+1.0'], ['class 0', '-1.0']]
    """
    scored = np.flatnonzero(~np.isnan(vog_normalised))
    order = scored[np.argsort(-vog_normalised[scored], kind="stable")]
    each = min(2 * COLUMNS, len(order) // 2)
    above = COLUMNS * max(1, -(-each // COLUMNS))
    figure, cells = _grid(2 * above, "Variance of gradients for the class: highest above, lowest below")
    for half, chosen in ((cells[:above], order[:each]), (cells[above:], order[len(order) - each :])):
        for axes in half[each:]:
            axes.axis("off")
        for axes, i in zip(half, chosen, strict=False):
            show(axes, images[i])
            axes.set_xlabel(f"class {labels[i]}\n{vog_normalised[i]:+.1f}", fontsize=6.5)
    missing = f" {len(labels) - len(scored)} images without a score are left out." if len(scored) < len(labels) else ""
    caption(
        figure,
        f"Of {len(labels)} images. Under each: its class, and its variance of gradients over the training in standard "
        f"deviations from the mean of its class. High: the pixels that count for the class went on changing, "
        f"which Agarwal et al. 2022 take for a difficult image.{missing}",
    )
    return figure


def _some_of_each_class(places: Array, labels: Array) -> list[int]:
    """The first of each class, then the second of each, ..., up to the limits; sorted by class."""
    turns: dict[int, int] = {}
    ranked = []
    for place in places.tolist():
        turn = turns[labels[place]] = turns.get(labels[place], -1) + 1
        ranked.append((turn, int(labels[place]), place))
    kept = [entry for entry in sorted(ranked) if entry[0] < OF_A_CLASS][:MOST]
    return [place for _, _, place in sorted(kept, key=lambda entry: entry[1:])]


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.3 * rows + 0.8), layout="constrained")
    figure.suptitle(title, fontsize=9.5)
    grid = figure.subplots(rows, COLUMNS, squeeze=False).flatten().tolist()
    for spare in grid[count:]:
        spare.axis("off")
    return figure, grid[:count]


def show(axes: Axes, picture: Array | None, **scale: Any) -> None:
    """Show an image (C, H, W), or a map (H, W) with ``imshow``'s ``scale``, in a frame; None leaves the frame empty."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#bbbbbb")
    if picture is None:
        axes.set_box_aspect(1)
        return
    if picture.ndim == 3:
        picture = picture.astype(np.float32).transpose(1, 2, 0).squeeze()
    # No smoothing: it would draw detail that no network saw.
    axes.imshow(picture, interpolation="nearest", **{"cmap": "gray", "vmin": 0, "vmax": 1, **scale})
