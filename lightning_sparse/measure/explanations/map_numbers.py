"""The numbers of single images that the rows of saliency are means of. Each is (n,), NaN where undefined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.measure.explanations.faithfulness import insertion_deletion_gap
from lightning_sparse.measure.explanations.localisation import chance, mass_accuracy, rank_accuracy
from lightning_sparse.measure.explanations.maps import gini
from lightning_sparse.measure.explanations.randomisation import randomisation_check
from lightning_sparse.measure.explanations.sensitivity import max_sensitivity

Numbers = dict[str, npt.NDArray[np.float64]]

MEASURES = (
    "gini",
    "insertion_deletion_gap",
    "max_sensitivity",
    "convergence_delta",
    "localisation",
    "randomisation",
)
"""What can be measured of maps. The measures contradict each other by construction, and are never averaged into one."""


def numbers_of_maps(maps: Tensor, measures: Sequence[str], truth: Mapping[str, Tensor], seed: int) -> Numbers:
    """Measure maps (n, H, W) without their model; ``truth`` is masks (n, H, W) by name, ``seed`` orders equal values."""
    found: Numbers = {}
    if "gini" in measures:
        found["gini"] = gini(maps)
    if "localisation" in measures:
        for name, mask in truth.items():
            found[f"localisation_rank_{name}"] = rank_accuracy(maps, mask, seed=seed)
            found[f"localisation_mass_{name}"] = mass_accuracy(maps, mask)
    return found


def references(images: Tensor, measures: Sequence[str], truth: Mapping[str, Tensor], seed: int) -> dict[str, Numbers]:
    """Measure what maps compare with: ``"input"``, the absolute image as a map; with masks also ``"uniform"``, chance.

    Numbers of words are no map.
    """
    if are_tokens(images):
        return {}
    found = {"input": numbers_of_maps(images.detach().sum(dim=1).abs(), measures, truth, seed)}
    if "localisation" in measures and truth:
        found["uniform"] = {f"localisation_chance_{name}": chance(mask) for name, mask in truth.items()}
    return found


def numbers_of_model(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    method: str,
    maps: Tensor,
    deltas: Tensor,
    *,
    measures: Sequence[str],
    temperature: float,
    seed: int,
    layer: str | None = None,
) -> Numbers:
    """Measure maps together with the model that they explain.

    Args:
        classifier: pixels in [0, 1] to logits; it is left as it was.
        images: (n, C, H, W), floats in [0, 1]; or texts (n, length), integers.
        labels: (n,), integers in [0, classes).
        method: the one that made the maps.
        maps: (n, H, W), from :func:`~lightning_sparse.measure.attribute` with the same seed.
        deltas: (n,), from the same call.
        measures: names from :data:`MEASURES`.
        temperature: of the softmax for insertion and deletion.
        seed: of all random numbers.
        layer: of Grad-CAM.
    """
    found: Numbers = {}
    if "insertion_deletion_gap" in measures:
        found["insertion_deletion_gap"] = insertion_deletion_gap(
            classifier, images, labels, maps, temperature=temperature, seed=seed
        )
    if "max_sensitivity" in measures:
        found["max_sensitivity"] = max_sensitivity(classifier, images, labels, method, seed=seed, layer=layer)
    if "convergence_delta" in measures and not bool(deltas.isnan().all()):
        # A dead network's map of zeros sums to exactly the (zero) difference of its logits, whatever the steps.
        zero = ~(maps > 0).flatten(1).any(dim=1)
        found["convergence_delta"] = deltas.abs().double().masked_fill(zero, float("nan")).numpy()
    if "randomisation" in measures:
        found["randomisation_similarity"], found["randomisation_complexity_rise"] = randomisation_check(
            classifier, images, labels, maps, method, seed=seed, layer=layer
        )
    return found
