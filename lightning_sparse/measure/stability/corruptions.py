"""Accuracy on corrupted images: noise, blur, contrast, brightness, small movements, a covered patch."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.errors import SparsityError, as_list, check_choice, check_choices, check_seed
from lightning_sparse.extras import need
from lightning_sparse.measure.checks import check_are_images, check_images
from lightning_sparse.measure.classifier import as_classifier, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row, share_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured

Corruption = Callable[[Tensor, int, torch.Generator], Tensor]
"""``corruption(images, severity, generator) -> images``: (n, C, H, W) in [0, 1], severity 1, 2 or 3."""

SEVERITIES = (1, 2, 3)

_FUNCTIONAL = "torchvision.transforms.v2.functional"


@smaller_batches
def measure_corruptions(
    model: nn.Module,
    data: Data,
    *,
    corruptions: Sequence[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    batch_size: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure accuracy on images corrupted in the manner of MNIST-C and CIFAR-10-C, for pixels and images of any kind.

    After Mu & Gilmer 2019 (arXiv 1906.02337) and Hendrycks & Dietterich 2019 (arXiv 1903.12261). The strengths are our own,
    in units of [0, 1] pixels and shares of the image's (shorter) side, so that one table serves all sizes; the numbers
    are not comparable with those of the published data sets.

    ================== ==================================================================== ===== ===== =====
    corruption         strength                                                             1     2     3
    ================== ==================================================================== ===== ===== =====
    gaussian_noise     standard deviation of noise added to each value                      0.1   0.2   0.3
    salt_and_pepper    share of pixels that become black or white, by a coin                0.05  0.1   0.2
    blur               standard deviation of a Gaussian, share of the side                  0.03  0.06  0.09
    contrast           what is left of each value's distance from its channel's mean        0.6   0.4   0.2
    brightness         added to each value                                                  0.15  0.3   0.45
    rotation           degrees, to the left or right by a coin, black moves in              10    20    30
    translation        share of the side, along both axes, four directions, black moves in  0.04  0.08  0.12
    occlusion          side of a black square at a random place, share of the side          0.25  0.375 0.5
    ================== ==================================================================== ===== ===== =====

    Each image has its own coins, places and noise. They depend on ``seed``, the corruption and the number and shape of the
    images, not on the model, the device, the batch size or what else is measured. The three severities share them.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        corruptions: names from ``CORRUPTIONS``; None is all.
        severities: from 1, 2, 3.
        batch_size: images per forward pass.
        seed: of the corruptions' random numbers.
        progress: show a bar on stderr.

    Returns:
        For each corruption and severity a ``corruption_accuracy`` in [0, 1] with its Wilson interval, ``condition`` being
        ``"rotation 2"``; then ``corruption_mean_accuracy``, the mean over all of them, with a normal interval over images
        (each image's number is the share of conditions under which it is right). Array ``right`` (n, conditions), bool, in
        the order of the rows.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be, or if
            torchvision is missing.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        >>> images, labels = torch.rand(6, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_corruptions(model, (images, labels), corruptions=["rotation"], severities=[1, 3])
        >>> [record.chart for record in measured.records]
        ['corruption/accuracy/rotation 1', 'corruption/accuracy/rotation 3', 'corruption/mean_accuracy']
        >>> measured.arrays["right"].shape
        (6, 2)
    """
    seed = check_seed(seed)
    names = list(CORRUPTIONS) if corruptions is None else check_choices("corruptions", corruptions, CORRUPTIONS)
    strengths = _check_severities(severities)
    images, labels = images_and_labels(data)
    check_are_images(images, "corruptions")
    check_images(images, labels)
    classifier = as_classifier(model)
    targets, n = labels.cpu().long(), len(labels)
    conditions = [(name, severity) for name in names for severity in strengths]
    records, right = [], []
    with untouched(classifier, seed):
        pixels = images.detach().to("cpu", torch.float32, copy=True)
        for name, severity in tqdm(conditions, "corruptions", disable=not progress, leave=False):
            corrupted = corrupt(pixels, name, severity, seed=seed)
            hits = logits_of(classifier, corrupted, targets, batch_size=batch_size).argmax(dim=1) == targets
            right.append(hits.numpy())
            detail = f"top-1 under {name}, severity {severity} of 3, eval mode, float32, seed {seed}"
            found: dict[str, Any] = {"condition": f"{name} {severity}", "samples": n, "detail": detail}
            records.append(share_row("corruption_accuracy", int(hits.sum()), n, **found))
    table = np.stack(right, axis=1)
    detail = f"mean over {', '.join(names)} at severities {', '.join(map(str, strengths))} of 3, seed {seed}"
    records.append(mean_row("corruption_mean_accuracy", table.mean(axis=1), detail=detail))
    return Measured(records, {"right": table})


def corrupt(images: Tensor, name: str, severity: int, *, seed: int = 0) -> Tensor:
    """Corrupt images as :func:`measure_corruptions` does, to look at them or to build a data set.

    Args:
        images: (n, C, H, W), float32 in [0, 1], on the CPU.
        name: one of ``CORRUPTIONS``.
        severity: 1, 2 or 3.
        seed: of its random numbers.

    Returns:
        New images, like ``images`` and in [0, 1].

    Raises:
        SparsityError: if the name or the severity does not exist, or torchvision is missing.

    Example:
        >>> corrupt(torch.full((1, 1, 4, 4), 0.5), "occlusion", 3).sum().item()  # a square of 2 pixels is black
        6.0
    """
    seed = check_seed(seed)
    check_images(
        images, torch.zeros(len(images) if isinstance(images, Tensor) and images.dim() else 1, dtype=torch.long)
    )
    function, (severity,) = CORRUPTIONS[check_choice("name", name, CORRUPTIONS)], _check_severities([severity])
    generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {seed}".encode()))
    return function(images, severity, generator).clamp(0, 1)


def _gaussian_noise(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return images + (0.1, 0.2, 0.3)[severity - 1] * torch.randn(images.shape, generator=generator)


def _salt_and_pepper(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    share = (0.05, 0.1, 0.2)[severity - 1]
    n, _, height, width = images.shape
    # One number per pixel, for all channels: the lowest turn it black, the next as many white.
    drawn = torch.rand(n, 1, height, width, generator=generator)
    return images.masked_fill(drawn < share, 1.0).masked_fill(drawn < share / 2, 0.0)


def _blur(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    side = min(images.shape[-2:])
    sigma = (0.03, 0.06, 0.09)[severity - 1] * side
    # Three standard deviations either way, if the image is so wide: its border is reflected.
    reach = min(math.ceil(3 * sigma), side - 1)
    blurred: Tensor = need(_FUNCTIONAL).gaussian_blur(images, [2 * reach + 1] * 2, [sigma, sigma])
    return blurred


def _contrast(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    centre = images.mean(dim=(2, 3), keepdim=True)
    return centre + (0.6, 0.4, 0.2)[severity - 1] * (images - centre)


def _brightness(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return images + (0.15, 0.3, 0.45)[severity - 1]


def _rotation(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    angle = (10.0, 20.0, 30.0)[severity - 1]
    return _by_coin(images, generator, lambda part, sign: _moved(part, angle=sign * angle))


def _translation(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    way = (0.04, 0.08, 0.12)[severity - 1] * min(images.shape[-2:])
    across = _by_coin(images, generator, lambda part, sign: _moved(part, shift=(sign * way, 0.0)))
    return _by_coin(across, generator, lambda part, sign: _moved(part, shift=(0.0, sign * way)))


def _occlusion(images: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    side = max(1, round((0.25, 0.375, 0.5)[severity - 1] * min(height, width)))
    covered = []
    for length in (height, width):
        first = (torch.rand(n, 1, generator=generator) * (length - side + 1)).floor()
        places = torch.arange(length)
        covered.append((places >= first) & (places < first + side))
    return images.masked_fill((covered[0][:, :, None] & covered[1][:, None, :]).unsqueeze(1), 0.0)


def _by_coin(images: Tensor, generator: torch.Generator, change: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Change each image by ``change(images, sign)``, where a coin of its own decides the sign, -1 or 1."""
    heads = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(heads.view(-1, 1, 1, 1), change(images, 1), change(images, -1))


def _moved(images: Tensor, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Rotate by degrees and shift by (fractions of) pixels, bilinearly; black moves in."""
    functional = need(_FUNCTIONAL)
    bilinear = need("torchvision.transforms").InterpolationMode.BILINEAR
    moved: Tensor = functional.affine(
        images, angle=angle, translate=list(shift), scale=1.0, shear=[0.0, 0.0], interpolation=bilinear
    )
    return moved


def _check_severities(severities: Sequence[int]) -> list[int]:
    listed = as_list(severities)
    if not listed or not all(type(severity) is int and severity in SEVERITIES for severity in listed):
        raise SparsityError(f"severities={severities!r} are not from 1, 2, 3: write severities=[1, 2, 3]")
    return sorted(set(listed))


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": _gaussian_noise,
    "salt_and_pepper": _salt_and_pepper,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "rotation": _rotation,
    "translation": _translation,
    "occlusion": _occlusion,
}
"""All corruptions by name; call them through :func:`corrupt`, which seeds and clamps them."""
