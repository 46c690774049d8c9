"""What weights of few values cost while they are trained: an epoch on grids, with a codebook, and with torchao's QAT."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from harness import Table, milliseconds, race, ratio
from torch import nn
from torch.nn import functional as F

from lightning_sparse import sparsifiable
from lightning_sparse.compress.quantised_weights import QuantisedWeights
from lightning_sparse.compress.shared_weights import SharedWeights

ROUNDS, BATCHES, SIZE = 7, 100, 128


def network() -> nn.Sequential:
    """LeNet-300-100."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))


def epoch(change: Callable[[nn.Module, torch.optim.Optimizer], object]) -> Callable[[], None]:
    """An epoch of SGD on noise, after what is done to the network."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    change(model, optimizer)
    images, labels = torch.randn(SIZE, 784), torch.arange(SIZE) % 10

    def run() -> None:
        for _ in range(BATCHES):
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()

    return run


def hold(weights: QuantisedWeights | SharedWeights, optimizer: torch.optim.Optimizer) -> None:
    weights.install([optimizer])
    weights.begin()


def torchao(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, quantize_
    from torchao.quantization.qat import QATConfig

    base = IntxWeightOnlyConfig(weight_dtype=torch.int2, granularity=PerAxis(0))
    quantize_(model, QATConfig(base, step="prepare"))
    optimizer.param_groups[0]["params"] = list(model.parameters())


def main() -> None:
    warnings.simplefilter("ignore")
    changes: dict[str, Callable[[nn.Module, torch.optim.Optimizer], object]] = {
        "plain": lambda model, optimizer: None,
        "again": lambda model, optimizer: None,
        "tensor": lambda model, optimizer: hold(QuantisedWeights(sparsifiable(model), 4), optimizer),
        "row": lambda model, optimizer: hold(QuantisedWeights(sparsifiable(model), 4, per="row"), optimizer),
        "share": lambda model, optimizer: hold(SharedWeights(sparsifiable(model), 16), optimizer),
        "torchao": torchao,
    }
    times = race({name: (lambda change=change: epoch(change)) for name, change in changes.items()}, ROUNDS)
    title = (
        f"An epoch of LeNet-300-100 ({BATCHES} batches of {SIZE}) with weights of few values: ratio to plain "
        f"({milliseconds(times, 'plain'):.0f} ms)"
    )
    table = Table(title, ratio(times, "again", "plain"))
    table.add("`Quantise(2)`", ratio(times, "tensor", "plain"))
    table.add('`Quantise(2, per="row")`', ratio(times, "row", "plain"))
    table.add("`Share(4)`", ratio(times, "share", "plain"))
    table.add("torchao's QAT, 2 bits by row", ratio(times, "torchao", "plain"))
    table.show()


if __name__ == "__main__":
    main()
