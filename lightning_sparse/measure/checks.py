"""Checks before anything is measured: images are pixels in [0, 1], texts are tokens, labels are classes."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.advice import with_forward, with_normalisation


def check_images(images: Tensor, labels: Tensor, classes: int | None = None) -> None:
    """Refuse images that are not pixels in [0, 1], texts that are not tokens, and labels that are not classes.

    Args:
        images: (n, C, H, W), floating point, finite, in [0, 1]; or texts (n, length), integers from 0 on.
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
    check_shapes(images, labels)
    if not are_tokens(images):
        check_pixels(images)
    elif int(images.min()) < 0:
        raise SparsityError(
            f"tokens reach {int(images.min())}: give numbers of words from 0 on, where 0 fills a text up"
        )
    if classes is not None:
        check_count("classes", classes, write=10)
    _check_labels(labels, classes)


def check_shapes(images: Tensor, labels: Tensor) -> None:
    """Refuse what are not images (n, C, H, W), or tokens (n, length), with one label each, whatever their values.

    Example:
        >>> check_shapes(torch.rand(3, 20), torch.tensor([0, 1, 1]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: images have shape (3, 20), not (n, C, H, W) with n >= 1: for features in [0, 1] ...
    """
    for name, value in (("images", images), ("labels", labels)):
        if not isinstance(value, Tensor):
            numbers = ", class numbers from 0 on" if name == "labels" else ""
            raise SparsityError(
                f"{name}={type(value).__name__} is not a tensor: write torch.as_tensor({name}){numbers}"
            )
        if value.layout != torch.strided or value.is_meta:
            how = "to_dense()" if value.layout != torch.strided else "to('cpu') before the model is on the meta device"
            raise SparsityError(f"{name} hold no plain numbers ({value.layout}, {value.device}): write {name}.{how}")
    if (images.dim() != 4 and not are_tokens(images)) or images.numel() == 0:
        advice = "write images.unsqueeze(1) for grey images without a channel, and flatten inside the model"
        if images.dim() == 2:
            forward = with_forward("model(x.flatten(1))")
            advice = f"for features in [0, 1] write images[:, :, None, None], and {forward}"
        raise SparsityError(f"images have shape {tuple(images.shape)}, not (n, C, H, W) with n >= 1: {advice}")
    if labels.dim() != 1 or len(labels) != len(images):
        advice = (
            "write labels.argmax(dim=1)"
            if labels.dim() == 2 and labels.shape[1] > 1
            else "give one class number per image"
        )
        raise SparsityError(f"labels have shape {tuple(labels.shape)}, not ({len(images)},): {advice}")


def check_are_images(images: Tensor, what: str) -> None:
    """Refuse texts for what only images have; ``what`` names it.

    Example:
        >>> check_are_images(torch.zeros(2, 5, dtype=torch.long), "corruptions")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: corruptions are of images, and data holds tokens of shape (2, 5): leave them out
    """
    if are_tokens(images):
        raise SparsityError(
            f"{what} are of images, and data holds tokens of shape {tuple(images.shape)}: leave them out"
        )


def check_pixels(images: Tensor) -> None:
    """Refuse images (n, C, H, W) that are not finite floats in [0, 1]."""
    if not images.is_floating_point():
        raise SparsityError(f"images are {images.dtype}, not floats in [0, 1]: write images.float() / 255 for bytes")
    images = images.detach() if images.element_size() > 1 else images.detach().float()  # a byte a float has no min
    if not bool(images.isfinite().all()):
        raise SparsityError("images hold NaN or infinity: give finite pixels in [0, 1]")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        advice = "images / 255" if 16 < high <= 255 else f"images / {high:g}, if that is white"
        if low < 0:
            advice = with_normalisation(images.shape[1])
        raise SparsityError(f"images lie in [{low:g}, {high:g}], not in [0, 1]: write {advice}")


def _check_labels(labels: Tensor, classes: int | None) -> None:
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SparsityError(f"labels are {labels.dtype}, not integers: write labels.long()")
    low, high = int(labels.long().min()), int(labels.long().max())
    if low < 0:
        raise SparsityError(f"labels reach {low}, which is no class: leave out images without a label")
    if classes is not None and high >= classes:
        raise SparsityError(f"labels reach {high}, but the model has {classes} classes: 0 to {classes - 1}")
