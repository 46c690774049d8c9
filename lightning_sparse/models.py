"""Small reference networks, and the Lightning module that trains them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.callbacks.lottery_ticket import steps_of_one_training
from lightning_sparse.errors import check_choice

OptimizerFactory = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Classifier(LightningModule):
    """Train a network on images in [0, 1] with cross-entropy; normalisation is its first layer.

    Args:
        net: maps normalised images (n, channels, height, width) to logits (n, classes).
        mean: mean of each channel in units of [0, 1].
        std: standard deviation of each channel, likewise.
        optimizer: makes the optimizer from the parameters; SGD with momentum if None.
        schedule: of the learning rate: ``"cosine"`` (to zero at the end of training) or ``"constant"``.

    Example:
        >>> model = Classifier(lenet_300_100((1, 8, 8), 10), mean=[0.3], std=[0.4])
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        optimizer: OptimizerFactory | None = None,
        schedule: str = "cosine",
    ) -> None:
        super().__init__()
        self.net = net
        self.schedule = check_choice("schedule", schedule, ("cosine", "constant"))
        self._optimizer = optimizer or partial(torch.optim.SGD, lr=0.1, momentum=0.9)
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Images in [0, 1], shape (n, channels, height, width), to logits (n, classes)."""
        logits: Tensor = self.net((images - self.mean) / self.std)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log loss and accuracy of one batch."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val_accuracy", (logits.argmax(1) == labels).float().mean(), batch_size=len(labels), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """The optimizer, and a cosine that ends with the training."""
        optimizer = self._optimizer(self.parameters())
        if self.schedule == "constant":
            return optimizer
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps_of_one_training(self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cosine, "interval": "step"}}


def lenet_300_100(shape: Sequence[int], classes: int) -> nn.Sequential:
    """Two hidden layers of 300 and 100 units: LeCun et al. 1998, the smallest benchmark of the pruning literature."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, classes),
    )


def small_cnn(shape: Sequence[int], classes: int) -> nn.Sequential:
    """Two convolutions with pooling and two linear layers, for 8x8 images and larger; 0.4 M weights at 28x28."""
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * (height // 4) * (width // 4), 128),
        nn.ReLU(),
        nn.Linear(128, classes),
    )


def resnet20(shape: Sequence[int], classes: int) -> nn.Sequential:
    """ResNet-20 for CIFAR: three stages of three blocks, 16 to 64 channels. He et al. 2016 (arXiv 1512.03385)."""
    from torchvision.models.resnet import BasicBlock, conv1x1

    layers: list[nn.Module] = [nn.Conv2d(shape[0], 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    width = 16
    for stage, wider in enumerate((16, 32, 64)):
        for block in range(3):
            stride = 2 if stage and not block else 1
            shortcut = nn.Sequential(conv1x1(width, wider, stride), nn.BatchNorm2d(wider)) if stride > 1 else None
            layers.append(BasicBlock(width, wider, stride, shortcut))
            width = wider
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def resnet18(shape: Sequence[int], classes: int) -> nn.Module:
    """Torchvision's ResNet-18 with the CIFAR stem: a 3x3 convolution of stride 1, and no pooling after it."""
    from torchvision.models import resnet18 as imagenet_resnet18

    net: nn.Module = imagenet_resnet18(num_classes=classes)
    net.conv1 = nn.Conv2d(shape[0], 64, 3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net
