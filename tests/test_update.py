"""The update against a rewrite in numpy that loops over connections, from the same description."""

import numpy as np
import pytest
import torch

from lightning_sparse import Curve, Recipe, attach
from lightning_sparse.allocation import ALLOCATIONS, global_
from lightning_sparse.update import next_masks

# The global ranking chooses connections and counts at once; an allocation of one's own gives counts alone.
CHOICES = {**ALLOCATIONS, "counts": lambda scores, masks, living: global_(scores, masks, living)}
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


@pytest.mark.parametrize("allocation", CHOICES)
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
            counts = CHOICES[allocation](drop if living < present else grow, masks, living)
        after, replaced, shortfall = next_masks(masks, living, turnover, drop, grow, CHOICES[allocation])
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


@pytest.mark.parametrize(
    "allocation", ["global", "uniform", lambda scores, masks, living: _back_and_forth(masks, living)]
)
def test_history_counts_what_changed(allocation):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Linear(30, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsity = Curve(0.7).then(8, 0.2, "linear").then(20, 0.9, "cubic").then(30)
    turnover = Curve(0.0).then(4).then(12, 0.3).then(20).then(30, 0.3)
    engine = attach(optimizer, model, Recipe(sparsity, turnover, grow="random", allocation=allocation, every=2))
    everything = 0
    for _ in range(30):
        before, updates = dict(engine.masks), len(engine.history)
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
        died = sum(int((before[name] & ~mask).sum()) for name, mask in engine.masks.items())
        born = sum(int((mask & ~before[name]).sum()) for name, mask in engine.masks.items())
        new = engine.history[updates:]
        assert (died, born) == (sum(update.died for update in new), sum(update.born for update in new))
        everything += died + born
    assert everything > 1000


def _back_and_forth(masks, living):
    """Counts that move between the layers: one grows while the other shrinks."""
    first, second = masks.values()
    least, most = max(1, living - second.numel()), min(first.numel(), living - 1)
    return dict(zip(masks, (least, living - least) if first.sum() > least else (most, living - most), strict=True))
