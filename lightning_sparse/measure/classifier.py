"""Any model as a classifier of pixels in [0, 1] that gives logits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.measure.advice import with_forward
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.input_gradient import logits_and_leaf, words_of
from lightning_sparse.measure.outputs import check_logits, check_not_padded, check_scores

Forward = Callable[[Any, Tensor], Tensor]


def as_classifier(
    model: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    forward: Forward | None = None,
) -> PixelClassifier:
    """Wrap a model as a classifier of pixels: (n, C, H, W) in [0, 1] to logits (n, classes), in float32.

    A model of texts takes integers (n, length) in their place, which are given to it as they are.

    Every function of :mod:`lightning_sparse.measure` takes what this returns, or a model that already is such a classifier.
    Normalisation belongs inside, so that eps is in units of pixels. The model itself is not changed.

    Args:
        model: any module, also a LightningModule.
        mean: per channel, subtracted from the pixels before the model sees them.
        std: per channel, > 0, divides them after that.
        forward: ``forward(model, x) -> logits`` for a model whose output is something else (a dict, a tuple, ...).

    Returns:
        The classifier, whose ``model`` is the one given: masks go by the names of its parameters. It raises a SparsityError
        if the model's output is not logits.

    Raises:
        SparsityError: if ``model`` is not a module, or ``mean`` and ``std`` do not fit.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> classifier = as_classifier(model, mean=[0.5], std=[0.25])
        >>> classifier(torch.rand(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """
    if not isinstance(model, nn.Module):
        what = model.__name__ if isinstance(model, type) else type(model).__name__
        give = f"{what}(), an object of it" if isinstance(model, type) else "the module"
        raise SparsityError(
            f"model={what} is not a torch.nn.Module: give {give}, or write {with_forward('...')} if calling it does not "
            "give logits"
        )
    check_forward(forward)
    if device_of(model).type == "meta":
        raise SparsityError(
            f"model={type(model).__name__} is on the meta device, where weights have no values: make or load it on 'cpu'"
        )
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        raise SparsityError(
            f"model={type(model).__name__} has lazy layers without weights: call it once, model(images), before measuring"
        )
    if isinstance(model, PixelClassifier) and mean is None and std is None and forward is None:
        return model
    shift, scale = check_normalisation(mean, std)
    return PixelClassifier(model, shift, scale, forward or (lambda module, x: module(x)))


def check_normalisation(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return ``mean`` and ``std`` as float32 tensors, one number for each channel, or raise; None stays None.

    Example:
        >>> check_normalisation([0.5], None)
        (tensor([0.5000]), None)
    """
    shift, scale = _per_channel("mean", mean), _per_channel("std", std)
    if shift is not None and scale is not None and len(shift) != len(scale):
        raise SparsityError(f"mean has {len(shift)} channels and std has {len(scale)}: give one number per channel")
    if scale is not None and not bool((scale > 0).all()):
        raise SparsityError(f"std={std!r} is not positive: give each channel's standard deviation in units of [0, 1]")
    return shift, scale


def check_channels(images: Tensor, **statistics: Tensor | None) -> None:
    """Refuse a mean or std of another number of channels than the images (n, C, ...) have."""
    for name, statistic in statistics.items():
        if statistic is not None and statistic.numel() != images.shape[1]:
            raise SparsityError(
                f"{name} has {statistic.numel()} channels and the images have {images.shape[1]}: "
                "give one number per channel"
            )


def check_gradient(classifier: nn.Module, images: Tensor, otherwise: str = "") -> None:
    """Refuse a classifier, inside ``untouched``, whose logits have no gradient in the first image's pixels (text's words).

    ``otherwise`` says what else can be written than a model that keeps the gradient.
    """
    (first,) = next(batches(1, device_of(classifier), images.detach()[:1]))
    words = words_of(classifier, first)
    with torch.enable_grad():
        logits, leaf = logits_and_leaf(classifier, first, words)
        gradient = None
        if logits.requires_grad:
            (gradient,) = torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    if gradient is None:
        if words:
            raise SparsityError(
                "the logits have no gradient in the vectors of the words: the model detaches them or runs under no_grad; "
                f"{otherwise}let its logits depend on what its embedding gives"
            )
        raise SparsityError(
            "the logits have no gradient in the pixels: the model detaches them, rounds them to integers or runs under "
            f"no_grad; {otherwise}write {with_forward('...')} with a differentiable path from pixels to logits"
        )


def check_forward(forward: Forward | None) -> Forward | None:
    """Return ``forward`` if it is None or can be called, else raise.

    Example:
        >>> check_forward("logits")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: forward='logits' cannot be called: write forward=lambda model, x: model(x)['logits']
    """
    if forward is not None and not callable(forward):
        raise SparsityError(f"forward={forward!r} cannot be called: write forward=lambda model, x: model(x)['logits']")
    return forward


class PixelClassifier(nn.Module):
    """The classifier that :func:`as_classifier` returns; ``model`` is the module inside."""

    model: nn.Module
    mean: Tensor | None
    std: Tensor | None

    def __init__(self, model: nn.Module, mean: Tensor | None, std: Tensor | None, forward: Forward) -> None:
        super().__init__()
        # A new module is in training mode, and torchattacks would put what it wraps back into that.
        self.training = model.training
        self.model = model
        self._forward = forward
        device = device_of(model)
        self.register_buffer("mean", None if mean is None else mean.view(1, -1, 1, 1).to(device))
        self.register_buffer("std", None if std is None else std.view(1, -1, 1, 1).to(device))

    def forward(self, pixels: Tensor) -> Tensor:
        """Give the logits (n, classes), float32, of pixels (n, C, H, W), or of tokens (n, length)."""
        is_text = are_tokens(pixels)
        if is_text and not (self.mean is None and self.std is None):
            raise SparsityError("mean and std are of pixels, and data holds tokens: leave them out")
        check_channels(pixels, mean=self.mean, std=self.std)
        # To the pixels' device, because the model may have moved since.
        inputs = pixels if self.mean is None else pixels - self.mean.to(pixels.device)
        inputs = inputs if self.std is None else inputs / self.std.to(pixels.device)
        try:
            outputs = self._forward(self.model, inputs if is_text else inputs.to(_float_type(self.model)))
        except (TypeError, NotImplementedError) as error:
            raise SparsityError(
                f"model={type(self.model).__name__} could not be called as model(images) ({error}): "
                f"write {with_forward('...')} with the call that gives logits"
            ) from error
        except (RuntimeError, ValueError, AssertionError, IndexError) as error:
            if about_size(error):
                raise size_refusal(self.model, pixels, error) from error
            raise
        scores = check_scores(outputs)
        if len(scores) != len(pixels):
            raise SparsityError(
                f"the model gives {len(scores)} rows of logits for {len(pixels)} images: give one per image"
            )
        return scores.float()


def about_size(error: Exception) -> bool:
    """Whether an error of a model's forward pass is about the size of its input, going by its words.

    Example:
        >>> about_size(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x784 and 64x10)"))
        True
    """
    if isinstance(error, SparsityError | torch.cuda.OutOfMemoryError):
        return False
    return bool(
        re.search(r"\b(size|shape|channel|dimension|height|width|elements not)", str(error), flags=re.IGNORECASE)
    )


def size_refusal(model: nn.Module, images: Tensor, error: Exception) -> SparsityError:
    """The error of a model that does not take images of this size."""
    shape = ", ".join(map(str, images.shape[1:]))
    return SparsityError(
        f"model={type(model).__name__} does not take images of shape (n, {shape}): {error}. Give a model made for this size, "
        "or images of the size that it takes"
    )


def batches(batch_size: int, device: torch.device, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield the tensors batch by batch, copied to ``device``, floats as float32.

    Copied even if they are there already, because tensors made under ``inference_mode`` cannot carry gradients and because
    a model may write into its input.

    Example:
        >>> [len(part) for part, in batches(4, torch.device("cpu"), torch.zeros(10))]
        [4, 4, 2]
    """
    check_count("batch_size", batch_size, write=256)
    for parts in zip(*(torch.split(tensor, batch_size) for tensor in tensors), strict=True):
        yield tuple(
            part.to(device, torch.float32 if part.is_floating_point() else torch.int64, copy=True) for part in parts
        )


def logits_of(classifier: nn.Module, images: Tensor, labels: Tensor, *, batch_size: int = 512) -> Tensor:
    """Compute the logits of images, (n, classes), float32 on the CPU, and check images, labels and logits.

    The classifier is from :func:`as_classifier`, inside ``untouched``.
    """
    check_images(images, labels)
    with torch.no_grad():
        logits = torch.cat([classifier(part).cpu() for (part,) in batches(batch_size, device_of(classifier), images)])
    check_images(images, labels, classes=logits.shape[1])
    return check_not_padded(check_logits(logits))


def _per_channel(name: str, values: Sequence[float] | None) -> Tensor | None:
    if values is None:
        return None
    try:
        tensor = torch.as_tensor(values, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        tensor = torch.empty(0)
    if tensor.dim() != 1 or len(tensor) == 0 or not bool(tensor.isfinite().all()):
        raise SparsityError(f"{name}={values!r} is not one number per channel: write {name}=[0.5] for grey images")
    return tensor


def _float_type(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
