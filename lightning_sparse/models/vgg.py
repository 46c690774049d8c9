"""VGG for images of CIFAR's size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_sparse.models.networks import as_he_does, check_shape, sizes

_BLOCKS = (2, 2, 3, 3, 3)  # convolutions before each pooling


def vgg16(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """VGG-16 with BatchNorm in the form that CIFAR is trained with, for images of at least 32x32; 14.7 M weights.

    The thirteen convolutions of Simonyan & Zisserman (2015, arXiv 1409.1556), each with BatchNorm in place of a bias, and one
    linear layer of 512 inputs in place of their three. Arguments as in :func:`lenet_300_100`; ``width`` scales the channels.

    Example:
        >>> net = vgg16((3, 32, 32), 10)
        >>> round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 2)
        14.72
    """
    check_shape(shape, 32, classes)
    before = shape[0]
    layers: list[nn.Module] = []
    for convolutions, channels in zip(_BLOCKS, sizes(width, 64, 128, 256, 512, 512), strict=True):
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    as_he_does(net)
    return net
