"""Checks before anything is measured: images are pixels in [0, 1], labels are classes, outputs are logits."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError


def check_logits(outputs: object) -> Tensor:
    """Return a classifier's outputs if they are logits, else raise.

    Args:
        outputs: what the model gave.

    Returns:
        The same tensor, finite, of shape (n, classes) with at least two classes.

    Raises:
        SparsityError: for anything else, and for outputs of a softmax (in [0, 1], rows summing to 1): the gradients of
            their cross-entropy vanish, which looks like robustness.

    Example:
        >>> check_logits({"logits": torch.zeros(2, 3)})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: the model gives a dict with keys 'logits', not logits: write as_classifier...
    """
    scores = check_scores(outputs)
    values = scores.detach().float()
    # 1e-3 because rows of half-precision probabilities sum to 1 only roughly.
    if len(values) and bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-3).all()):
        raise SparsityError(
            "the model gives probabilities (in [0, 1], rows sum to 1), not logits: leave the softmax out, or write "
            f"{with_forward('model(x).clamp_min(1e-30).log()')}"
        )
    return scores


def check_scores(outputs: object) -> Tensor:
    """Return a classifier's outputs if they are finite scores of shape (n, classes), else raise.

    :func:`check_logits` without the check for a softmax, which needs many images: in one forward pass, the two logits of a
    single image may happen to sum to 1.

    Example:
        >>> check_scores(torch.tensor([[0.25, 0.75]]))
        tensor([[0.2500, 0.7500]])
    """
    if not isinstance(outputs, Tensor):
        raise SparsityError(
            f"the model gives {_describe(outputs)}, not logits: write {with_forward('model(x)' + _pick(outputs))}, which is "
            "a tensor of shape (n, classes)"
        )
    shape = tuple(outputs.shape)
    if outputs.dim() == 2 and shape[1] == 1:
        raise SparsityError(
            f"the model gives one number per image (shape {shape}), and a classifier gives one per class: for a binary "
            f"model write {with_forward('torch.nn.functional.pad(model(x), (1, 0))')}"
        )
    if outputs.dim() != 2:
        raise SparsityError(
            f"the model gives a tensor of shape {shape}, not logits of shape (n, classes): write {with_forward('...')} with "
            "the part of the model that gives them"
        )
    if not outputs.is_floating_point():
        raise SparsityError(
            f"the model gives {outputs.dtype}, not logits: write {with_forward('...')} with the scores before argmax"
        )
    values = outputs.detach()
    finite = values.isfinite().all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise SparsityError(
            f"the model gives NaN or infinite logits for {bad} of {len(values)} images: nothing measured"
        )
    return outputs


def check_images(images: Tensor, labels: Tensor, classes: int | None = None) -> None:
    """Refuse images that are not pixels in [0, 1], and labels that are not classes.

    Args:
        images: (n, C, H, W), floating point, finite, in [0, 1].
        labels: (n,), integers in [0, classes).
        classes: number of classes; with None, only negative labels are refused.

    Raises:
        SparsityError: naming what is wrong and what to write instead. A label of -1 is refused because two attacks of
            torchattacks would silently take it for the last class.

    Example:
        >>> check_images(torch.full((1, 1, 8, 8), 255.0), torch.tensor([3]))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: images lie in [255, 255], not in [0, 1]: write images / 255
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise SparsityError(f"{name}={type(value).__name__} is not a tensor: write torch.as_tensor({name})")
    _check_pixels(images)
    _check_labels(labels, len(images), classes)


def with_forward(logits: str) -> str:
    """Say what to write where calling a model does not give its logits.

    Example:
        >>> with_forward("model(x)[0]")
        'as_classifier(model, forward=lambda model, x: model(x)[0]) (or that forward= for a callback)'
    """
    return f"as_classifier(model, forward=lambda model, x: {logits}) (or that forward= for a callback)"


def _check_pixels(images: Tensor) -> None:
    if not images.is_floating_point():
        raise SparsityError(f"images are {images.dtype}, not floats in [0, 1]: write images.float() / 255 for bytes")
    if images.dim() != 4 or images.numel() == 0:
        raise SparsityError(
            f"images have shape {tuple(images.shape)}, not (n, C, H, W) with n >= 1: write images.unsqueeze(1) for "
            "grey images without a channel, and flatten inside the model"
        )
    low, high = float(images.min()), float(images.max())
    if not bool(images.isfinite().all()):
        raise SparsityError("images hold NaN or infinity: give finite pixels in [0, 1]")
    if low < 0 or high > 1:
        advice = "images / 255"
        if low < 0:
            advice = "pixels as they were, and normalise inside the model: as_classifier(model, mean=[0.5], std=[0.25])"
        raise SparsityError(f"images lie in [{low:g}, {high:g}], not in [0, 1]: write {advice}")


def _check_labels(labels: Tensor, n: int, classes: int | None) -> None:
    if labels.dim() != 1 or len(labels) != n:
        raise SparsityError(f"labels have shape {tuple(labels.shape)}, not ({n},): give one class number per image")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SparsityError(f"labels are {labels.dtype}, not integers: write labels.long()")
    if int(labels.min()) < 0:
        raise SparsityError(f"labels reach {int(labels.min())}, which is no class: leave out images without a label")
    if classes is not None and int(labels.max()) >= classes:
        raise SparsityError(
            f"labels reach {int(labels.max())}, but the model has {classes} classes: 0 to {classes - 1}"
        )


def _describe(outputs: object) -> str:
    if isinstance(outputs, dict):
        return "a dict with keys " + ", ".join(repr(key) for key in outputs)
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {len(outputs)}"
    return f"a {type(outputs).__name__}"


def _pick(outputs: object) -> str:
    if isinstance(outputs, dict):
        key = "logits" if "logits" in outputs or not outputs else next(iter(outputs))
        return f"[{key!r}]"
    return "[0]" if isinstance(outputs, tuple | list) else ".logits"
