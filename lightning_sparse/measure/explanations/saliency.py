"""Saliency of a trained classifier: how concentrated, faithful and stable its maps are, and where they point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.errors import SparsityError, as_list, check_choices, check_seed
from lightning_sparse.measure.calibration import temperature_of
from lightning_sparse.measure.checks import check_are_images
from lightning_sparse.measure.classifier import as_classifier, batches, logits_of
from lightning_sparse.measure.explanations.attributions import ATTRIBUTIONS, attribute, check_explainable
from lightning_sparse.measure.explanations.grad_cam_layer import map_layer
from lightning_sparse.measure.explanations.localisation import check_masks
from lightning_sparse.measure.explanations.map_numbers import MEASURES, numbers_of_maps, numbers_of_model, references
from lightning_sparse.measure.explanations.saliency_rows import Arrays, records_over
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

_SEEDED = ("insertion_deletion_gap", "max_sensitivity", "localisation_rank", "randomisation")


@smaller_batches
def measure_saliency(
    model: nn.Module,
    data: Data,
    *,
    methods: Sequence[str] = ("gradient", "integrated_gradients", "smoothgrad"),
    measures: Sequence[str] = MEASURES,
    truth: Mapping[str, Tensor] | None = None,
    calibration: Data | None = None,
    layer: str | None = None,
    batch_size: int = 512,
    seed: int = 0,
    progress: bool = False,
) -> Measured:
    """Measure the saliency maps of the true class on all images, rightly and wrongly classified ones alike.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: ``(images, labels)`` of shapes (n, C, H, W), floats in [0, 1], and (n,), integers in [0, classes); or a loader
            of such batches. Or texts ``(tokens, labels)``, integers (n, length), of which 0 is padding, at the end, and 1 the
            unknown word: then maps are of words, and whatever is said of pixels is measured on a text's own words.
        methods: names from :data:`~lightning_sparse.measure.ATTRIBUTIONS`. For ``"grad_cam"`` and a model without a suitable
            layer, or texts, there are rows of NaN that say why, and no array.
        measures: names from ``MEASURES`` of ``map_numbers.py``. ``"max_sensitivity"`` costs eleven more attributions of each
            image, ``"randomisation"`` one more, the others none.
        truth: by name, masks (n, H, W), booleans: the pixels known to matter. Without masks nothing is localised.
        calibration: images and labels to fit the temperature on, best neither measured nor trained on; None fits it on the
            measured ones.
        layer: of ``"grad_cam"``, see :func:`~lightning_sparse.measure.attribute`; its rows name the layer, also where None
            chooses it.
        batch_size: images per forward pass where there is no gradient.
        seed: of the order of equal values in the maps, SmoothGrad's noise, the moves of max-sensitivity and the shuffling of
            weights.
        progress: show a bar on stderr.

    Returns:
        Rows for each method, means over the ``n`` images where they are defined, with normal intervals: ``gini``;
        ``insertion_deletion_gap``; ``max_sensitivity``; ``convergence_delta`` for integrated gradients alone;
        ``localisation_rank_NAME`` and ``localisation_mass_NAME`` for each mask; ``randomisation_similarity``, whose
        ``trust`` is the verdict, and ``randomisation_complexity_rise``. For reference, ``gini`` and localisation of the
        images themselves (attribution ``"input"``), and ``localisation_chance_NAME`` (``"uniform"``).

        Arrays, first axis the image: ``images`` (float16, NCHW; tokens as one row, int64, (n, 1, 1, length)), ``labels``,
        ``prediction``, ``confidence`` (float32: calibrated probability of the prediction), ``temperature`` (float64, the same
        for all); for each method its maps (n, H, W), float32, of texts (n, 1, length) with NaN at padding; and under
        ``"METHOD/METRIC"`` each row's numbers (n,), float64, NaN where undefined.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_saliency(model, (images, labels), methods=["gradient"], measures=["gini"])
        >>> [record.chart for record in measured.records]
        ['saliency/input/gini', 'saliency/gradient/gini']
        >>> measured.arrays["gradient"].shape, measured.arrays["gradient/gini"].shape
        ((6, 2, 2), (6,))
    """
    seed = check_seed(seed)
    methods = check_choices("methods", methods, ATTRIBUTIONS)
    measures = check_choices("measures", measures, MEASURES)
    if layer is not None and "grad_cam" not in methods:
        raise SparsityError(f"layer={layer!r} is for 'grad_cam', which is not in methods: add it, or leave layer out")
    images, labels = images_and_labels(data)
    masks = _checked_truth(truth, images) if "localisation" in measures else {}
    classifier = as_classifier(model)
    missing: dict[str, str] = {}
    shown = ""
    with untouched(classifier, seed):
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        if "grad_cam" in methods:
            shown, reason = _grad_cam_on(classifier, images, layer)
            missing |= {"grad_cam": reason} if reason else {}
        check_explainable(classifier, images, labels, [method for method in methods if method not in missing], layer)
        temperature, source = temperature_of(classifier, logits, labels, calibration, batch_size)
        confidence, prediction = torch.softmax(logits.double() / temperature, dim=1).max(dim=1)
        arrays: dict[str, npt.NDArray[Any]] = {
            "images": _stored(images.detach().cpu()).numpy(),
            "labels": labels.cpu().long().numpy(),
            "prediction": prediction.numpy(),
            "confidence": confidence.float().numpy(),
            "temperature": np.full(len(images), temperature),
        }
        for attribution, found in references(images, measures, masks, seed).items():
            arrays |= {f"{attribution}/{metric}": values for metric, values in found.items()}
        for method in tqdm(methods, "saliency", disable=not progress, leave=False):
            if method in missing:
                continue
            on = shown if method == "grad_cam" else None
            maps, deltas = attribute(classifier, images, labels, method, seed=seed, layer=on)
            found = numbers_of_maps(maps, measures, masks, seed)
            found |= numbers_of_model(
                classifier,
                images,
                labels,
                method,
                maps,
                deltas,
                measures=measures,
                temperature=temperature,
                seed=seed,
                layer=on,
            )
            arrays |= {method: maps.numpy(), **{f"{method}/{metric}": values for metric, values in found.items()}}
    records = []
    for record in records_over(arrays):
        said = [f"fitted on {source}"] * (record.metric == "insertion_deletion_gap")
        said += [f"seed {seed}"] * (record.metric.startswith(_SEEDED) or record.attribution == "smoothgrad")
        said += [f"layer {shown}"] * (record.attribution == "grad_cam")
        records.append(replace(record, detail="; ".join([record.detail, *said])))
    of_measure = {
        "convergence_delta": [],
        "localisation": [f"localisation_{kind}_{name}" for name in masks for kind in ("rank", "mass")],
        "randomisation": ["randomisation_similarity", "randomisation_complexity_rise"],
    }
    for method, reason in missing.items():
        for metric in (metric for measure in measures for metric in of_measure.get(measure, [measure])):
            records.append(Record(metric, float("nan"), 0, attribution=method, detail=f"left out: {reason}"))
    return Measured(records, arrays)


def same_images(several: Sequence[Arrays]) -> npt.NDArray[np.bool_]:
    """Find the images that all of several models classify correctly.

    The map of a wrongly classified image explains a class that the model did not choose, and each model errs on different
    ones: compare on these images. The worse the models, the fewer and easier they are: say how many.

    Args:
        several: the arrays of :func:`measure_saliency` for each model, of the same images.

    Returns:
        (n,), true where all are right.

    Raises:
        SparsityError: if ``several`` is empty, or images or labels differ.

    Example:
        >>> images, labels = np.zeros((3, 1, 2, 2)), np.array([0, 1, 1])
        >>> several = [
        ...     {"images": images, "labels": labels, "prediction": np.array(said)} for said in ([0, 1, 0], [1, 1, 1])
        ... ]
        >>> same_images(several)
        array([False,  True, False])
    """
    listed = as_list(several)
    if listed is None or not all(
        isinstance(arrays, Mapping) and {"images", "labels", "prediction"} <= set(arrays) for arrays in listed
    ):
        raise SparsityError(
            f"several={type(several).__name__} are not the arrays of several models: write "
            "[measure_saliency(model, data).arrays for model in models]"
        )
    if not listed:
        raise SparsityError("several is empty: give the arrays of at least one model")
    first = listed[0]
    for place, arrays in enumerate(listed):
        for name in ("images", "labels"):
            if not np.array_equal(arrays[name], first[name]):
                raise SparsityError(f"{name} of model {place} are not those of model 0: measure all on the same images")
    right: npt.NDArray[np.bool_] = np.all([arrays["prediction"] == arrays["labels"] for arrays in listed], axis=0)
    return right


def _checked_truth(truth: Mapping[str, Tensor] | None, images: Tensor) -> Mapping[str, Tensor]:
    if truth is not None and not isinstance(truth, Mapping):
        raise SparsityError(f"truth={type(truth).__name__} is not masks by name: write truth={{'digit': masks}}")
    for name, mask in (truth or {}).items():
        check_are_images(images, f"truth[{name!r}] and other masks")
        check_masks(f"truth[{name!r}]", mask, (len(images), *images.shape[2:]))
    return truth or {}


def _stored(images: Tensor) -> Tensor:
    return images.long()[:, None, None] if are_tokens(images) else images.to(torch.float16)


def _grad_cam_on(classifier: nn.Module, images: Tensor, layer: str | None) -> tuple[str, str]:
    """The name of the layer of Grad-CAM, or, where the model has none and none was named, the reason."""
    try:
        return map_layer(classifier, next(batches(1, device_of(classifier), images))[0], layer).name, ""
    except SparsityError as error:
        if layer is not None:
            raise
        return "", str(error)
