"""Rows from the numbers of single images: means over all, or over those that several models classify correctly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.explanations.maps import attribution_row, check_keep
from lightning_sparse.measure.explanations.randomisation import LIMIT, verdict
from lightning_sparse.measure.explanations.sensitivity import RADIUS, SAMPLES
from lightning_sparse.results.records import Record

Arrays = Mapping[str, npt.NDArray[Any]]

DETAILS = {
    "gini": "true class's logit, channels summed, absolute",
    "insertion_deletion_gap": "insertion minus deletion AUC, zero baseline, true class, softmax at the model's temperature; "
    "0 is a random order",
    "max_sensitivity": f"largest relative L2 change of the absolute map under {SAMPLES} moves, uniform within {RADIUS:g} of "
    "each pixel",
    "convergence_delta": "mean absolute error of the attributions' sum, in logits; zero baseline, 50 steps",
    "localisation_rank": "of the K highest pixels, the share on the K true ones",
    "localisation_mass": "share of the absolute map on the true pixels",
    "localisation_chance": "share of the true pixels, which a random map comes to in rank and mass",
    "randomisation_similarity": "Spearman of absolute maps before and after each layer's weights are shuffled among its "
    f"living connections; passed below {LIMIT:g}",
    "randomisation_complexity_rise": "relative rise of the entropy of the map's histogram (100 bins) after each layer's "
    "weights are shuffled; above 0 where there was structure to lose",
}
"""What determines each metric's number, in words; the name of the mask is added to those of localisation."""
OF_TEXTS = {
    "gini": "true class's logit, a number for each word: the L2 norm of its gradient, of integrated gradients the absolute "
    "sum over its dimensions",
    "insertion_deletion_gap": "insertion minus deletion AUC, word by word, the unknown word for those removed, true class, "
    "softmax at the model's temperature; 0 is a random order",
    "max_sensitivity": f"largest relative L2 change of the map under {SAMPLES} moves of the words' vectors, uniform within "
    f"{RADIUS:g} of the size of a component (mean length / root of dimensions)",
    "convergence_delta": "mean absolute error of the attributions' sum, in logits; the unknown word as baseline, 50 steps",
}
"""The same where it is another for texts."""


def records_over(arrays: Arrays, keep: npt.NDArray[np.bool_] | None = None, models: int = 1) -> list[Record]:
    """Make the rows of :func:`measure_saliency` from its arrays, over some of the images.

    Args:
        arrays: of one model.
        keep: (n,), which images to use, from :func:`same_images`; None uses all.
        models: how many models classify these images correctly, for the detail.

    Returns:
        The rows, in the order of the arrays.

    Raises:
        SparsityError: if ``keep`` is not (n,) booleans.

    Example:
        >>> arrays = {"labels": np.array([0, 1, 1]), "gradient/gini": np.array([0.5, 0.7, np.nan])}
        >>> row, = records_over(arrays, np.array([True, False, True]), models=3)
        >>> row.value, row.n
        (0.5, 1)
        >>> row.detail.split("; ")[1:]
        ['images right for all 3 models: 2 of 3', 'undefined for 1 of 2, left out']
    """
    if not isinstance(arrays, Mapping) or "labels" not in arrays:
        raise SparsityError(f"arrays is {type(arrays).__name__} without labels: give the arrays of measure_saliency")
    n = len(arrays["labels"])
    check_keep(keep, n)
    check_count("models", models, write=1)
    details = DETAILS | OF_TEXTS if "images" in arrays and arrays["images"].dtype.kind in "iu" else DETAILS
    rows = []
    for name, values in arrays.items():
        attribution, slash, metric = name.partition("/")
        if not slash:
            continue
        chosen = values if keep is None else values[keep]
        base = next(known for known in sorted(DETAILS, key=len, reverse=True) if metric.startswith(known))
        detail = details[base] + metric[len(base) :].replace("_", "; true pixels: ", 1)
        if attribution == "input":
            detail += "; of the image itself, channels summed, for reference"
        if metric == "insertion_deletion_gap" and "temperature" in arrays:
            detail += f"; temperature {arrays['temperature'][0]:.4g}"
        if keep is not None:
            detail += f"; images right for all {models} models: {len(chosen)} of {n}"
        row = attribution_row(metric, chosen, attribution, detail)
        rows.append(replace(row, trust=verdict(row.value)) if metric == "randomisation_similarity" else row)
    return rows
