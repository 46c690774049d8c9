"""Networks at random, of the layers that channels pass through, with rows, columns and biases of zero."""

import torch
from torch import nn


class Sum(nn.Module):
    """A block beside its input, which is projected where the widths differ."""

    def __init__(self, block, shortcut):
        super().__init__()
        self.block, self.shortcut = block, shortcut

    def forward(self, x):
        return torch.relu(self.block(x) + self.shortcut(x))


class Side(nn.Module):
    """Two blocks of one input, concatenated."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return torch.cat([self.one(x), self.other(x)], 1)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width):
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Net(nn.Module):
    """Images of 3 x 8 x 8 to three numbers."""

    def __init__(self, draw):
        super().__init__()
        blocks, width, side = [], 3, 8
        for _ in range(draw.randint(1, 4)):
            block, width, side = a_block(draw, width, side)
            blocks.append(block)
        self.maps = nn.Sequential(*blocks)
        flat = draw.random() < 0.5
        self.pool = nn.Flatten() if flat else nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        wide, hidden = width * side * side if flat else width, draw.randint(2, 6)
        self.head = nn.Sequential(nn.Linear(wide, hidden), activation(draw), nn.Linear(hidden, 3))

    def forward(self, x):
        return self.head(self.pool(self.maps(x)))


def activation(draw):
    return draw.choice([nn.ReLU, nn.GELU, nn.Tanh, nn.Hardswish, nn.Identity])()


def norm(draw, width):
    kinds = [
        nn.Identity(),
        nn.BatchNorm2d(width),
        nn.BatchNorm2d(width, affine=False),
        nn.InstanceNorm2d(width, affine=True),
        nn.PReLU(width),
    ]
    return draw.choices(kinds, [2, 6, 1, 1, 1])[0]


def conv(draw, inputs, outputs):
    size = draw.choice([1, 3])
    padding_mode = draw.choice(["zeros", "zeros", "circular", "replicate"])
    groups = draw.choice([g for g in (1, 1, 2, 4) if inputs % g == 0 and outputs % g == 0])
    bias = draw.random() < 0.6
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode=padding_mode, groups=groups, bias=bias)


def plain(draw, inputs, outputs):
    return nn.Sequential(conv(draw, inputs, outputs), norm(draw, outputs), activation(draw))


def a_block(draw, width, side):
    kind = draw.choice(["plain", "sum", "side", "depthwise", "gate", "up", "border", "pool"])
    outputs = draw.choice([4, 6, 8])
    if kind == "sum":
        block = nn.Sequential(plain(draw, width, outputs), conv(draw, outputs, outputs), norm(draw, outputs))
        return Sum(block, nn.Identity() if width == outputs else nn.Conv2d(width, outputs, 1)), outputs, side
    if kind == "side":
        other = draw.choice([4, 6])
        return Side(plain(draw, width, outputs), plain(draw, width, other)), outputs + other, side
    if kind == "depthwise":
        deep = nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=draw.random() < 0.5)
        if width == outputs:
            return Sum(nn.Sequential(deep, norm(draw, outputs)), nn.Identity()), outputs, side
        return nn.Sequential(plain(draw, width, outputs), deep, norm(draw, outputs), activation(draw)), outputs, side
    if kind == "gate":
        return nn.Sequential(plain(draw, width, outputs), Gate(outputs)), outputs, side
    if kind == "up" and side <= 8:
        up = nn.ConvTranspose2d(width, outputs, 2, 2, groups=2 if width % 2 == 0 and draw.random() < 0.5 else 1)
        return nn.Sequential(up, norm(draw, outputs), activation(draw)), outputs, side * 2
    if kind == "border" and side > 2:
        valid = nn.Conv2d(width, outputs, 3, bias=draw.random() < 0.5)
        return nn.Sequential(valid, norm(draw, outputs), activation(draw)), outputs, side - 2
    if kind == "pool" and side >= 4:
        pool = draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2)])
        return nn.Sequential(plain(draw, width, outputs), pool), outputs, side // 2
    return plain(draw, width, outputs), outputs, side


def kill(model, draw, share):
    """Set rows, columns and biases of layers to zero."""
    source = torch.Generator().manual_seed(draw.randrange(2**31))

    def some(count, share):
        return torch.rand(count, generator=source) < share

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.copy_(torch.randn(module.num_features, generator=source) / 5)
                module.running_var.copy_(torch.rand(module.num_features, generator=source) + 0.5)
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.affine:
                module.weight.copy_(torch.rand(module.num_features, generator=source) + 0.5)
                module.bias.copy_(torch.randn(module.num_features, generator=source) / 5)
                module.bias[some(module.num_features, 0.5)] = 0
                module.weight[some(module.num_features, 0.2)] = 0
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                dead = some(module.weight.shape[0], share)
                module.weight[dead] = 0
                module.weight[:, some(module.weight.shape[1], share / 2)] = 0
                if module.bias is not None and len(module.bias) == len(dead):
                    module.bias[dead & some(len(dead), 0.5)] = 0
