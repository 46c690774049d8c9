"""Small reference networks, each of any width: images (n, channels, height, width) in, logits (n, classes) out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.extras import need

MOST_WIDTH = 10_000.0
MOST_PIXELS = 10**9  # of an image, over all channels: 4 GB


def lenet_300_100(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """LeNet-300-100 (LeCun et al. 1998), two hidden layers of 300 and 100 units: the smallest benchmark used for pruning.

    Args:
        shape: (channels, height, width) of an image.
        classes: number of classes.
        width: factor of the hidden sizes, above 0; each is rounded, and at least 1.

    Raises:
        SparsityError: if ``shape`` is not that of an image large enough for the network, or ``width`` is not above 0.
    """
    check_shape(shape, 1, classes)
    first, second = sizes(width, 300, 100)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(shape[0] * shape[1] * shape[2], first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, classes),
    )


def lenet5(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """LeNet-5 (LeCun et al. 1998) as Merkle et al. 2021 (arXiv 2108.08560) prune it: 61,470 weights at 28x28.

    ReLU after the convolutions, max pooling, tanh after the linear layers, Glorot's uniform initial weights. Arguments as
    in :func:`lenet_300_100`; ``width`` scales channels and units.
    """
    check_shape(shape, 12, classes)
    first, second, third, fourth = sizes(width, 6, 16, 120, 84)
    rest = ((shape[1] // 2) - 4) // 2 * (((shape[2] // 2) - 4) // 2)
    net = nn.Sequential(
        nn.Conv2d(shape[0], first, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * rest, third),
        nn.Tanh(),
        nn.Linear(third, fourth),
        nn.Tanh(),
        nn.Linear(fourth, classes),
    )
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return net


def lenet5_caffe(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """The LeNet-5 of Caffe, which Deep Compression (Han et al. 2016, arXiv 1510.00149) is shown on: 431,080 weights at 28x28.

    Two convolutions of 20 and 50 channels without padding, a max pooling after each and no nonlinearity, 500 ReLU units.
    Arguments as in :func:`lenet_300_100`; ``width`` scales channels and units.
    """
    check_shape(shape, 16, classes)
    first, second, third = sizes(width, 20, 50, 500)
    rest = ((shape[1] - 4) // 2 - 4) // 2 * (((shape[2] - 4) // 2 - 4) // 2)
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * rest, third),
        nn.ReLU(),
        nn.Linear(third, classes),
    )


def small_cnn(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """Two convolutions with pooling and two linear layers, for images of at least 4x4; 0.4 M weights at 28x28.

    Arguments as in :func:`lenet_300_100`; ``width`` scales channels and units.
    """
    check_shape(shape, 4, classes)
    first, second, third = sizes(width, 32, 64, 128)
    return nn.Sequential(
        nn.Conv2d(shape[0], first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (shape[1] // 4) * (shape[2] // 4), third),
        nn.ReLU(),
        nn.Linear(third, classes),
    )


def strided_cnn(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """:func:`small_cnn` whose convolutions take every second pixel in place of pooling: the same parameters, no pooling.

    Arguments as in :func:`lenet_300_100`; ``width`` scales channels and units.
    """
    check_shape(shape, 4, classes)
    first, second, third = sizes(width, 32, 64, 128)
    return nn.Sequential(
        _halving(shape[0], first, shape[1], shape[2]),
        nn.ReLU(),
        _halving(first, second, shape[1] // 2, shape[2] // 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(second * (shape[1] // 4) * (shape[2] // 4), third),
        nn.ReLU(),
        nn.Linear(third, classes),
    )


def _halving(channels: int, filters: int, height: int, width: int) -> nn.Conv2d:
    """A 3x3 convolution of stride 2 whose map has half the height and width, rounded down, as after a pooling."""
    return nn.Conv2d(channels, filters, 3, stride=2, padding=(1 - height % 2, 1 - width % 2))


def resnet20(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """ResNet-20 for CIFAR (He et al. 2016, arXiv 1512.03385): three stages of three blocks, 16 to 64 channels.

    Arguments as in :func:`lenet_300_100`; ``width`` scales the channels.
    """
    return _resnet(shape, classes, width, 3)


def resnet56(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Sequential:
    """ResNet-56 for CIFAR (He et al. 2016, arXiv 1512.03385): :func:`resnet20` in stages of nine; 0.85 M weights."""
    return _resnet(shape, classes, width, 9)


def _resnet(shape: Sequence[int], classes: int, width: float, blocks: int) -> nn.Sequential:
    resnet = need("torchvision.models.resnet")
    check_shape(shape, 1, classes)
    stages = sizes(width, 16, 32, 64)
    before = stages[0]
    layers: list[nn.Module] = [nn.Conv2d(shape[0], before, 3, padding=1, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
    for stage, channels in enumerate(stages):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            shortcut = None
            if stride > 1:
                shortcut = nn.Sequential(resnet.conv1x1(before, channels, stride), nn.BatchNorm2d(channels))
            layers.append(resnet.BasicBlock(before, channels, stride, shortcut))
            before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))


def resnet18(shape: Sequence[int], classes: int, width: float = 1.0) -> nn.Module:
    """Torchvision's ResNet-18 with the CIFAR stem: a 3x3 convolution of stride 1, and no pooling after it.

    Arguments as in :func:`lenet_300_100`; ``width`` scales the channels.
    """
    check_shape(shape, 1, classes)
    stages = sizes(width, 64, 128, 256, 512)
    net: Any = need("torchvision.models").resnet18(num_classes=classes)
    if stages != [64, 128, 256, 512]:
        _rebuild(net, stages, classes)
    net.conv1 = nn.Conv2d(shape[0], stages[0], 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net  # type: ignore[no-any-return]


def _rebuild(net: Any, stages: Sequence[int], classes: int) -> None:
    """Give torchvision's ResNet other numbers of channels, for which it has no argument, and initial weights as it does."""
    block = need("torchvision.models.resnet").BasicBlock
    net.inplanes = stages[0]
    net.bn1 = nn.BatchNorm2d(stages[0])
    for number, channels in enumerate(stages, start=1):
        setattr(net, f"layer{number}", net._make_layer(block, channels, 2, stride=1 if number == 1 else 2))
    net.fc = nn.Linear(stages[-1], classes)
    as_he_does(net)


def as_he_does(net: nn.Module) -> None:
    """Draw the initial weights of all convolutions with a variance of 2 / fan-out (He et al. 2015, arXiv 1502.01852).

    Example:
        >>> net = nn.Conv2d(8, 200, 3)
        >>> as_he_does(net)
        >>> round(float(net.weight.detach().var() * 200 * 9), 1)
        2.0
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def check_shape(shape: Sequence[int], smallest: int, classes: int) -> None:
    """Refuse what is not (channels, height, width) of images large enough, and no number of classes."""
    check_count("classes", classes, most=1_000_000, write=10)
    found = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str | bytes) else []
    whole = all(isinstance(size, int) and not isinstance(size, bool) and size >= 1 for size in found)
    if len(found) != 3 or not whole or min(found[1:]) < smallest or math.prod(found) > MOST_PIXELS:
        raise SparsityError(
            f"shape={shape!r} is not (channels, height, width) of images of at least {smallest}x{smallest} pixels: "
            "write shape=(1, 28, 28) for MNIST, model.net.shape=[1,28,28] on the command line"
        )


def sizes(width: float, *usual: int) -> list[int]:
    """The usual numbers of hidden units or channels times ``width``, rounded, at least 1."""
    if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width < float("inf"):
        raise SparsityError(f"width={width!r} is not a factor above 0: write 0.5 to halve every hidden size")
    if width > MOST_WIDTH:
        raise SparsityError(
            f"width={width!r} is more than {MOST_WIDTH:g} times the network's own: write 2.0 to double it"
        )
    return [max(1, round(width * size)) for size in usual]
