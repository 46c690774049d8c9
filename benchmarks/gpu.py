"""On a GPU: training steps in bf16 under torch.compile, and updates; no step without an update may wait for the device.

Also how long it takes to attack a ResNet-18 by the reference tier, in images of the size of CIFAR-10's.
"""

from __future__ import annotations

import time

import torch
from harness import Table, milliseconds, race, ratio
from steps import residual, step_of, transformer
from torch import nn

from lightning_sparse import Curve, Engine, Recipe, attach, sparsifiable
from lightning_sparse.measure import measure_robustness, recalibrate_batchnorm


def now() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def measure(name: str, make) -> None:
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
    table.add("masks as wide as the weights", ratio(times, "masks", "dense"), 1.06)
    table.add("masks of one byte", ratio(times, "compact", "dense"), 1.03)
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
    table.add("time of an update", milliseconds(times, "update"), 5, unit=" ms")
    table.add("mask pass, ratio to `copy_` of the same floats", ratio(times, "masks", "copy"))
    table.show()


def reference(count: int, device: torch.device) -> None:
    """Attack ResNet-18 on images of ten faint patterns, which it learns in a moment to tell apart, and not robustly."""
    torch.manual_seed(0)
    labels = torch.arange(count) % 10
    images = (0.5 + 0.1 * torch.randn(10, 3, 32, 32)[labels] + 0.1 * torch.randn(count, 3, 32, 32)).clamp(0, 1)
    net = residual()[0].to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for _ in range(5):
        for part, targets in zip(images.split(50), labels.split(50), strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(part.to(device)), targets.to(device)).backward()
            optimizer.step()
    recalibrate_batchnorm(net, (images, labels))  # a moment is too short for its running means
    start = time.perf_counter()
    found = measure_robustness(net, (images, labels), eps=[2 / 255, 8 / 255], tier="reference")
    seconds = time.perf_counter() - start
    table = Table(f"The reference tier on a GPU: ResNet-18, {count} images of 3x32x32, two radii")
    table.add("clean accuracy", float(found.arrays["correct"].mean()))
    for record in found.records:
        if record.metric == "robust_accuracy" and record.attack == "worst":
            table.add(f"robust accuracy at {255 * (record.eps or 0):.0f}/255", record.value)
    table.add("time", seconds / 60, 10, unit=" min", digits=2)
    table.show()


def _mixed(model: nn.Module):
    def forward(inputs: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return model(inputs)

    return forward


if __name__ == "__main__":
    if torch.cuda.is_available():
        measure("ResNet-18, batch 64", residual)
        measure("transformer, 25 M weights", lambda: transformer(512, 8, 128))
        updates("ResNet-18", residual)
        reference(1000, torch.device("cuda"))
    else:
        print("### GPU\n\nSkipped: there is no CUDA device here.\n")
