"""What goes into a network's layers: the means and covariances of their inputs over images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.anatomy.layers import is_layer
from lightning_sparse.measure.classifier import batches

BATCH = 64  # images: the patches of a convolution are many times their input


@dataclass
class Inputs:
    """The inputs of one layer: of a convolution its patches, with one entry for each group of channels.

    Attributes:
        first: (groups, inputs), the first one, from which the others are counted, so that what never varies has no variance.
        total: (groups, inputs), the sum.
        squares: (groups, inputs, inputs), the sum of products.
        count: how many there were.
    """

    first: Tensor
    total: Tensor
    squares: Tensor
    count: int = 0

    def add(self, rows: Tensor) -> None:
        """Take in more, (groups, n, inputs)."""
        apart = rows - self.first[:, None]
        self.total += apart.sum(1)
        self.squares += apart.mT @ apart
        self.count += rows.shape[1]

    @property
    def covariance(self) -> Tensor:
        """(groups, inputs, inputs); exactly zero for inputs that do not vary, or by no more than rounding."""
        mean = self.total / self.count
        found = self.squares / self.count - mean[:, :, None] * mean[:, None]
        varies = found.diagonal(dim1=1, dim2=2) > 1e-12 * (self.first + mean).square()
        return found * varies[:, :, None] * varies[:, None]

    @property
    def moment(self) -> Tensor:
        """(groups, inputs, inputs): the mean of the products of two inputs."""
        mean = self.first + self.total / self.count
        return self.covariance + mean[:, :, None] * mean[:, None]


def inputs_of(model: nn.Module, layers: Mapping[str, nn.Module], images: Tensor) -> dict[str, Inputs]:
    """Run the model, and gather the inputs of those layers that it calls, on the CPU, in float64.

    Call it inside ``untouched``, without gradients.

    Example:
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> found = inputs_of(net, {"1": net[1]}, torch.eye(4).view(4, 1, 2, 2))["1"]
        >>> found.moment[0].diagonal().tolist(), found.count
        ([0.25, 0.25, 0.25, 0.25], 4)
    """
    found: dict[str, Inputs] = {}
    names = {layer: name for name, layer in layers.items()}

    def look(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        rows = rows_of(layer, args[0] if args else kwargs["input"]).to("cpu", torch.float64)
        if names[layer] not in found:
            groups, _, size = rows.shape
            found[names[layer]] = Inputs(rows[:, 0], rows.new_zeros(groups, size), rows.new_zeros(groups, size, size))
        found[names[layer]].add(rows)

    with _looking(layers.values(), look):
        for (pixels,) in batches(BATCH, device_of(model), images):
            model(pixels)
    return found


def hidden_layers(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """The Linear and Conv2d layers that the model calls, by name, in the order of their calls, but for the output layer.

    That is the one called last. Call it inside ``untouched``, without gradients.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 10))
        >>> list(hidden_layers(net, torch.rand(2, 1, 8, 8)))
        ['0', '2']
    """
    layers = {module: name for name, module in model.named_modules() if is_layer(module)}
    called: list[nn.Module] = []
    with _looking(layers, lambda layer, *_: called.append(layer)):
        for (pixels,) in batches(1, device_of(model), images[:1]):
            model(pixels)
    return {
        layers[layer]: layer
        for layer in dict.fromkeys(called)
        if layer is not called[-1] and type(layer) in (nn.Linear, nn.Conv2d) and "weight" in layer._parameters
    }


def rows_of(layer: Any, given: Tensor) -> Tensor:
    """What each row of a layer's weight is multiplied with: (groups, n, inputs of a group).

    Example:
        >>> conv = nn.Conv2d(4, 6, 3, groups=2)
        >>> rows = rows_of(conv, torch.rand(5, 4, 8, 8))
        >>> rows.shape, matrix_of(conv, conv.weight).shape  # 5 * 36 patches, and 3 rows of 2 * 9 weights in each group
        (torch.Size([2, 180, 18]), torch.Size([2, 3, 18]))
    """
    if isinstance(layer, nn.Linear):
        return given.flatten(0, -2)[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(given.view(-1, *given.shape[-3:]), layer._reversed_padding_repeated_twice, mode=mode)
    patches = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)
    images, size, places = patches.shape
    apart = patches.view(images, layer.groups, size // layer.groups, places)
    return apart.permute(1, 0, 3, 2).flatten(1, 2)


def matrix_of(layer: Any, weight: Tensor) -> Tensor:
    """A layer's weight as one matrix for each group: (groups, outputs of a group, inputs of a group)."""
    groups: int = getattr(layer, "groups", 1)
    return weight.detach().reshape(groups, len(weight) // groups, -1)


@contextmanager
def _looking(layers: Any, look: Any) -> Iterator[None]:
    """Call ``look`` after each call of a layer, which need not be as torch compiled it."""
    handles = [layer.register_forward_hook(look, with_kwargs=True) for layer in layers]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for handle in handles:
            handle.remove()
