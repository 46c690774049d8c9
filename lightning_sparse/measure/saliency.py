"""Saliency of a trained classifier: how concentrated its maps are, how faithful, and how like another model's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.isolation import untouched
from lightning_sparse.measure.attributions import ATTRIBUTIONS, attribute
from lightning_sparse.measure.calibration import fit_temperature
from lightning_sparse.measure.classifier import Forward, as_classifier, logits_of
from lightning_sparse.measure.extras import need
from lightning_sparse.measure.faithfulness import insertion_deletion_gap
from lightning_sparse.measure.intervals import mean_interval
from lightning_sparse.records import Record

Maps = Tensor | npt.NDArray[np.floating]


def measure_saliency(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    methods: Sequence[str] = ("gradient", "integrated_gradients"),
    calibration: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    forward: Forward | None = None,
) -> tuple[list[Record], dict[str, npt.NDArray[np.generic]]]:
    """Measure the saliency maps of the true class on these images, right and wrong ones alike.

    Args:
        model: any module; it is left as it was.
        images: (n, C, H, W), floats in [0, 1].
        labels: (n,), integers in [0, classes).
        methods: names from :data:`~lightning_sparse.measure.attributions.ATTRIBUTIONS`.
        calibration: images and labels, best not among those measured and not trained on, to fit the temperature on;
            None fits it on the measured ones.
        seed: orders ties in the maps.
        mean: see :func:`~lightning_sparse.measure.classifier.as_classifier`.
        std: see there.
        forward: see there.

    Returns:
        Records, and arrays to be saved with ``np.savez``. Per method: ``gini`` and ``insertion_deletion_gap``, means
        over the ``n`` images where they are defined, with normal intervals; and ``convergence_delta`` for integrated
        gradients, the mean absolute error of their sum, in logits. The arrays: ``images`` (float16, NCHW), ``labels``,
        ``prediction``, ``confidence`` (float32: calibrated probability of the prediction), and for each method its maps
        (n, H, W), float32.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> records, arrays = measure_saliency(model, images, labels, methods=["gradient"])
        >>> [record.chart for record in records]
        ['saliency/gradient/gini', 'saliency/gradient/insertion_deletion_gap']
        >>> arrays["gradient"].shape
        (6, 2, 2)
    """
    if isinstance(methods, str) or len(methods) == 0:
        raise SparsityError(f"methods={methods!r} is not a list of names: write methods=['gradient']")
    names = [check_choice("methods", name, ATTRIBUTIONS) for name in methods]
    classifier = as_classifier(model, mean=mean, std=std, forward=forward)
    with untouched(classifier, seed):
        logits = logits_of(classifier, images, labels)
        if calibration is None:
            temperature, source = fit_temperature(logits, labels), "the images measured"
        else:
            temperature = fit_temperature(logits_of(classifier, *calibration), calibration[1])
            source = f"{len(calibration[1])} calibration images"
        confidence, prediction = torch.softmax(logits.double() / temperature, dim=1).max(dim=1)
        arrays: dict[str, npt.NDArray[np.generic]] = {
            "images": images.detach().cpu().to(torch.float16).numpy(),
            "labels": labels.cpu().long().numpy(),
            "prediction": prediction.numpy(),
            "confidence": confidence.float().numpy(),
        }
        records = []
        for name in names:
            maps, deltas = attribute(classifier, images, labels, name)
            arrays[name] = maps.numpy()
            gaps = insertion_deletion_gap(classifier, images, labels, maps, temperature=temperature, seed=seed)
            softmax = f"softmax at temperature {temperature:.4g} fitted on {source}"
            what = f"insertion minus deletion AUC, zero baseline, true class, {softmax}; 0 is a random order"
            records.append(_record("gini", gini(maps), name, "true class's logit, channels summed, absolute"))
            records.append(_record("insertion_deletion_gap", gaps, name, what))
            if not bool(deltas.isnan().all()):
                what = "mean absolute error of the attributions' sum, in logits; zero baseline, 50 steps"
                records.append(_record("convergence_delta", deltas.abs().double().numpy(), name, what))
    return records, arrays


def gini(maps: Maps) -> npt.NDArray[np.float64]:
    """Compute the Gini index of each map's absolute values: how few pixels hold it (Hurley & Rickard 2009).

    With the d values sorted ascending, ``G = sum_k (2k - d - 1) a_k / (d sum a)``: 0 if all are equal, (d - 1) / d if
    one holds everything. It does not depend on the map's scale.

    Args:
        maps: (n, H, W).

    Returns:
        (n,), in [0, 1); NaN for a map of zeros, as a dead network gives.

    Raises:
        SparsityError: if ``maps`` is not (n, H, W).

    Example:
        >>> gini(np.array([[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, -3.0]], [[0.0, 0.0], [0.0, 0.0]]]))
        array([0.  , 0.75,  nan])
    """
    values = np.sort(np.abs(_flat("maps", maps)), axis=1)
    d = values.shape[1]
    total = values.sum(axis=1)
    weighted = (values * (2 * np.arange(1, d + 1) - d - 1)).sum(axis=1)
    result = np.full(len(values), np.nan)
    np.divide(weighted, d * total, out=result, where=total > 0)
    return result


def agreement(maps_a: Maps, maps_b: Maps) -> npt.NDArray[np.float64]:
    """Compute Spearman's rank correlation of the absolute values of two models' maps of the same images.

    Args:
        maps_a: (n, H, W).
        maps_b: (n, H, W), of the same images in the same order.

    Returns:
        (n,), in [-1, 1], 1 where both put the pixels in the same order; NaN where one map is constant.

    Raises:
        SparsityError: if the shapes differ, or scipy is missing.

    Example:
        >>> a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        >>> agreement(a, 10 * a**3), agreement(a, 1 / a)
        (array([1.]), array([-1.]))
    """
    a, b = _flat("maps_a", maps_a), _flat("maps_b", maps_b)
    if np.shape(maps_a) != np.shape(maps_b):
        raise SparsityError(f"maps_a {np.shape(maps_a)} and maps_b {np.shape(maps_b)} differ: give the same images")
    rankdata = need("scipy.stats").rankdata
    ranks_a, ranks_b = (rankdata(np.abs(values), axis=1) for values in (a, b))
    ranks_a -= ranks_a.mean(axis=1, keepdims=True)
    ranks_b -= ranks_b.mean(axis=1, keepdims=True)
    spread = np.sqrt((ranks_a**2).sum(axis=1) * (ranks_b**2).sum(axis=1))
    result = np.full(len(a), np.nan)
    np.divide((ranks_a * ranks_b).sum(axis=1), spread, out=result, where=spread > 0)
    return result


def agreement_record(maps_a: Maps, maps_b: Maps, attribution: str) -> Record:
    """Record how far a model's maps agree with those of the dense model.

    Args:
        maps_a: (n, H, W), the model's.
        maps_b: (n, H, W), the dense model's, of the same images.
        attribution: the method that made both, for the record.

    Returns:
        A ``dense_agreement`` record: the mean of :func:`agreement` over images where it is defined.

    Raises:
        SparsityError: as :func:`agreement`.

    Example:
        >>> a = np.array([[[1.0, 2.0], [3.0, 4.0]]])
        >>> agreement_record(a, a, "gradient").value
        1.0
    """
    return _record("dense_agreement", agreement(maps_a, maps_b), attribution, "Spearman of absolute maps, per image")


def _record(metric: str, values: npt.NDArray[np.float64], attribution: str, detail: str) -> Record:
    mean, low, high = mean_interval(values)
    n = int((~np.isnan(values)).sum())
    if n < len(values):
        detail += f"; undefined for {len(values) - n} of {len(values)} images, left out"
    return Record(metric, mean, n, low, high, attribution=attribution, detail=detail)


def _flat(name: str, maps: Maps) -> npt.NDArray[np.float64]:
    array = maps.detach().cpu().numpy() if isinstance(maps, Tensor) else np.asarray(maps)
    if array.ndim != 3:
        raise SparsityError(f"{name} has shape {array.shape}, not (n, H, W): give one map per image")
    return array.reshape(len(array), -1).astype(np.float64)
