"""What it costs to keep dead weights at zero: the pass over the weights alone, and a whole training step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import Table, milliseconds, race, ratio
from steps import lenet, residual, step_of, transformer
from torch import nn
from torch.nn.utils import prune

from lightning_sparse import Curve, Masks, Recipe, attach, sparsifiable
from lightning_sparse.engine.keeper import Keeper


class Still(torch.optim.Optimizer):
    """An optimizer that does nothing, so that its step is the step hook alone."""

    def __init__(self, net: nn.Module, hook: Callable[[], None] | None = None) -> None:
        super().__init__(net.parameters(), {})
        if hook:
            self.register_step_post_hook(lambda *_: hook())

    def step(self, closure: None = None) -> None:
        """Leave everything as it is."""


def the_pass(name: str, net: nn.Module, rounds: int, repeat: int) -> None:
    weights = {name: weight.detach() for name, weight in sparsifiable(net).items()}
    copies = [{name: torch.empty_like(weight) for name, weight in weights.items()} for _ in range(2)]

    def copy(into: dict[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            into[name].copy_(weight)

    engine_of = Still(net)
    wide = Keeper(Masks(attach(engine_of, net, Recipe(Curve(0.9))).masks), weights, {}).zero_dead
    passes = {
        "copy": Still(net, lambda: copy(copies[0])),
        "copy again": Still(net, lambda: copy(copies[1])),
        "masks": engine_of,
        "wide": Still(net, wide),
    }
    times = race({kind: lambda still=still: still.step for kind, still in passes.items()}, rounds, repeat)
    table = Table(
        f"Mask pass, {name}: ratio to `copy_` of the same floats ({milliseconds(times, 'copy'):.3g} ms)",
        ratio(times, "copy again", "copy"),
    )
    table.add("what follows a step that changes no mask", ratio(times, "masks", "copy"), 1.15)
    table.add("the same with masks as wide as the weights", ratio(times, "wide", "copy"))
    table.show()


# So low a rate that the weights hardly move: a network that has learned its one batch by heart computes with denormals.
OPTIMIZERS = {
    "SGD, momentum and weight decay": lambda p: torch.optim.SGD(p, lr=1e-6, momentum=0.9, weight_decay=5e-4),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-6),
}


def the_step(name: str, bound: float) -> None:
    def made(kind: str):
        model, inputs = lenet()
        optimizer = OPTIMIZERS[name](model.parameters())
        if kind == "masks":
            attach(optimizer, model, Recipe(Curve(0.9)))
        if kind == "torch prune":
            layers = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
            prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.9)
            optimizer = OPTIMIZERS[name](model.parameters())
        step = step_of(model, optimizer, inputs)
        return lambda: step

    times = race({kind: made(kind) for kind in ("dense", "dense again", "masks", "torch prune")}, rounds=200, repeat=5)
    table = Table(
        f"Training step of LeNet-300-100, batch 128, {name}: ratio to dense ({milliseconds(times, 'dense'):.3g} ms)",
        ratio(times, "dense again", "dense"),
    )
    table.add("this library", ratio(times, "masks", "dense"), bound)
    table.add("`torch.nn.utils.prune`", ratio(times, "torch prune", "dense"))
    table.show()


if __name__ == "__main__":
    the_pass("LeNet-300-100", lenet()[0], rounds=200, repeat=20)
    the_pass("transformer", transformer()[0], rounds=200, repeat=5)
    the_pass("ResNet-18", residual()[0], rounds=100, repeat=1)
    the_step("SGD, momentum and weight decay", 1.06)
    the_step("Adam", 1.07)
