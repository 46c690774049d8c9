"""How the table, the figures and the page print a quantity's name and its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from lightning_sparse.results.quantities import quantity
from lightning_sparse.tables.method_names import bits_text

NOTHING = "\N{EN DASH}"  # an empty cell


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


def of_samples(said: str, samples: str) -> str:
    """Say of texts what is said of images.

    Example:
        >>> of_samples("Share of images, over each image's pixels.", "texts")
        "Share of texts, over each text's pixels."
    """
    if samples == "images":
        return said
    return said.replace("images", samples).replace("image", "text" if samples == "texts" else "image or text")


def name_of(metric: str, attack: str = "", eps: float = float("nan"), attribution: str = "") -> str:
    """Name one quantity for a reader.

    Example:
        >>> name_of("robust_accuracy", "worst", 0.1)
        'robust accuracy, eps = 0.1'
        >>> name_of("gini", attribution="integrated_gradients")
        'Gini index, integrated gradients'
    """
    name = quantity(metric).name
    if attack:
        name += "" if attack == "worst" else f" ({attack})"
    if not isnan(eps):
        name += f", eps = {eps_text(eps)}"
    return f"{name}, {attribution.replace('_', ' ')}" if attribution else name


def number(metric: str, value: float, half: float = float("nan")) -> str:
    """Print a mean and the half width of its interval; shares become percent.

    Example:
        >>> number("clean_accuracy", 0.9712, 0.0104), number("gini", 0.6)
        ('97.1 ± 1.0', '0.600')
    """
    if isnan(value):
        return NOTHING
    unit = quantity(metric).unit
    if unit == "count":
        return _large(value)
    if unit == "points":
        shown = f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
        return shown if isnan(half) else f"{shown} ± {100 * half:.1f}"
    scale, digits = (100, 1) if unit == "%" else (1, 3)
    shown = f"{scale * value:.{digits}f}"
    return shown if isnan(half) else f"{shown} ± {scale * half:.{digits}f}"


def _large(value: float) -> str:
    """Print a count with three digits and a unit: 266 k, 1.07 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.3g}"


def sparsity_text(sparsity: float, compressed: bool = False) -> str:
    """Print a sparsity with all its digits; of a ``compressed`` network its bits in percent.

    Example:
        >>> sparsity_text(0.9), sparsity_text(0.79999245302), sparsity_text(float("nan"))
        ('0.9', '0.799992453', '–')
        >>> sparsity_text(0.9504, compressed=True)
        '4.96 %'
    """
    if isnan(sparsity):
        return NOTHING
    return bits_text(sparsity) if compressed else f"{sparsity:.9g}"


def seeds_text(counts: Iterable[int]) -> str:
    """Say over how many seeds the numbers are means.

    Example:
        >>> seeds_text([3, 3]), seeds_text([2, 3]), seeds_text([1])
        ('3 seeds', '2 to 3 seeds', 'one seed: no claim')
    """
    return "one seed: no claim" if max(counts, default=0) <= 1 else f"{range_text(counts)} seeds"


def range_text(values: Iterable[int]) -> str:
    """Print a count that should be one number but may differ between jobs.

    Example:
        >>> range_text([200, 200]), range_text([100, 200])
        ('200', '100 to 200')
    """
    low, high = min(values, default=0), max(values, default=0)
    return str(low) if low == high else f"{low} to {high}"
