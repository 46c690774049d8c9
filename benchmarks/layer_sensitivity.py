"""The sensitivity of layers: what it saves to compute once what comes before the layer that is pruned."""

from __future__ import annotations

import torch
from harness import Table, milliseconds, race, ratio
from torch import nn

from lightning_sparse import allocate, sparsifiable
from lightning_sparse.measure import measure_accuracy, measure_sensitivity_of_layers
from lightning_sparse.models import lenet_300_100, resnet20

SPARSITIES = (0.9,)


def naively(net: nn.Module, data: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The same networks on the same images, each in a pass of its own."""
    weights = sparsifiable(net)
    measure_accuracy(net, data, batch_size=128)
    for names in [*([name] for name in weights), list(weights)]:
        for sparsity in SPARSITIES:
            saved = {name: weights[name].detach().clone() for name in names}
            for name in names:
                weights[name].data.mul_(allocate({name: weights[name]}, sparsity)[name])
            measure_accuracy(net, data, batch_size=128)
            for name, before in saved.items():
                weights[name].data.copy_(before)


def measure(name: str, net: nn.Module, images: int, rounds: int, bound: float | None = None) -> None:
    data = torch.rand(images, 1, 28, 28), torch.arange(images) % 10

    def ours() -> None:
        measure_sensitivity_of_layers(net, data, sparsities=SPARSITIES)

    def naive() -> None:
        naively(net, data)

    times = race({"naive": lambda: naive, "naive again": lambda: naive, "ours": lambda: ours}, rounds)
    layers = len(sparsifiable(net))
    table = Table(
        f"Sensitivity of layers, {name}: {layers} layers at one sparsity, {images} images; ratio to "
        f"a pass for each ({milliseconds(times, 'naive') / 1e3:.3g} s)",
        ratio(times, "naive again", "naive"),
    )
    table.add("`measure_sensitivity_of_layers`", ratio(times, "ours", "naive"), bound)
    table.show()


if __name__ == "__main__":
    torch.manual_seed(0)
    measure("ResNet-20", resnet20((1, 28, 28), 10), 512, 3, 0.55)
    measure("LeNet-300-100", lenet_300_100((1, 28, 28), 10), 2048, 7)  # its first layer is nine tenths of it
