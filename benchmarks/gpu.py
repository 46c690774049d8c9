"""On a GPU: training steps in bf16 under torch.compile, and updates; no step without an update may wait for the device."""

from __future__ import annotations

import time

import torch
from harness import Table, milliseconds, race, ratio
from steps import residual, step_of, transformer
from torch import nn

from lightning_sparse import Curve, Engine, Recipe, attach, sparsifiable


def now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(name: str, make, bound: float) -> None:
    def made(kind: str):
        model, inputs = make()
        model, inputs = model.cuda(), inputs.cuda()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9, weight_decay=5e-4, fused=True)
        step = step_of(_mixed(torch.compile(model)), optimizer, inputs)
        if kind in ("masks", "compact"):
            attach(optimizer, model, Recipe(Curve(0.9), compact_masks=kind == "compact"))
        for _ in range(5):
            step()
        # Compiled and warm: from here on, whatever makes the host wait for the device is an error.
        torch.cuda.set_sync_debug_mode("error")
        step()
        torch.cuda.set_sync_debug_mode("default")
        return lambda: step

    times = race({kind: made(kind) for kind in ("dense", "dense again", "masks", "compact")}, 20, 20, now)
    table = Table(
        f"GPU step, {name}, bf16, torch.compile: ratio to dense ({milliseconds(times, 'dense'):.3g} ms); no step waits",
        ratio(times, "dense again", "dense"),
    )
    table.add("masks as wide as the weights", ratio(times, "masks", "dense"), bound)
    table.add("masks of one byte", ratio(times, "compact", "dense"), bound)
    table.show()


def updates(name: str, make) -> None:
    here, there = make()[0], make()[0].cuda()
    weights = sparsifiable(there)
    reference = Engine(sparsifiable(here), Recipe(Curve(0.9)))
    reference.update()
    engine = Engine(weights, Recipe(Curve(0.9)))
    engine.update()
    differing = sum(int((mask.cpu() != reference.masks[name]).sum()) for name, mask in engine.masks.items())
    copies = {name: torch.empty_like(weight) for name, weight in weights.items()}

    def copy() -> None:
        for name, weight in weights.items():
            copies[name].copy_(weight.detach())

    times = race(
        {
            "update": lambda: Engine(weights, Recipe(Curve(0.9))).update,
            "masks": lambda: lambda: engine.masks.apply(weights),
            "copy": lambda: copy,
        },
        20,
        clock=now,
    )
    table = Table(f"GPU update, {name}, dense to 0.9")
    table.add("connections that differ from the CPU's masks", differing, 0, digits=0)
    table.add("time of an update", milliseconds(times, "update"), unit=" ms")
    table.add("mask pass, ratio to `copy_` of the same floats", ratio(times, "masks", "copy"))
    table.show()


def _mixed(model: nn.Module):
    def forward(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return model(inputs)

    return forward


if __name__ == "__main__":
    if torch.cuda.is_available():
        measure("ResNet-18, batch 64", residual, 1.06)
        measure("transformer, 25 M weights", lambda: transformer(512, 8, 128), 1.06)
        updates("ResNet-18", residual)
    else:
        print("### GPU\n\nSkipped: there is no CUDA device here.\n")
