"""How the report names a quantity, prints its numbers and explains it, in one place for table, figures and page."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

NOTHING = "\N{EN DASH}"  # an empty cell
SHARES = {"clean_accuracy", "robust_accuracy"}  # printed in percent, between 0 and 1

NAMES = {
    "clean_accuracy": "clean accuracy",
    "clean_cross_entropy": "clean cross-entropy",
    "gini": "Gini index",
    "insertion_deletion_gap": "insertion - deletion gap",
    "dense_agreement": "agreement with dense",
    "convergence_delta": "convergence delta",
}

EXPLAINED = {
    "clean_accuracy": "Share of the test images that are classified correctly as they are. Higher is better.",
    "robust_accuracy": "Share of the test images that are classified correctly as they are and under every attack that "
    "was run, each image judged by its worst attack. No pixel changes by more than eps, where the pixel range is 0 to "
    "1. It is an upper bound: an attack that was not run may do more harm. Higher is better.",
    "gini": "How concentrated an explanation is: 0 if all pixels matter alike, near 1 if a few pixels carry all of it. "
    "Concentrated is not the same as right.",
    "insertion_deletion_gap": "Whether the pixels an explanation ranks first are the ones the network uses: the area "
    "under the true class's probability when pixels are added to a black image, most important first, less the area "
    "when they are removed in that order. 0 is what a random order gives; higher is better.",
    "dense_agreement": "Rank correlation of an explanation with that of the dense network of the same seed, on the same "
    "image. 1 is the same order of pixels, 0 is unrelated.",
    "clean_cross_entropy": "Cross-entropy on the test images as they are. Lower is better.",
    "convergence_delta": "How far integrated gradients miss the sum they must add up to. Near 0 is well integrated.",
}


def eps_text(eps: float) -> str:
    """Print a perturbation size the way papers do.

    Example:
        >>> eps_text(8 / 255), eps_text(0.1)
        ('8/255', '0.1')
    """
    steps = eps * 255
    if round(eps, 3) != eps and abs(steps - round(steps)) < 1e-6:
        return f"{round(steps)}/255"
    return f"{eps:.4g}"


def name_of(metric: str, attack: str = "", eps: float = float("nan"), attribution: str = "") -> str:
    """Name one quantity for a reader.

    Example:
        >>> name_of("robust_accuracy", "worst", 0.1)
        'robust accuracy, eps = 0.1'
        >>> name_of("gini", attribution="integrated_gradients")
        'Gini index, integrated gradients'
    """
    name = NAMES.get(metric, metric.replace("_", " "))
    if attack:
        name += "" if attack == "worst" else f" ({attack})"
    if not isnan(eps):
        name += f", eps = {eps_text(eps)}"
    return f"{name}, {attribution.replace('_', ' ')}" if attribution else name


def number(metric: str, value: float, half: float = float("nan")) -> str:
    """Print a mean and the half width of its interval; a share becomes percent.

    Example:
        >>> number("clean_accuracy", 0.9712, 0.0104), number("gini", 0.6)
        ('97.1 ± 1.0', '0.600')
    """
    if isnan(value):
        return NOTHING
    scale, digits = (100, 1) if metric in SHARES else (1, 3)
    shown = f"{scale * value:.{digits}f}"
    return shown if isnan(half) else f"{shown} ± {scale * half:.{digits}f}"


def seeds_text(counts: Iterable[int]) -> str:
    """Say over how many seeds the numbers of a figure or table are means.

    Example:
        >>> seeds_text([3, 3]), seeds_text([2, 3]), seeds_text([1])
        ('3 seeds', '2 to 3 seeds', 'one seed: no claim')
    """
    low, high = min(counts, default=0), max(counts, default=0)
    if high <= 1:
        return "one seed: no claim"
    return f"{high} seeds" if low == high else f"{low} to {high} seeds"


def range_text(values: Iterable[int]) -> str:
    """Print a count that should be one number but may differ between jobs.

    Example:
        >>> range_text([200, 200]), range_text([100, 200])
        ('200', '100 to 200')
    """
    low, high = min(values, default=0), max(values, default=0)
    return str(low) if low == high else f"{low} to {high}"
