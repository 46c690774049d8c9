"""Network: two convolutions and a linear layer."""

from torch import nn


def simple_conv_net(width: int = 16) -> nn.Sequential:
    """Build a network for 8x8 images of one channel.

    Args:
        width: channels of the first convolution.
    """
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * width, 10),
    )
