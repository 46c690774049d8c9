"""Pictures of adversarial examples and saliency maps, from the arrays that measurements store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightning_sparse.results.arrays import Arrays, load
from lightning_sparse.results.jobs import Job

if TYPE_CHECKING:
    import wandb

Array = NDArray[Any]
Picture = tuple[NDArray[np.uint8], str]

MOST = 6  # images of a job, of different classes
SIDE = 96  # least size in pixels: a browser would smooth 8 x 8 digits
VIRIDIS = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]])


def chosen(job: Job, kind: str) -> Arrays:
    """Read the arrays that ``"transfer"`` or ``"saliency"`` stored of the first image of each class, six classes at most.

    Their first axis is the images. Empty if there is no file, or only a torn one, and of texts, which are no pictures.
    """
    found = load(job, kind)
    if not found or "words" in found:
        return {}
    rows = np.sort(np.unique(found["labels"], return_index=True)[1])[:MOST]
    return {name: array if array.ndim == 0 else array[rows] for name, array in found.items()}


def adversarial_pictures(saved: Arrays) -> list[Picture]:
    """The image, the adversarial one, and their difference: grey for 0, scaled to its largest absolute value."""
    pictures = []
    for i, label in enumerate(saved["labels"]):
        image, adversarial = saved["images"][i].astype(float), saved["adversarial"][i].astype(float)
        difference = adversarial - image
        difference = 0.5 + difference / (2 * np.abs(difference).max() or 1.0)
        says = f"class {label}"
        if "prediction" in saved:
            says += f": {saved['prediction'][i]}, attacked {saved['adversarial_prediction'][i]}"
        pictures.append((_strip([_colours(picture) for picture in (image, adversarial, difference)]), says))
    return pictures


def map_pictures(saved: Arrays, attribution: str, tops: Sequence[float] | None = None) -> list[Picture]:
    """Each image and its map of an attribution.

    The brightest colour stands for the value in ``tops`` (n,), which several networks may share, or for a map's largest one.
    """
    pictures = []
    for i, label in enumerate(saved["labels"]):
        heat = saved[attribution][i].astype(float)
        top = (heat.max() if tops is None else tops[i]) or 1.0
        at = np.clip(heat / top, 0, 1) * (len(VIRIDIS) - 1)
        colours = np.stack([np.interp(at, range(len(VIRIDIS)), channel) for channel in VIRIDIS.T], axis=-1) / 255
        says = f"class {label}: {saved['prediction'][i]}, {100 * saved['confidence'][i]:.0f} %"
        pictures.append((_strip([_colours(saved["images"][i].astype(float)), colours]), says))
    return pictures


def images(pictures: Iterable[Picture]) -> list[wandb.Image]:
    """As W&B's images."""
    import wandb

    return [wandb.Image(pixels, caption=says) for pixels, says in pictures]


def _colours(image: Array) -> Array:
    """(C, H, W) to (H, W, 3)."""
    image = image if len(image) in (1, 3) else image.mean(axis=0, keepdims=True)
    return np.broadcast_to(image.transpose(1, 2, 0), (*image.shape[1:], 3))


def _strip(parts: list[Array]) -> NDArray[np.uint8]:
    """Enlarge them by a whole factor, and put them side by side with a white gap."""
    times = -(-SIDE // min(parts[0].shape[:2]))
    large = [part.repeat(times, axis=0).repeat(times, axis=1) for part in parts]
    gap = np.ones((len(large[0]), max(2, SIDE // 16), 3))
    spaced = [piece for part in large for piece in (part, gap)][:-1]
    strip: NDArray[np.uint8] = (np.clip(np.concatenate(spaced, axis=1), 0, 1) * 255).round().astype(np.uint8)
    return strip
