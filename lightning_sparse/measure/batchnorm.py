"""BatchNorm's running statistics, estimated again for the weights as they are now."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from lightning_sparse.anatomy.isolation import as_it_was, device_of
from lightning_sparse.errors import SparsityError, check_count, check_seed
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier, batches
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.smaller_batches import smaller_batches

RECALIBRATION = (
    10_000  # training images at most: with so many, a mean is uncertain by a hundredth of the standard deviation
)


@smaller_batches
def recalibrate_batchnorm(
    model: nn.Module, data: Data, *, most: int | None = None, batch_size: int = 512, seed: int = 0
) -> bool:
    """Estimate the running means and variances of all BatchNorm layers again, in place.

    Pruning moves the activations, so that averages over the training belong to a different network. This is torch's own
    ``update_bn``: the plain average over batches of each batch's mean and (unbiased) variance, in training mode, dropout
    included; with all images in one batch, their own mean and variance. Batches are random and of nearly equal size: a batch
    of one class varies less than the images do, and a small last batch would count as much as a full one.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`. Only its BatchNorm statistics
            and counters change, and nothing at all if an error is raised.
        data: training images and labels (the labels are not used), without augmentation.
        most: use only the first so many images; None uses all.
        batch_size: images per batch, at least 2; the variance is better the more there are.
        seed: of the order, and of dropout.

    Returns:
        Whether the model has a BatchNorm with running statistics; if not, nothing is done.

    Raises:
        SparsityError: if there are fewer than 2 images, or they are not pixels in [0, 1].

    Example:
        >>> net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
        >>> recalibrate_batchnorm(net, (images, torch.tensor([0, 1])))
        True
        >>> round(net[0].running_mean.item(), 3), round(net[0].running_var.item(), 3)  # 8 numbers, unbiased: 2 / 7
        (0.5, 0.286)
    """
    seed = check_seed(seed)
    check_count("batch_size", batch_size, 2, write=512)
    norms = _norms(model)
    if not norms:
        return False
    images, labels = images_and_labels(data, most)
    check_images(images, labels)
    if len(images) < 2:
        raise SparsityError("data holds 1 image, and a variance needs 2: give 1000 training images or more")
    classifier, device = as_classifier(model), device_of(model)
    momenta = [(norm, norm.momentum) for norm in model.modules() if isinstance(norm, _BatchNorm)]
    try:
        with as_it_was(classifier):
            torch.manual_seed(seed)
            order = torch.randperm(len(images)).to(images.device)
            # No batch of one image, which has no variance: in twos, an odd number of images has one batch of three.
            parts = order.tensor_split(max(1, min(math.ceil(len(images) / batch_size), len(images) // 2)))
            update_bn((next(batches(len(part), device, images[part])) for part in parts), classifier)
            found = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    finally:
        for norm, momentum in momenta:  # update_bn sets them to None
            norm.momentum = momentum
    # as_it_was has restored the old statistics together with the modes and the random states.
    for norm, statistics in zip(norms, found, strict=True):
        for name, buffer in norm.named_buffers():
            buffer.data.copy_(statistics[name])
    return True


def batchnorm_in_words(found: bool, images: int = 0) -> str:
    """Say in words which BatchNorm statistics a model was measured with.

    Args:
        found: whether it has any, as :func:`recalibrate_batchnorm` and :func:`has_batchnorm` say.
        images: the number of training images they were estimated on again; 0 if they are as trained.

    Example:
        >>> batchnorm_in_words(has_batchnorm(nn.BatchNorm1d(3))), batchnorm_in_words(has_batchnorm(nn.ReLU()))
        ('BatchNorm as trained', 'no BatchNorm')
        >>> batchnorm_in_words(True, 1000)
        'BatchNorm statistics estimated anew on 1000 training images'
    """
    if not found:
        return "no BatchNorm"
    return f"BatchNorm statistics estimated anew on {images} training images" if images else "BatchNorm as trained"


def has_batchnorm(model: nn.Module) -> bool:
    """Whether a model has a BatchNorm with running statistics.

    Example:
        >>> has_batchnorm(nn.Sequential(nn.BatchNorm2d(3))), has_batchnorm(nn.BatchNorm2d(3, track_running_stats=False))
        (True, False)
    """
    return bool(_norms(model))


def _norms(model: nn.Module) -> list[_BatchNorm]:
    if not isinstance(model, nn.Module):
        as_classifier(model)  # says what it should be
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
