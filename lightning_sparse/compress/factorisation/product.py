"""Layers in a row whose product stands in the place of one."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Product(nn.Sequential):
    """Linear layers in a row, which others may ask for the weight and the bias of the layer that they stand for.

    Some models read a layer's weight, its type or its device, and do not call the layer.

    Example:
        >>> product = Product(nn.Linear(8, 2, bias=False), nn.Linear(2, 4))
        >>> product.weight.shape, product.bias is product[1].bias
        (torch.Size([4, 8]), True)
    """

    @property
    def weight(self) -> Tensor:
        """The product of the weights, (outputs, inputs)."""
        layers: list[Any] = list(self)
        first, second = layers
        product: Tensor = second.weight @ first.weight
        return product

    @property
    def bias(self) -> nn.Parameter | None:
        """Of the last layer."""
        last: Any = self[-1]
        bias: nn.Parameter | None = last.bias
        return bias
