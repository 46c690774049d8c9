"""Pruning in one shot, without a step of training after it: what dropout of units and of weights does to it.

    python benchmarks/targeted_dropout.py [digits | mnist] [epochs] [seeds]

Prints tables for docs/ephemeral.md after each seed.
"""

import copy
import sys
from collections import defaultdict

from small_training import accuracy, data_of, said, train
from torch import nn

from lightning_sparse import GradualPruning, TargetedDropout, WeightDropout
from lightning_sparse.engine.selection import extremes
from lightning_sparse.ephemeral.dropped_weights import smallest

LEVELS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98)
LAST = "net.5.weight"  # which stays dense
WAYS = {
    "nothing": {},
    "dropout of units, p = 0.5": {"dropout": 0.5},
    "`WeightDropout(0.5)`": {"callback": lambda seed: WeightDropout(0.5, exclude=[LAST], seed=seed)},
    "`TargetedDropout(0.75, 0.66)`": {"callback": lambda seed: TargetedDropout(0.75, 0.66, exclude=[LAST], seed=seed)},
    "`TargetedDropout(0.95, 0.9)`": {"callback": lambda seed: TargetedDropout(0.95, 0.9, exclude=[LAST], seed=seed)},
}


def pruned(model: nn.Module, level: float, by_output: bool) -> nn.Module:
    """A copy without its smallest weights: the same share of each output, or of both hidden layers together."""
    model = copy.deepcopy(model)
    weights = [layer.weight.data for layer in model.modules() if isinstance(layer, nn.Linear)][:2]
    if by_output:
        dead = [smallest(weight, level) for weight in weights]
    else:
        count = round(level * sum(weight.numel() for weight in weights))
        dead = extremes([weight.abs() for weight in weights], count, [None, None], from_above=False)
    for weight, gone in zip(weights, dead, strict=True):
        weight.masked_fill_(gone, 0.0)
    return model


def main() -> None:
    name, epochs, seeds = (*sys.argv[1:], *("digits", "40", "5")[len(sys.argv) - 1 :])
    epochs, seeds = int(epochs), int(seeds)
    found: dict[tuple[str, float, bool], list[float]] = defaultdict(list)
    for seed in range(seeds):
        data = data_of(name, seed)
        data.setup()
        images, labels = data.split("test")
        for way, chosen in WAYS.items():
            callbacks = [chosen["callback"](seed)] if "callback" in chosen else []
            model = train(data, name, seed, epochs, *callbacks, dropout=chosen.get("dropout", 0.0))
            for by_output in (True, False):
                for level in LEVELS:
                    found[way, level, by_output].append(accuracy(pruned(model, level, by_output), images, labels))
        for level in LEVELS[1:]:
            model = train(data, name, seed, epochs, GradualPruning(level, exclude=[LAST]))
            found["`GradualPruning`, as many steps", level, False].append(accuracy(model, images, labels))
        found["`GradualPruning`, as many steps", 0.0, False] = found["nothing", 0.0, False]
        for by_output in (True, False):
            print(f"\n{name}, {epochs} epochs, {seed + 1} seeds, {len(labels)} test images, " + by_output * "by output")
            print("| trained with | " + " | ".join(f"{level:g}" for level in LEVELS) + " |\n" + "|---" * 7 + "|")
            for way in dict.fromkeys(way for way, _, by in found if by == by_output):
                print(f"| {way} | " + " | ".join(said(found[way, level, by_output]) for level in LEVELS) + " |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
