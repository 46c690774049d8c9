"""The variance of gradients (VOG): how much the true class's gradient in the pixels changes during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.extras import need
from lightning_sparse.measure.arrays import check_array
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches, check_gradient
from lightning_sparse.measure.input_gradient import logits_and_leaf, words_of
from lightning_sparse.measure.outputs import check_logits
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Record

Floats = npt.NDArray[np.float64]


@smaller_batches
def true_class_gradients(model: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 256) -> Tensor:
    """Compute the gradient of each image's true-class logit in its pixels, in eval mode. The model is left as it was.

    Of a text it is the gradient in the vectors of its words.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`.
        images: (n, C, H, W), floats in [0, 1], not augmented; or tokens (n, length).
        labels: (n,), integers in [0, classes).
        batch_size: images per pass.

    Returns:
        (n, H, W), float32 on the CPU, in logits per unit of [0, 1] pixels: the mean over channels, as in Agarwal et al.'s
        own ImageNet script. Signs are kept. Of texts (n, 1, length), the mean over the dimensions of a word's vector.

    Raises:
        SparsityError: if images, labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> gradients = true_class_gradients(model, torch.rand(2, 1, 2, 2), torch.tensor([0, 2]))
        >>> torch.equal(gradients.flatten(1), model[1].weight[[0, 2]])
        True
    """
    check_images(images, labels)
    classifier = as_classifier(model)
    gradients, seen = [], []
    with untouched(classifier):
        check_gradient(classifier, images)
        words = words_of(classifier, images)
        for part, targets in batches(batch_size, device_of(classifier), images, labels):
            logits, leaf = logits_and_leaf(classifier, part, words)
            check_images(part, targets, classes=logits.shape[1])
            # One backward pass for all images: in eval mode, no image's logits depend on another image.
            (gradient,) = torch.autograd.grad(logits.gather(1, targets.unsqueeze(1)).sum(), leaf)
            gradients.append(gradient.mean(dim=1).cpu())
            seen.append(logits.detach().cpu())
    check_logits(torch.cat(seen))
    return torch.cat(gradients)


class GradientVariance:
    """Follow the gradients of fixed images from checkpoint to checkpoint, and score how much they change.

    Agarwal, D'souza & Hooker 2022, "Estimating example difficulty using variance of gradients" (arXiv 2008.11600). An
    image's score is the mean over its pixels of ``sqrt(sum_k (S_k - mean)^2 / K)``, S_k being its gradient
    (:func:`true_class_gradients`) at the k-th of K checkpoints. They call it a variance; it is a standard deviation.

    Instead of keeping gradients, it updates their mean and sum of squares (Welford 1962): 8 bytes a pixel, however many
    checkpoints there are.

    Args:
        batch_size: images per pass.

    Attributes:
        count: the number of checkpoints that it has looked at.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
        >>> images, labels, following = torch.rand(3, 1, 2, 2), torch.tensor([0, 0, 1]), GradientVariance()
        >>> for weight in (1.0, 2.0, 3.0):
        ...     model[1].weight.data[0] = weight  # class 1 stays as it is
        ...     following.update(model, images, labels)
        >>> following.scores().round(4)
        array([0.8165, 0.8165, 0.    ])
    """

    def __init__(self, *, batch_size: int = 256) -> None:
        self.batch_size = check_count("batch_size", batch_size, write=256)
        self.count = 0
        self._mean = self._squares = torch.empty(0)

    def update(self, model: nn.Module, images: Tensor, labels: Tensor) -> None:
        """Look at the model as it is now; always give the same images and labels, in the same order.

        Raises:
            SparsityError: as :func:`true_class_gradients`, and for another number or size of images than before.
        """
        self.add(true_class_gradients(model, images, labels, batch_size=self.batch_size))

    def add(self, gradients: Tensor) -> None:
        """Add gradients (n, H, W) that were computed elsewhere."""
        if self.count == 0:
            self._mean = self._squares = torch.zeros_like(gradients)
        if gradients.shape != self._mean.shape:
            raise SparsityError(
                f"images have gradients of shape {tuple(gradients.shape)}, and those before {tuple(self._mean.shape)}: "
                "give the same images, in the same order, at every checkpoint"
            )
        self.count += 1
        # Not in place, so that a state_dict given out earlier stays as it was.
        step = gradients - self._mean
        self._mean = self._mean + step / self.count
        self._squares = self._squares + step * (gradients - self._mean)

    def scores(self) -> Floats:
        """Give every image's score, (n,), in logits per unit of [0, 1] pixels; NaN before the second checkpoint."""
        if self.count < 2:
            return np.full(len(self._mean), np.nan)
        return (self._squares / self.count).sqrt().flatten(1).double().mean(dim=1).numpy()

    def relative(self) -> Floats:
        """Give every image's norm of the deviation over that of the mean gradient, (n,), whatever the scale of logits.

        NaN before the second checkpoint, and where the gradient was always zero.
        """
        if self.count < 2:
            return np.full(len(self._mean), np.nan)
        spread = (self._squares / self.count).flatten(1).double().sum(dim=1).sqrt()
        relative: Floats = (spread / self._mean.flatten(1).double().norm(dim=1)).numpy()
        return relative

    def unmoved(self) -> int:
        """Count the images whose gradient was zero in all pixels at all checkpoints, as in a dead network."""
        return int(((self._mean == 0) & (self._squares == 0)).flatten(1).all(dim=1).sum()) if self.count else 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state so far: a number and two tensors, loadable with ``weights_only=True``."""
        return {"count": self.count, "mean": self._mean, "squares": self._squares}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.count = int(state["count"])
        self._mean, self._squares = state["mean"].cpu(), state["squares"].cpu()


def class_normalised(scores: Sequence[float] | Floats, labels: Sequence[int] | Tensor | npt.NDArray[Any]) -> Floats:
    """Compare every image's score with those of its class: ``(score - mean of the class) / deviation of the class``.

    This removes the differences in the size of gradients between classes and between networks, as the paper does.

    Args:
        scores: (n,), from :meth:`GradientVariance.scores`.
        labels: (n,).

    Returns:
        (n,), in units of the class's standard deviation (dividing by its number of images): 0 for an image as difficult as
        its class on average, NaN in a class of one image or of equal scores.

    Raises:
        SparsityError: if there are not as many labels as scores.

    Example:
        >>> class_normalised([1.0, 3.0, 10.0, 30.0, 7.0], [0, 0, 1, 1, 2])
        array([-1.,  1., -1.,  1., nan])
    """
    values = check_array("scores", scores, "(n,)").astype(np.float64)
    classes = check_array("labels", labels, "(n,)")
    if values.shape != classes.shape:
        raise SparsityError(f"labels have shape {classes.shape}, and scores {values.shape}: give one label per score")
    result = np.full(len(values), np.nan)
    for label in np.unique(classes):
        own = classes == label
        spread = values[own].std()
        if spread > 0:
            result[own] = (values[own] - values[own].mean()) / spread
    return result


def rank_stability(before: Floats, after: Floats) -> float:
    """Compute Spearman's correlation of two looks' scores (n,); NaN if a score is NaN, or if all of one look are equal.

    Example:
        >>> rank_stability(np.array([1.0, 2.0, 3.0]), np.array([1.0, 20.0, 21.0]))
        1.0
    """
    if before.shape != after.shape or np.isnan([before, after]).any() or min(np.ptp(before), np.ptp(after)) == 0:
        return float("nan")
    return float(need("scipy.stats").spearmanr(before, after).statistic)


def stability_record(value: float, n: int, epochs: Sequence[int]) -> Record:
    """Record :func:`rank_stability` of the last two of the looks made after these epochs, at n images."""
    detail = (
        f"Spearman over images of VOG from all looks (after epochs {_listed(epochs)}) with VOG from all but the last; comes "
        "near 1 by itself as looks accumulate"
    )
    if math.isnan(value):
        detail = f"undefined before the third look, and where scores are all equal; {detail}"
    return Record("vog_rank_stability", value, n, detail=detail)


def vog_record(following: GradientVariance, epochs: Sequence[int]) -> Record:
    """Record the mean of the scores over images, with its normal interval, from looks made after these epochs."""
    scores = following.scores()
    detail = (
        "mean over images of VOG: standard deviation (dividing by K) of the gradient of the true class's logit over "
        f"K = {following.count} looks (after epochs {_listed(epochs)}), mean over channels, then pixels; eval mode; grows "
        "with the scale of the logits"
    )
    if following.count < 2:
        detail = f"undefined with fewer than two looks; {detail}"
    if still := following.unmoved():
        detail += f"; {still} images had no gradient at any look"
    return mean_row("vog_mean", scores, detail=detail)


def _listed(epochs: Sequence[int]) -> str:
    few = [*epochs[:2], "...", epochs[-1]] if len(epochs) > 4 else epochs
    return ", ".join(map(str, few)) or "none"
