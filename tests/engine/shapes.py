"""Scores and sizes that tests of units share."""

import numpy as np
import torch

# Outputs, inputs and, for the convolution, kernel positions; sizes of channels differ, and are odd: no two counts of
# connections are then equally near to what is asked.
CHANNELS = {"conv": (6, 3, 3, 3), "body": (10, 15), "head": (4, 7)}


def draw(shapes, seed, whole=False):
    generator = torch.Generator().manual_seed(seed)
    if whole:
        return {name: torch.randint(0, 9, shape, generator=generator).float() for name, shape in shapes.items()}
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def dense(shapes):
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def asked(shapes, sparsity):
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    return total - round(sparsity * total)


def units_of(shape, granularity):
    """Positions of the weights of each unit, in the order of the matrix of blocks."""
    rows, columns = granularity.rows, granularity.columns or int(np.prod(shape[1:]))
    flat = np.arange(np.prod(shape)).reshape(shape[0], -1)
    return [
        flat[top : top + rows, left : left + columns].ravel()
        for top in range(0, flat.shape[0], rows)
        for left in range(0, flat.shape[1], columns)
    ]
