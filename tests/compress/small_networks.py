"""Small networks to compress, and one that is trained."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def convolutional() -> nn.Sequential:
    """Convolutions, BatchNorm with a buffer of integers, a linear layer."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, 10),
    )
    net(torch.rand(16, 1, 8, 8))  # moves the averages
    return net


def digits() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Images (n, 1, 8, 8) and labels, to train on and to test on."""
    images, labels = load_digits(return_X_y=True)
    pixels, truth = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8), torch.tensor(labels)
    return (pixels[:1300], truth[:1300]), (pixels[1300:], truth[1300:])


def trained() -> nn.Sequential:
    """A multilayer perceptron, trained for a second."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 100), nn.ReLU(), nn.Linear(100, 10))
    (images, labels), _ = digits()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(8):
        for some in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images[some]), labels[some]).backward()
            optimizer.step()
    return net


def accuracy(net: nn.Module) -> float:
    """On the test images."""
    _, (images, labels) = digits()
    with torch.no_grad():
        return (net.eval()(images).argmax(1) == labels).float().mean().item()
