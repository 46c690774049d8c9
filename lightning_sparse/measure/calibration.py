"""Temperature scaling: dividing logits by one number makes the confidence of different models comparable."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.classifier import logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels

_REACH = 100.0  # the temperature is searched within this factor of the logits' standard deviation, either way


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature T that minimises the negative log-likelihood of softmax(logits / T) (Guo et al. 2017).

    Pruning and fine-tuning change the scale of logits, and with it every number computed from softmax probabilities. Division
    by T removes that scale: logits times 100 have a T times 100.

    One image's worth of randomly drawn labels is added to the likelihood (after Platt 1999): without it, a few hundred
    calibration images that are all classified correctly give T = 0, and one wrong image among them an ordinary T. Its
    effect fades as 1 / n.

    Args:
        logits: (n, classes), from images that the model was not trained on.
        labels: (n,), integers in [0, classes).

    Returns:
        T > 0, within a factor of 100 of the logits' standard deviation: finite even where the optimum is at infinity (no
        better than chance). 1.0 if all logits are equal.

    Raises:
        SparsityError: if the shapes do not fit.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0]]).repeat(3000, 1)
        >>> labels = torch.tensor([0, 0, 1]).repeat(1000)  # right twice in three
        >>> temperature = fit_temperature(logits, labels)
        >>> round(torch.softmax(logits / temperature, dim=1)[0, 0].item(), 3)
        0.667
        >>> round(fit_temperature(100 * logits, labels) / temperature, 6)
        100.0
    """
    for name, value in (("logits", logits), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise SparsityError(f"{name}={type(value).__name__} is not a tensor: write torch.as_tensor({name})")
    if not logits.is_floating_point() or labels.is_floating_point():
        raise SparsityError(f"logits are {logits.dtype} and labels {labels.dtype}: give floats and integers")
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or len(labels) == 0:
        raise SparsityError(
            f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not fit: give (n, classes) and (n,)"
        )
    least, most = int(labels.long().min()), int(labels.long().max())
    if least < 0 or most >= logits.shape[1]:
        raise SparsityError(
            f"labels lie in [{least}, {most}], and logits are of {logits.shape[1]} classes: give labels in [0, classes)"
        )
    if not bool(logits.isfinite().all()):
        raise SparsityError("logits hold NaN or infinity: give finite ones")
    with torch.inference_mode(False), torch.no_grad():
        scores = logits.detach().double().cpu()
        scores = scores - scores.mean(dim=1, keepdim=True)
        spread = float(scores.std(correction=0))
        if spread == 0:
            return 1.0
        scores /= spread
        true_score = scores.gather(1, labels.detach().long().cpu().unsqueeze(1)).squeeze(1)
        # The random labels' own share of the slope is the mean score, which centring has made 0.
        kept = len(labels) / (len(labels) + 1)

        def slope(log_sharpness: float) -> float:
            # Of the loss in sharpness = 1 / T. The loss is convex in it, so the slope crosses zero at most once.
            expected = (torch.softmax(scores * math.exp(log_sharpness), dim=1) * scores).sum(dim=1)
            return float((expected - kept * true_score).mean())

        low, high = -math.log(_REACH), math.log(_REACH)
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return spread / math.exp((low + high) / 2)


def temperature_of(
    classifier: nn.Module, logits: Tensor, labels: Tensor, calibration: Data | None, batch_size: int
) -> tuple[float, str]:
    """Fit a classifier's temperature, and say in words on what: calibration images, or those measured where there are none.

    ``logits`` (n, classes) and ``labels`` (n,) are of the images measured; the classifier is inside ``untouched``.
    """
    if calibration is None:
        return fit_temperature(logits, labels), "the images measured"
    images, labels = images_and_labels(calibration, name="calibration")
    logits = logits_of(classifier, images, labels, batch_size=batch_size)
    return fit_temperature(logits, labels), f"{len(labels)} calibration images"
