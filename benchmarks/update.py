"""What a mask update costs: ResNet-18 from dense to 90 % sparse, compared with torch's own pruning, and smaller updates."""

from __future__ import annotations

import copy

import torch
from harness import Table, milliseconds, race, ratio
from steps import residual, step_of
from torch import nn
from torch.nn.utils import prune

from lightning_sparse import Curve, Engine, Recipe, sparsifiable

net, images = residual()
optimizer = torch.optim.SGD(net.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4)
step = step_of(net, optimizer, images)
step()
gradients = {name: weight.grad.clone() for name, weight in sparsifiable(net).items()}


def pull(layer):
    return gradients[layer.name].abs()


def pruned():
    theirs = copy.deepcopy(net)
    layers = [(module, "weight") for module in theirs.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return lambda: prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=0.9)


def updated(before: float, after: float, turnover: float = 0.0):
    """One update of a copy of the network, from sparsity ``before`` to ``after``."""
    ours = copy.deepcopy(net)
    started = Engine(sparsifiable(ours), Recipe(Curve(before)))
    started.birth()
    recipe = Recipe(Curve(after), Curve(turnover), grow=pull, every=1)
    engine = Engine(sparsifiable(ours), recipe)
    engine.masks = started.masks
    trainer = torch.optim.SGD(ours.parameters(), lr=1e-6, momentum=0.9)
    engine.install([trainer])
    if turnover:  # turnover is due only after a step
        for weight in ours.parameters():
            weight.grad = torch.zeros_like(weight)
        trainer.step()

    def update() -> None:
        engine.update()
        total = engine.masks.total
        assert total - engine.masks.living == round(after * total)

    return update


if __name__ == "__main__":
    times = race(
        {
            "step": lambda: step,
            "step again": lambda: step,
            "torch prune": pruned,
            "0 to 0.9": lambda: updated(0.0, 0.9),
            "0.8 to 0.82": lambda: updated(0.8, 0.82),
            "0.7 to 0.65": lambda: updated(0.7, 0.65),
            "turnover": lambda: updated(0.9, 0.9, 0.3),
        },
        rounds=9,
    )
    table = Table(
        f"Mask update, ResNet-18, global ranking: share of a training step (batch 64, {milliseconds(times, 'step'):.0f} ms)",
        ratio(times, "step again", "step"),
    )
    table.add(
        "dense to 0.9, ratio to `prune.global_unstructured`", ratio(times, "0 to 0.9", "torch prune"), 1 / 40, digits=4
    )
    table.add("dense to 0.9", ratio(times, "0 to 0.9", "step"), 0.02, digits=4)
    table.add("0.80 to 0.82", ratio(times, "0.8 to 0.82", "step"), digits=4)
    table.add("0.70 to 0.65, growth by gradient", ratio(times, "0.7 to 0.65", "step"), digits=4)
    table.add("turnover of 0.3 at 0.9, growth by gradient", ratio(times, "turnover", "step"), digits=4)
    table.add("`prune.global_unstructured`, dense to 0.9", ratio(times, "torch prune", "step"), digits=4)
    table.show()
