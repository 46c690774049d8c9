"""Accuracy and bytes of trainings whose two processes send few entries of their gradients; digits, gloo on one machine.

    python benchmarks/gradient_compression.py [epochs] [seeds]

Prints a table for docs/ephemeral.md after each seed.
"""

import sys
from collections import defaultdict

import torch.distributed as dist
from small_training import accuracy, data_of, said, train

from lightning_sparse import GradientCompression

WAYS = {
    "without memory": {"memory": False},
    "with memory": {},
    "with memory and momentum correction": {"momentum_correction": 0.9},
}


def main() -> None:
    epochs, seeds = (int(given) for given in (*sys.argv[1:], *("40", "5")[len(sys.argv) - 1 :]))
    found, shares = defaultdict(list), {}
    for seed in range(seeds):
        data = data_of("digits", seed, batch_size=32)  # on each of two
        data.setup()
        images, labels = data.split("test")
        model = train(data, "digits", seed, epochs, devices=2, strategy="ddp")
        found["whole gradients", 1.0].append(accuracy(model, images, labels))
        for way, chosen in WAYS.items():
            for density in (0.1, 0.01, 0.001):
                callback = GradientCompression(density, **chosen)
                momentum = 0.0 if "momentum_correction" in chosen else 0.9
                model = train(data, "digits", seed, epochs, callback, momentum=momentum, devices=2, strategy="ddp")
                found[way, density].append(accuracy(model, images, labels))
                shares[density] = 100 * callback.communication_share
        if dist.get_rank() == 0:
            report(found, shares, f"digits, {epochs} epochs, {seed + 1} seeds, {len(labels)} test images")


def report(found: dict[tuple[str, float], list[float]], shares: dict[float, float], title: str) -> None:
    print(f"\n{title}; whole gradients: {said(found['whole gradients', 1.0])}")
    print("| | " + " | ".join(f"{density:g}" for density in shares) + " |\n" + "|---" * 4 + "|")
    for way in WAYS:
        print(f"| {way} | " + " | ".join(said(found[way, density]) for density in shares) + " |")
    print(
        "| bytes, % of whole gradients | " + " | ".join(f"{share:.1f}" for share in shares.values()) + " |", flush=True
    )


if __name__ == "__main__":
    main()
