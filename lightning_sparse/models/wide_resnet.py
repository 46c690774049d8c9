"""Wide residual networks for images of CIFAR's size."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.models.networks import as_he_does, check_shape, sizes


class WideBlock(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution, twice, added to what comes in; a 1x1 convolution where the shape changes."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.relu1 = nn.BatchNorm2d(before), nn.ReLU()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, padding=1, bias=False)
        self.norm2, self.relu2 = nn.BatchNorm2d(channels), nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride > 1 or before != channels:
            self.shortcut = nn.Conv2d(before, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, before, height, width) to (n, channels, height / stride, width / stride)."""
        y = self.relu1(self.norm1(x))
        kept = x if self.shortcut is None else self.shortcut(y)
        found: Tensor = kept + self.conv2(self.relu2(self.norm2(self.conv1(y))))
        return found


def wide_resnet(
    shape: Sequence[int], classes: int, width: float = 1.0, *, depth: int = 22, widen: int = 2
) -> nn.Sequential:
    """WRN-depth-widen (Zagoruyko & Komodakis 2016, arXiv 1605.07146): 1.1 M weights as WRN-22-2, 5.8 M as WRN-28-4.

    Args:
        shape: (channels, height, width) of an image.
        classes: number of classes.
        width: factor of all channels, above 0, for a narrower network of the same kind; each is rounded, and at least 1.
        depth: 4 more than a multiple of 6: three stages of (depth - 4) / 6 blocks.
        widen: the stages have 16, 32 and 64 channels times this.

    Example:
        >>> net = wide_resnet((3, 32, 32), 10, depth=28, widen=4)
        >>> round(sum(parameter.numel() for parameter in net.parameters()) / 1e6, 2)
        5.85
    """
    check_shape(shape, 1, classes)
    check_count("widen", widen, most=100, write=2)
    if (check_count("depth", depth, 10, most=1000, write=22) - 4) % 6:
        raise SparsityError(f"depth={depth} is not 4 more than a multiple of 6: write 16, 22, 28 or 40")
    before, *stages = sizes(width, 16, 16 * widen, 32 * widen, 64 * widen)
    layers: list[nn.Module] = [nn.Conv2d(shape[0], before, 3, padding=1, bias=False)]
    for stage, channels in enumerate(stages):
        for block in range((depth - 4) // 6):
            layers.append(WideBlock(before, channels, 2 if stage and not block else 1))
            before = channels
    end = (nn.BatchNorm2d(before), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    net = nn.Sequential(*layers, *end)
    as_he_does(net)
    return net
