"""The update against a rewrite in numpy that loops over connections, from the same description."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_sparse import Curve, Recipe, attach
from lightning_sparse.engine.allocation import ALLOCATIONS, global_
from lightning_sparse.engine.granularity import WEIGHTS, Blocks, Groups
from lightning_sparse.engine.update import allocate, next_masks
from lightning_sparse.errors import SparsityError

# The global ranking chooses connections and counts at once; an allocation of the user's own gives only counts.
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


class Unread(dict):
    """Scores that must not be asked for."""

    def __missing__(self, name):
        raise AssertionError(f"the scores of {name} were read")


@pytest.mark.parametrize("allocation", CHOICES)
@pytest.mark.parametrize("granularity", [WEIGHTS, Groups(1, 3), Blocks(1, None)])
def test_where_everything_lives_no_score_is_read(allocation, granularity):
    before = {"a": torch.arange(6).view(2, 3) < 3, "b": torch.ones(3, 3, dtype=torch.bool)}
    after, replaced, shortfall = next_masks(before, 15, 0.4, Unread(), Unread(), CHOICES[allocation], granularity)
    assert all(bool(mask.all()) for mask in after.values())
    assert (replaced, shortfall) == (0, 2 + 4)  # round(0.4 * 6) and round(0.4 * 9), with nothing dead to bear


def some_layers(seed):
    torch.manual_seed(seed)
    return {"conv": nn.Conv2d(3, 8, 3), "body": nn.Linear(40, 30), "head": nn.Linear(30, 7)}


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.93])
@pytest.mark.parametrize("seed", range(3))
def test_one_shot_equals_torch_prune(sparsity, seed):
    """Global and uniform pruning by magnitude, as torch.nn.utils.prune has them; no layer is emptied at these levels."""
    weights = {name: layer.weight.detach() for name, layer in some_layers(seed).items()}
    theirs = some_layers(seed)
    pairs = [(layer, "weight") for layer in theirs.values()]
    prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=sparsity)
    for name, mask in allocate(weights, sparsity).items():
        assert torch.equal(mask, theirs[name].weight_mask.bool())

    total = sum(weight.numel() for weight in weights.values())
    for name, mask in allocate(weights, sparsity, "uniform").items():
        local = some_layers(seed)[name]
        dead = round(sparsity * local.weight.numel())
        asked = int((~mask).sum())
        assert abs(asked - dead) <= 1  # torch rounds each layer, where here the total is exact
        prune.l1_unstructured(local, "weight", amount=asked)
        assert torch.equal(mask, local.weight_mask.bool())
    assert sum(int((~mask).sum()) for mask in allocate(weights, sparsity, "uniform").values()) == round(
        sparsity * total
    )


@pytest.mark.parametrize("arguments", [{"sparsity": 1.0}, {"allocation": "globl"}, {"granularity": "2:3"}])
def test_a_look_at_an_allocation_refuses_what_training_would(arguments):
    with pytest.raises(SparsityError, match=next(iter(arguments))):
        allocate({"w": torch.ones(4, 8)}, **{"sparsity": 0.5, **arguments})


def shared(total, weights, caps):
    """In proportion to the weights, none above its cap, by largest remainder; layers of weight zero come last."""
    counts = {name: 0 for name in caps}
    for names in ([n for n in caps if weights[n] > 0], [n for n in caps if weights[n] <= 0]):
        pull = {name: weights[name] if weights[name] > 0 else float(caps[name]) for name in names}
        amount = min(total, sum(caps[name] for name in names))
        total -= amount
        full, room = set(), amount
        while True:
            free = [name for name in names if name not in full and pull[name] > 0]
            share = {name: room * pull[name] / sum(pull[n] for n in free) for name in free}
            over = {name for name in free if share[name] > caps[name]}
            if not over:
                break
            full |= over
            room = amount - sum(caps[name] for name in full)
        counts |= {name: caps[name] for name in full} | {name: int(share[name]) for name in free}
        for name in sorted(free, key=lambda name: -(share[name] % 1))[: amount - sum(counts[n] for n in names)]:
            counts[name] += 1
    return counts


def redistributed_by_hand(before, masks, turnover, drop, grow):
    """One turnover of SNFS: all layers give, then all receive, by what pulls in their living connections."""
    masks = {name: mask.copy() for name, mask in masks.items()}
    old = {n: [i for i in range(m.size) if m.flat[i] and before[n].flat[i]] for n, m in masks.items()}
    vacant = {n: [i for i in range(m.size) if not m.flat[i] and not before[n].flat[i]] for n, m in masks.items()}
    living = {name: int(mask.sum()) for name, mask in masks.items()}
    wanted = {name: round(turnover * count) for name, count in living.items()}
    freed = {name: min(wanted[name], len(old[name]), living[name] - 1) for name in masks}
    room = {name: len(places) for name, places in vacant.items()}
    if sum(freed.values()) > sum(room.values()):
        freed = shared(sum(room.values()), {n: float(k) for n, k in freed.items()}, freed)
    pull = {name: float(grow[name][mask].mean()) for name, mask in masks.items()}
    for name, mask in masks.items():
        for i in sorted(old[name], key=lambda i: (drop[name].flat[i], i))[: freed[name]]:
            mask.flat[i] = False
    births = shared(sum(freed.values()), pull, room)
    for name, mask in masks.items():
        for i in sorted(vacant[name], key=lambda i: (-grow[name].flat[i], i))[: births[name]]:
            mask.flat[i] = True
    return masks, sum(freed.values()), sum(wanted.values())


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("seed", range(4))
def test_twenty_updates_with_redistribution_equal_numpy(allocation, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in SHAPES.items()}
    total, moved, short, overflowed = sum(mask.numel() for mask in masks.values()), 0, 0, 0
    levels = [0.8] * 8 + [0.9, 0.9, 0.5, 0.5, 0.1, 0.1, 0.1, 0.6, 0.7, 0.7, 0.9, 0.9]
    for step, sparsity in enumerate(levels):
        turnover = 0.0 if step == 0 else 1.0 if step == 4 else 0.3 if step % 4 else 0.7
        weight = torch.rand(3, generator=generator) ** 3  # layers that pull more, and layers that pull less
        drop = {n: torch.rand(s, generator=generator) for n, s in SHAPES.items()}
        grow = {n: torch.rand(s, generator=generator) * w for (n, s), w in zip(SHAPES.items(), weight, strict=True)}
        if step == 5:
            grow["head"] = torch.zeros(SHAPES["head"])
        living = total - round(sparsity * total)
        resized, _, _ = next_masks(masks, living, 0.0, drop, grow, ALLOCATIONS[allocation])
        as_arrays = [{name: tensor.numpy() for name, tensor in each.items()} for each in (masks, resized, drop, grow)]
        expected, done, wanted = redistributed_by_hand(*as_arrays[:2], turnover, *as_arrays[2:])
        after, replaced, shortfall = next_masks(
            masks, living, turnover, drop, grow, ALLOCATIONS[allocation], redistribute=True
        )
        assert all(np.array_equal(after[name].numpy(), expected[name]) for name in SHAPES)
        assert (replaced, shortfall) == (done, wanted - done)
        assert sum(int(mask.sum()) for mask in after.values()) == living
        assert min(int(mask.sum()) for mask in after.values()) >= 1
        counts = {name: (int(resized[name].sum()), int(after[name].sum())) for name in SHAPES}
        moved += sum(abs(a - b) for a, b in counts.values())
        short += shortfall > 0
        vacant = {name: ~(masks[name] | resized[name]) for name in SHAPES}
        overflowed += any(mask.any() and after[name][mask].all() for name, mask in vacant.items())
        masks = after
    assert moved > 50
    assert short
    assert overflowed


def test_redistribution_by_hand():
    """Layers of 2, 4 and 8 living each give half; 7 freed go 1 : 2 : 4 by pull, but the last has room for 2 only."""
    masks = {"a": torch.arange(10) < 2, "b": torch.arange(10) < 4, "c": torch.arange(10) < 8}
    drop = {name: torch.arange(10.0) for name in masks}
    grow = {name: torch.full((10,), pull) for name, pull in {"a": 1.0, "b": 2.0, "c": 4.0}.items()}
    after, replaced, shortfall = next_masks(masks, 14, 0.5, drop, grow, global_, redistribute=True)
    # of 5 left after c's 2, a's 5/3 and b's 10/3 are 2 and 3 by largest remainder
    places = {name: mask.nonzero().view(-1).tolist() for name, mask in after.items()}
    assert places == {"a": [1, 2, 3], "b": [2, 3, 4, 5, 6], "c": [4, 5, 6, 7, 8, 9]}
    assert (replaced, shortfall) == (7, 0)


def test_layers_that_nothing_pulls_at_take_what_no_other_can():
    """4, 2 and 2 are freed; a has room for 1, and b and c, with room for 6 each, share 7: the first gets the odd one."""
    masks = {"a": torch.arange(10) < 9, "b": torch.arange(10) < 4, "c": torch.arange(10) < 4}
    drop = {name: torch.arange(10.0) for name in masks}
    grow = {"a": torch.ones(10), "b": torch.zeros(10), "c": torch.zeros(10)}
    after, replaced, shortfall = next_masks(masks, 17, 0.5, drop, grow, global_, redistribute=True)
    assert [int(mask.sum()) for mask in after.values()] == [9 - 4 + 1, 4 - 2 + 4, 4 - 2 + 3]
    assert (replaced, shortfall) == (8, 0)


def test_a_grow_score_that_is_not_finite_cannot_be_shared_by():
    masks = {"a": torch.arange(4) < 2, "b": torch.arange(4) < 2}
    scores = {"a": torch.ones(4), "b": torch.tensor([1.0, torch.inf, 1.0, 1.0])}
    with pytest.raises(SparsityError, match=r"mean grow score .* 'b' is inf"):
        next_masks(masks, 4, 0.5, {name: torch.arange(4.0) for name in masks}, scores, global_, redistribute=True)


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
