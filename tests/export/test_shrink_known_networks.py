"""Networks that people know lose what is dead, and their outputs stay."""

import pytest
import torch
from torch import nn

from export.smaller_network import assert_same, parameters
from lightning_sparse.export import shrink
from lightning_sparse.models import resnet20

pytest.importorskip("torch_pruning")


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up, self.join, self.out = (
            nn.ConvTranspose2d(16, 8, 2, 2),
            nn.Conv2d(16, 8, 3, padding=1),
            nn.Conv2d(8, 2, 1),
        )

    def forward(self, x):
        x = self.down(x)
        deep = self.deep(nn.functional.max_pool2d(x, 2))
        return self.out(torch.relu(self.join(torch.cat([x, self.up(deep)], 1))))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.lstm, self.last = nn.Linear(3 * 8, 16), nn.LSTM(16, 12, batch_first=True), nn.Linear(12, 5)

    def forward(self, x):
        return self.last(self.lstm(torch.relu(self.first(x.transpose(1, 2).flatten(2))))[0][:, -1])


def known(name):
    if name in ("ResNet-20", "U-Net", "LSTM"):
        return {"ResNet-20": lambda: resnet20((3, 8, 8), 5), "U-Net": UNet, "LSTM": Recurrent}[name](), 8
    if name in ("ViT", "Swin", "ConvNeXt"):
        timm = pytest.importorskip("timm")
        if name == "ViT":
            return timm.create_model("vit_tiny_patch16_224", img_size=16, patch_size=8, depth=2, num_classes=5), 16
        if name == "Swin":
            widths = {"img_size": 32, "window_size": 4, "depths": (1, 1), "num_heads": (3, 6)}
            return timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **widths), 32
        return timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=5), 32
    models = pytest.importorskip("torchvision").models
    if name == "VGG":
        net = models.vgg11_bn(num_classes=5)
        net.avgpool, net.classifier = nn.Identity(), nn.Linear(512, 5)
        return net, 32
    return {
        "ResNet-18": lambda: models.resnet18(num_classes=5),
        "WRN": lambda: models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, width_per_group=128),
        "ResNeXt": lambda: models.ResNet(
            models.resnet.Bottleneck, [1, 1, 1, 1], num_classes=5, groups=32, width_per_group=4
        ),
        "MobileNetV3": lambda: models.mobilenet_v3_small(num_classes=5),
        "DenseNet": lambda: models.DenseNet(8, (2, 2, 2, 2), 16, num_classes=5),
        "torchvision's ViT": lambda: models.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=5),
    }[name](), 32


# The largest share of parameters that is left where half of all rows are zero, biases and shifts with them.
KNOWN = {
    "ResNet-18": 0.75,
    "ResNet-20": 0.8,
    "WRN": 0.8,
    "ResNeXt": 0.95,
    "VGG": 0.4,
    "MobileNetV3": 0.8,
    "DenseNet": 0.75,
    "ViT": 0.75,
    "Swin": 0.8,
    "ConvNeXt": 0.65,
    "torchvision's ViT": 0.95,
    "LSTM": 0.8,
    "U-Net": 0.6,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_networks_with_random_masks(name):
    torch.manual_seed(0)
    net, side = known(name)
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd | nn.modules.batchnorm._BatchNorm):
                layer.weight.copy_(torch.randn(layer.weight.shape) / layer.weight[0].numel() ** 0.5)
                axis = 1 if getattr(layer, "transposed", False) else 0
                dead = torch.rand(layer.weight.shape[axis]) < 0.5
                if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                    layer.bias.zero_()
                    continue
                layer.weight.movedim(axis, 0)[dead] = 0
                if layer.bias is not None:
                    layer.bias[dead] = 0
    shrunk = shrink(net, torch.randn(1, 3, side, side))
    assert parameters(shrunk.model) < KNOWN[name] * parameters(net)
    assert_same(net, shrunk.model, torch.randn(2, 3, side, side), 2)
