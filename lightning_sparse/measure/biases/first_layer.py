"""The first layer of a network, if it is fully connected to the pixels, as one filter for each unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.first_tensor import first_tensor
from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.anatomy.layers import is_conv1d, is_layer
from lightning_sparse.measure.classifier import PixelClassifier


@dataclass(frozen=True)
class FirstLayer:
    """The filters of a fully connected first layer.

    Attributes:
        name: of its weight.
        module: the layer.
        filters: (units, channels, height, width), float64 on the CPU, one weight for each pixel.
        living: where a connection lives, likewise.
    """

    name: str
    module: nn.Module
    filters: Tensor
    living: Tensor


def first_layer(classifier: PixelClassifier, images: Tensor, masks: Mapping[str, Tensor] | None) -> FirstLayer | str:
    """Find the layer that a forward pass calls first, or say why its connections have no places in the image.

    Whether its input i is pixel i is tried, because a model may reorder, mix or crop the pixels before: one image for each
    binary digit of a pixel's number, in which the pixels with that digit set are lighter than in the others.

    Args:
        classifier: inside ``untouched``, with compiled modules run eagerly.
        images: (n, channels, height, width); only their shape is read.
        masks: as in :func:`~lightning_sparse.measure.measure_biases`; a weight without one is dense.
    """
    shape = images.shape[1:]
    numbers = torch.arange(shape.numel())
    digits = [numbers >> digit & 1 == 1 for digit in range(max(1, (shape.numel() - 1).bit_length()))]
    lighter = torch.stack([torch.zeros_like(numbers, dtype=torch.bool), *digits])
    found = _first_call(classifier, (0.25 + 0.5 * lighter).view(-1, *shape).to(device_of(classifier)))
    if found is None:
        return "not applicable: no Linear layer or convolution was called"
    path, module, given = found
    name = f"{path}.weight".lstrip(".")
    if isinstance(module, _ConvNd):
        return f"not applicable: the first layer, {name!r}, is a convolution, which is local and shared by construction"
    if given.shape != lighter.shape or not torch.equal((given != given[0]).cpu(), lighter):
        return (
            f"not applicable: the first layer, {name!r}, does not read the pixels of an image, each once and in order"
        )
    weight: Any = module.weight
    alive = weight != 0 if masks is None else masks.get(name, torch.ones_like(weight, dtype=torch.bool))
    turned = [(tensor.mT if is_conv1d(module) else tensor).detach().cpu() for tensor in (weight, alive)]
    filters, living = (tensor.reshape(-1, *shape) for tensor in turned)
    return FirstLayer(name, module, filters.double() * living, living)


def _first_call(classifier: PixelClassifier, images: Tensor) -> tuple[str, nn.Module, Tensor] | None:
    """Path, module and input of the layer called first."""
    calls: list[tuple[str, nn.Module, Tensor]] = []
    paths = {module: path for path, module in classifier.model.named_modules() if is_layer(module)}

    def keep(module: nn.Module, given: Any) -> None:
        tensor = first_tensor(given)
        if not calls and tensor is not None:
            calls.append((paths[module], module, tensor.detach().clone()))

    handles = [module.register_forward_pre_hook(keep) for module in paths]
    try:
        with torch.no_grad():
            classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    return calls[0] if calls else None
