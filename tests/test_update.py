"""The update against a rewrite in numpy that loops over connections, from the same description."""

import numpy as np
import pytest
import torch

from lightning_sparse.allocation import ALLOCATIONS
from lightning_sparse.update import next_masks

SHAPES = {"first": (12, 9), "second": (7, 12), "head": (5, 7)}


def by_hand(before, counts, turnover, drop, grow):
    """One layer, connection by connection."""
    mask, drop, grow = before.ravel().copy(), drop.ravel(), grow.ravel()
    vacant_before = [i for i in range(mask.size) if not mask[i]]
    living = [i for i in range(mask.size) if mask[i]]
    for i in sorted(living, key=lambda i: (drop[i], i))[: max(len(living) - counts, 0)]:
        mask[i] = False
    newborn = sorted(vacant_before, key=lambda i: (-grow[i], i))[: max(counts - len(living), 0)]
    for i in newborn:
        mask[i] = True
    old = [i for i in range(mask.size) if mask[i] and i not in newborn]
    vacant = [i for i in vacant_before if i not in newborn]
    k = min(round(turnover * counts), len(old), len(vacant))
    for i in sorted(old, key=lambda i: (drop[i], i))[:k]:
        mask[i] = False
    for i in sorted(vacant, key=lambda i: (-grow[i], i))[:k]:
        mask[i] = True
    return mask.reshape(before.shape), k


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("seed", range(3))
def test_twenty_updates_equal_numpy(allocation, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    total = sum(mask.numel() for mask in masks.values())
    levels = [0.7, 0.6, 0.4, 0.2, 0.3, 0.5, 0.8, 0.9, 0.9, 0.9] * 2  # birth, growth, pruning, plateau, and again
    for step, sparsity in enumerate(levels):
        turnover = 0.4 if step % 3 == 2 else 0.0
        # Whole numbers, so that there are ties to decide.
        drop = {n: torch.randint(0, 30, s, generator=generator).float() for n, s in SHAPES.items()}
        grow = {n: torch.randint(0, 30, s, generator=generator).float() for n, s in SHAPES.items()}
        living = total - round(sparsity * total)
        present = sum(int(mask.sum()) for mask in masks.values())
        counts = {name: int(mask.sum()) for name, mask in masks.items()}
        if living != present:
            counts = ALLOCATIONS[allocation](drop if living < present else grow, masks, living)
        after, replaced, shortfall = next_masks(masks, living, turnover, drop, grow, ALLOCATIONS[allocation])
        done = 0
        for name, mask in masks.items():
            expected, k = by_hand(mask.numpy(), counts[name], turnover, drop[name].numpy(), grow[name].numpy())
            assert np.array_equal(after[name].numpy(), expected)
            done += k
        assert replaced == done
        assert shortfall == sum(round(turnover * count) for count in counts.values()) - done
        assert sum(int(mask.sum()) for mask in after.values()) == living
        masks = after


def test_turnover_beyond_the_vacancies_is_a_shortfall():
    before = {"w": torch.tensor([True, True, True, False])}
    scores = {"w": torch.arange(4.0)}
    after, replaced, shortfall = next_masks(before, 3, 1.0, scores, scores, ALLOCATIONS["uniform"])
    assert (replaced, shortfall) == (1, 2)
    assert after["w"].tolist() == [False, True, True, True]
