"""The inductive biases of a network as rows: locality, weight sharing, shifts, pre-activations and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import check_seed
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.biases.first_layer import FirstLayer, first_layer
from lightning_sparse.measure.biases.locality import locality, radius
from lightning_sparse.measure.biases.memory import memory, memory_length
from lightning_sparse.measure.biases.sharing import centred, sharing, sharing_by_chance
from lightning_sparse.measure.biases.translation import BORDER, STEP, translation_error
from lightning_sparse.measure.calibration import temperature_of
from lightning_sparse.measure.checks import check_are_images, check_images
from lightning_sparse.measure.classifier import as_classifier, batches, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

SHOWN = 16  # units whose filters are kept for a picture
MOST_IMAGES = 256  # whose graph over all steps a memory holds

_OF_FIRST_LAYER = (
    *("locality_mask", "locality_energy", "radius_mask", "radius_energy"),
    *("sharing", "sharing_excess", "kurtosis", "living_units"),
)


@smaller_batches
def measure_biases(
    model: nn.Module,
    data: Data,
    *,
    masks: Mapping[str, Tensor] | None = None,
    calibration: Data | None = None,
    batch_size: int = 256,
    seed: int = 0,
) -> Measured:
    """Measure which inductive biases a network has: what a convolution has by construction, and a sparse network may learn.

    The rules are in docs/biases.md; the functions of ``lightning_sparse/measure/biases/`` have one each.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: images and labels or a loader, as for :func:`~lightning_sparse.measure.measure_accuracy`.
        masks: by parameter name, True where a connection lives, such as ``callback.masks``; a weight without one is dense.
            None takes zeros as dead.
        calibration: images and labels to fit the temperature on, best neither measured nor trained on; None fits it on the
            measured ones.
        batch_size: images per forward pass.
        seed: of shuffled signs and random vectors.

    Returns:
        Records, each a number and not a verdict. Of the first layer, where it is fully connected to the pixels, else NaN with
        the reason in ``detail``: ``bias_locality_mask`` and ``bias_locality_energy`` (neighbours among the pairs of
        connections of a unit over the same if units were shuffled within each pixel, of the mask and of squared weights: 1 is
        chance), ``bias_radius_mask`` and ``bias_radius_energy`` (their root mean square distance over the same null),
        ``bias_sharing`` (best correlation with another unit's filter at any shift, in [0, 1]) and ``bias_sharing_excess``
        (less that of shuffled signs), ``bias_kurtosis`` (mean excess kurtosis over images of the units' pre-activations) and
        ``bias_living_units`` (those with a connection). Of any network: ``bias_translation_error`` (probability a pixel, a
        mean over images with its normal interval). Of a recurrent one, else NaN: ``bias_memory_length`` in steps, at least as
        long as the steps seen where ``detail`` says so. Arrays: ``translation_error`` (n,); ``first_layer``
        (up to 16, C, H, W), the filters of the units with most connections, zeros where they are dead; ``memory`` (steps,).

    Raises:
        SparsityError: if images, labels, masks or the model's outputs are not what they should be.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
        >>> patches = torch.zeros(4, 4, 4)
        >>> for unit, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
        ...     patches[unit, top : top + 2, left : left + 2] = 1
        >>> net[1].weight.data *= patches.flatten(1)
        >>> found = measure_biases(net, (torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long)))
        >>> found.records[0].metric, round(found.records[0].value, 3)
        ('bias_locality_mask', 2.857)
    """
    seed = check_seed(seed)
    images, labels = images_and_labels(data)
    check_are_images(images, "biases")
    check_images(images, labels)
    classifier = as_classifier(model)
    check_weight_masks(masks, dict(classifier.model.named_parameters()))
    generator = torch.Generator().manual_seed(seed)
    # Compiled modules run eagerly, or hooks would not see their layers.
    with untouched(classifier, seed), torch.compiler.set_stance("force_eager"):
        layer = first_layer(classifier, images, masks)
        sums: list[Tensor] = []
        handle = None
        if isinstance(layer, FirstLayer):
            handle = layer.module.register_forward_hook(lambda _, __, output: sums.append(output.detach().cpu()))
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        if handle is not None:
            handle.remove()
        temperature, source = temperature_of(classifier, logits, labels, calibration, batch_size)
        errors = translation_error(classifier, images, temperature, batch_size).numpy()
        (some,) = next(batches(MOST_IMAGES, device_of(classifier), images))
        reach = memory(classifier, some, generator)
    arrays: dict[str, NDArray[Any]] = {"translation_error": errors.astype(np.float32)}
    if isinstance(layer, FirstLayer):
        records = _of_first_layer(layer, torch.cat(sums), generator)
        counts = layer.living.flatten(1).sum(1)
        strongest = layer.filters.square().sum((1, 2, 3))
        order = np.lexsort((-strongest.numpy(), -counts.numpy()))[:SHOWN]  # of units with equally many, the strongest
        arrays["first_layer"] = layer.filters[order].numpy().astype(np.float32)
    else:
        records = [Record(f"bias_{name}", math.nan, 0, detail=layer) for name in _OF_FIRST_LAYER]
    what = (
        f"norm of d softmax(logits / T) / d shift, central differences of {STEP:g} pixels both ways, Fourier shifts within a "
        f"black border of {BORDER} pixels, eval mode; T = {temperature:.4g} fitted on {source}"
    )
    records += [mean_row("bias_translation_error", errors, detail=what), _of_memory(reach, len(some))]
    return Measured(records, arrays | ({} if reach is None else {"memory": reach.numpy()}))


def _of_first_layer(layer: FirstLayer, sums: Tensor, generator: torch.Generator) -> list[Record]:
    mask, energy = layer.living.double().sum(1), layer.filters.square().sum(1)  # over channels: a place is a pixel
    filters = centred(layer.filters, layer.living)
    found, chance = sharing(filters), sharing_by_chance(filters, generator)
    alive = layer.living.flatten(1).any(1)
    kurtosis, varied = _excess_kurtosis(sums.double()[:, alive])
    values = {
        "locality_mask": locality(mask),
        "locality_energy": locality(energy),
        "radius_mask": radius(mask),
        "radius_energy": radius(energy),
        "sharing": found,
        "sharing_excess": found - chance,
        "kurtosis": kurtosis,
        "living_units": float(alive.sum()),
    }
    place = f"first layer, {layer.name!r}; {int(alive.sum())} of {len(alive)} units live"
    null = f"{place}; over its expectation with units shuffled within each pixel"
    says = dict.fromkeys(values, place) | {
        "sharing": f"{place}; {len(filters)} filters compared, less their means, without constant ones",
        "sharing_excess": f"{place}; {len(filters)} filters compared; less {chance:.4g} of shuffled signs",
        "kurtosis": f"{place}; over images, then the mean of {varied} units that vary; 0 is Gaussian",
    }
    says |= dict.fromkeys([name for name in values if name.startswith(("locality", "radius"))], null)
    n = {"kurtosis": len(sums)}  # the others are of weights, and of no image
    return [Record(f"bias_{name}", value, n.get(name, 0), detail=says[name]) for name, value in values.items()]


def _excess_kurtosis(sums: Tensor) -> tuple[float, int]:
    """Mean over units of the excess kurtosis of their sums (n, units), and of how many: those that vary over images."""
    deviations = sums - sums.mean(0)
    variances = deviations.square().mean(0)
    varied = variances > 1e-12 * sums.square().mean(0)
    kurtosis = deviations.pow(4).mean(0)[varied] / variances[varied].square() - 3
    return float(kurtosis.mean()) if len(kurtosis) else math.nan, len(kurtosis)


def _of_memory(reach: Tensor | None, images: int) -> Record:
    if reach is None:
        return Record("bias_memory_length", math.nan, 0, detail="not applicable: no state is carried from step to step")
    length = memory_length(reach)
    seen = f"of {len(reach) - 1} steps back, gradient of the last state in earlier ones under 1/e of that in itself"
    if math.isinf(length):
        seen = f"at least; {seen}: never"
    return Record("bias_memory_length", min(length, float(len(reach))), images, detail=seen)
