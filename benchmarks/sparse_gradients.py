"""Accuracy of trainings that keep the k largest entries of each example's gradient at a layer (meProp); digits.

    python benchmarks/sparse_gradients.py [epochs] [seeds]

Prints a table for docs/ephemeral.md after each seed.
"""

import sys
from collections import defaultdict

from small_training import accuracy, data_of, said, train

from lightning_sparse import GradualPruning, SparseGradients

KS = (None, 100, 30, 10, 3, 1)


def main() -> None:
    epochs, seeds = (int(given) for given in (*sys.argv[1:], *("40", "5")[len(sys.argv) - 1 :]))
    found = defaultdict(list)
    for seed in range(seeds):
        data = data_of("digits", seed)
        data.setup()
        images, labels = data.split("test")
        for level in (0.0, 0.9):
            for k in KS:
                callbacks = [GradualPruning(level)] if level else []
                callbacks += [SparseGradients(k)] if k else []
                model = train(data, "digits", seed, epochs, *callbacks)
                found[level, k].append(accuracy(model, images, labels))
        print(f"\ndigits, {epochs} epochs, {seed + 1} seeds, {len(labels)} test images")
        print("| weights | " + " | ".join("all" if k is None else f"k = {k}" for k in KS) + " |\n" + "|---" * 7 + "|")
        for level in (0.0, 0.9):
            print(f"| {level:g} sparse | " + " | ".join(said(found[level, k]) for k in KS) + " |", flush=True)


if __name__ == "__main__":
    main()
