"""Updates in blocks and channels, against a loop over units."""

import numpy as np
import pytest
import torch

from engine.shapes import CHANNELS, asked, dense, draw, units_of
from lightning_sparse.engine.allocation import ALLOCATIONS
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import Blocks
from lightning_sparse.engine.update import allocate, next_masks

BLOCKS = {"conv": (4, 6, 3, 3), "body": (12, 10), "head": (6, 4)}


def mean_of(scores, unit):
    return np.float32(scores.ravel()[unit].sum(dtype=np.float32) / np.float32(len(unit)))


class ByHand:
    """Units as lists of positions, and every choice one unit at a time."""

    def __init__(self, shapes, granularity):
        self.units = {name: units_of(shape, granularity) for name, shape in shapes.items()}
        self.alive = {name: [True] * len(units) for name, units in self.units.items()}

    def living(self):
        return sum(len(u) for n, units in self.units.items() for u, a in zip(units, self.alive[n], strict=True) if a)

    def ranked(self, scores, alive, sign=1):
        found = [
            (sign * mean_of(scores[name], unit), place, i, name)
            for place, (name, units) in enumerate(self.units.items())
            for i, unit in enumerate(units)
            if self.alive[name][i] == alive
        ]
        return sorted(found)

    def resize_globally(self, living, drop, grow):
        shrink = living < self.living()
        ranked = self.ranked(drop, True) if shrink else self.ranked(grow, False, -1)
        if not shrink and 2 * (living - self.living()) <= max(len(u) for units in self.units.values() for u in units):
            return
        for _, _, i, name in ranked:
            if shrink and sum(self.alive[name]) == 1:
                continue
            size, missing = len(self.units[name][i]), (self.living() - living) * (1 if shrink else -1)
            # To the nearest; half a unit is never missing but among equal blocks, where more living wins.
            if 2 * missing < size or (shrink and 2 * missing == size):
                break
            self.alive[name][i] = not shrink

    def resize_to(self, counts, drop, grow, shrinks):
        for name, units in self.units.items():
            size, present = len(units[0]), sum(self.alive[name])
            whole = max(1, int(np.floor(counts[name] / size + 0.5)))
            whole = min(whole, present) if shrinks else whole
            dying = [i for _, _, i, n in self.ranked(drop, True) if n == name]
            coming = [i for _, _, i, n in self.ranked(grow, False, -1) if n == name]
            for i in dying[: max(present - whole, 0)]:
                self.alive[name][i] = False
            for i in coming[: max(whole - present, 0)]:
                self.alive[name][i] = True

    def replace(self, before, turnover, drop, grow):
        replaced = shortfall = 0
        dying, coming = self.ranked(drop, True), self.ranked(grow, False, -1)
        for name, units in self.units.items():
            wanted = round(turnover * sum(self.alive[name]))
            old = [i for _, _, i, n in dying if n == name and before[name][i]]
            vacant = [i for _, _, i, n in coming if n == name and not before[name][i]]
            done = min(wanted, len(old), len(vacant))
            for i in old[:done]:
                self.alive[name][i] = False
            for i in vacant[:done]:
                self.alive[name][i] = True
            replaced, shortfall = replaced + done * len(units[0]), shortfall + (wanted - done) * len(units[0])
        return replaced, shortfall

    def masks(self, shapes):
        flat = {name: np.zeros(int(np.prod(shape)), bool) for name, shape in shapes.items()}
        for name, units in self.units.items():
            for unit, alive in zip(units, self.alive[name], strict=True):
                flat[name][unit] = alive
        return {name: flat[name].reshape(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk", "mine"])
@pytest.mark.parametrize(
    ("granularity", "shapes"),
    [("channels", CHANNELS), ("1x2", BLOCKS), ("2x2", BLOCKS), ("3x1", {"w": (9, 5), "v": (6, 6)})],
)
@pytest.mark.parametrize("seed", range(2))
def test_twenty_updates_in_units_equal_a_loop(granularity, shapes, allocation, seed):
    units, hand = parse_granularity(granularity), ByHand(shapes, parse_granularity(granularity))
    masks, sizes = dense(shapes), {name: float(np.prod(shape)) for name, shape in shapes.items()}

    def mine(scores, masks, living):
        return {name: round(living * size / sum(sizes.values())) for name, size in sizes.items()}

    for step, sparsity in enumerate([0.2, 0.5, 0.8, 0.8, 0.3, 0.35, 0.6, 0.61, 0.1, 0.4] * 2):
        turnover = 0.4 if step % 3 == 2 else 0.0
        drop, grow = (
            draw(shapes, 100 * seed + step, whole=step % 2 == 0),
            draw(shapes, 7000 + step, whole=step % 4 == 0),
        )
        arrays = [{name: score.numpy() for name, score in scores.items()} for scores in (drop, grow)]
        living, before = asked(shapes, sparsity), {name: list(alive) for name, alive in hand.alive.items()}
        shrinks, largest = living < hand.living(), max(len(u[0]) for u in hand.units.values())
        if allocation == "global":
            hand.resize_globally(living, *arrays)
        elif shrinks or living - hand.living() > sum(len(units[0]) for units in hand.units.values()):
            ideal = mine if allocation == "mine" else ALLOCATIONS[allocation]
            hand.resize_to(ideal(drop, dense(shapes), living), *arrays, shrinks and allocation != "mine")
        counts = hand.replace(before, turnover, *arrays)
        share = mine if allocation == "mine" else ALLOCATIONS[allocation]
        masks, *replaced = next_masks(masks, living, turnover, drop, grow, share, units)
        assert tuple(replaced) == counts
        expected = hand.masks(shapes)
        assert all(np.array_equal(mask.numpy(), expected[name]) for name, mask in masks.items())
        if allocation == "global":
            assert abs(hand.living() - living) <= largest / 2
        assert all(mask.any() for mask in masks.values())


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.8])
def test_channels_are_the_rows_with_the_largest_mean_magnitude(sparsity):
    """Of one layer, that is the L1 norm of Li et al. 2017."""
    weight = torch.randn(20, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    norms = weight.numpy().reshape(20, -1)
    norms = np.abs(norms).sum(1)
    mask = allocate({"w": weight}, sparsity, granularity="channels")["w"].numpy().reshape(20, -1)
    best = np.argsort(norms)[round(sparsity * 20) :]
    assert np.array_equal(np.flatnonzero(mask.all(1)), np.sort(best))
    assert mask.any(1).sum() == len(best)


def test_the_size_of_a_channel_does_not_decide():
    """Wide channels of weak weights die before narrow ones of strong weights, whose sums are smaller."""
    weights = {"wide": torch.full((4, 100), 0.2), "narrow": torch.full((4, 3), 1.0)}
    masks = allocate(weights, 300 / 412, granularity="channels")
    assert {name: int(mask.all(1).sum()) for name, mask in masks.items()} == {"wide": 1, "narrow": 4}


def test_half_precision_scores_are_averaged_in_full():
    """In float16 the sum of 4096 ones plus a small rest loses the rest."""
    scores = torch.ones(2, 4096, dtype=torch.float16)
    scores[1, :8] += 0.25
    means = Blocks().means(scores)
    assert means.view(-1).tolist() == [1.0, 1.0 + 2 / 4096]
