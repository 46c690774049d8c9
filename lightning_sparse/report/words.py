"""How the report names a quantity, prints its numbers and explains it, in one place for table, figures and page."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

NOTHING = "\N{EN DASH}"  # an empty cell
# Printed in percent, between 0 and 1.
SHARES = {"clean_accuracy", "robust_accuracy", "corruption_mean_accuracy", "shift_consistency", "forgotten_share"}
POINTS = {"difference_clean_accuracy", "difference_robust_accuracy"}  # printed in points of percent, with a sign

NAMES = {
    "clean_accuracy": "clean accuracy",
    "clean_cross_entropy": "clean cross-entropy",
    "gini": "Gini index",
    "insertion_deletion_gap": "insertion - deletion gap",
    "dense_agreement": "agreement with dense",
    "convergence_delta": "convergence delta",
    "max_sensitivity": "max-sensitivity",
    "dense_agreement_top10": "agreement with dense, top 10 %",
    "robust_curve_area": "area under robust accuracy",
    "robust_eps_half": "eps that halves accuracy",
    "corruption_mean_accuracy": "accuracy, corrupted",
    "shift_consistency": "consistency under shifts",
    "curvature_jacobian_norm": "input Jacobian",
    "curvature_jacobian_norm_calibrated": "input Jacobian, calibrated",
    "curvature_hessian_eigenvalue": "top Hessian eigenvalue",
    "difference_clean_accuracy": "clean accuracy less dense, points",
    "difference_robust_accuracy": "robust accuracy less dense, points",
    "forgotten_share": "forgotten images",
    "vog_forgotten_overlap": "forgotten among the most variable",
    "cost_bits": "bits, all",
    "cost_bits_mask": "bits, mask",
    "cost_bits_values": "bits, values",
    "cost_bits_other": "bits, other parameters",
    "cost_bits_labels": "bits, labels given the model",
    "cost_value_bits": "bits a value",
    "cost_bytes_dense": "bytes, dense",
    "cost_bytes_bitmap": "bytes, bitmap",
    "cost_bytes_csr": "bytes, CSR",
    "cost_bytes_entropy": "bytes, entropy-coded",
    "cost_bytes_torch_csr": "bytes, torch's CSR",
    "cost_parameters": "parameters",
    "cost_living": "parameters, living",
    "cost_flops_dense": "FLOPs, dense",
    "cost_flops": "FLOPs, living",
    "cost_peak_memory_inference": "peak bytes, inference",
    "cost_peak_memory_training": "peak bytes, training",
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
    "max_sensitivity": "The largest relative change of an explanation under ten moves of every pixel by at most 0.02. Lower "
    "is steadier; a constant map is steady too.",
    "randomisation_similarity": "Rank correlation of an explanation with itself after the network's weights were shuffled. "
    "Below 0.5 it passes; above, it shows the image more than what was learned.",
    "robust_curve_area": "Mean robust accuracy from eps 0 to the largest eps. It depends on the largest eps.",
    "corruption_mean_accuracy": "Mean accuracy over eight corruptions at three severities. Falling while clean accuracy "
    "stays is hidden damage.",
    "shift_consistency": "How often two shifted copies of an image get the same class, right or wrong.",
    "curvature_jacobian_norm_calibrated": "How steep the calibrated logits are in the pixels, in the mean. Lower is flatter.",
    "curvature_hessian_eigenvalue": "The largest eigenvalue of the training loss's Hessian in the living weights. Lower is "
    "flatter.",
    "difference_robust_accuracy": "Robust accuracy less that of the dense network of the same seed, on the same images.",
    "forgotten_share": "Share of images that most sparse networks put in another class than most dense ones. Two groups of "
    "dense networks disagree too.",
    "vog_forgotten_overlap": "Of the tenth of images whose gradients varied most over the dense training, the share that is "
    "forgotten; to be held against the share of all.",
    "cost_bits": "Length of a code of the network and of the training labels given the network, in bits. It ranks networks "
    "of one architecture.",
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
    if metric.startswith("cost_"):
        return _large(value)
    if metric in POINTS:
        shown = f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")
        return shown if isnan(half) else f"{shown} ± {100 * half:.1f}"
    scale, digits = (100, 1) if metric in SHARES else (1, 3)
    shown = f"{scale * value:.{digits}f}"
    return shown if isnan(half) else f"{shown} ± {scale * half:.{digits}f}"


def _large(value: float) -> str:
    """Print a count with three digits and a unit: 266 k, 1.07 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{value:.3g}"


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
