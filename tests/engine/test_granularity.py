"""Groups, blocks and channels against loops over the connections of each, written from the same description."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from engine.shapes import CHANNELS, asked, dense, draw, units_of
from lightning_sparse import Curve, Recipe, attach
from lightning_sparse.engine.allocation import ALLOCATIONS
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import WEIGHTS, Blocks, Groups
from lightning_sparse.engine.update import allocate, next_masks
from lightning_sparse.errors import SparsityError

GROUPED = {"conv": (5, 12, 3, 3), "body": (10, 24), "head": (4, 12)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("weights", WEIGHTS),
        ("2:4", Groups(2, 4)),
        ("1x4", Blocks(1, 4)),
        ("16x16", Blocks(16, 16)),
        ("channels", Blocks()),
    ],
)
def test_a_string_and_what_it_stands_for(text, expected):
    assert parse_granularity(text) == parse_granularity(expected) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["2:2", "0:4", "4:2", "0x4", "4x0", "weight", "2:4:8", "-1x4", "1 x 4", "", None, 4])
def test_anything_else_is_refused(text):
    with pytest.raises(SparsityError, match=re.escape(f"granularity={text!r}") + ".* write"):
        parse_granularity(text)


def test_a_yaml_file_without_quotes():
    yaml = pytest.importorskip("yaml")
    with pytest.raises(SparsityError, match="YAML reads 2:4 without quotes as 124: write it with quotes"):
        parse_granularity(yaml.safe_load("granularity: 2:4")["granularity"])


PARAMETERS = {
    "stem.weight": torch.zeros(8, 3, 3, 3),
    "body.weight": torch.zeros(8, 12),
    "head.weight": torch.zeros(6, 8),
}


FITTING = {name: PARAMETERS[name] for name in ("body.weight", "head.weight")}


@pytest.mark.parametrize(
    ("granularity", "misfits"),
    [
        ("2:4", ["stem.weight"]),
        ("4:8", ["stem.weight", "body.weight"]),
        ("1x4", ["stem.weight"]),
        ("4x1", ["head.weight"]),
        ("4x4", ["stem.weight", "head.weight"]),
    ],
)
def test_every_parameter_that_does_not_fit_is_named(granularity, misfits):
    with pytest.raises(SparsityError) as error:
        parse_granularity(granularity).check(PARAMETERS, [0.5])
    assert f"leave them out with exclude={misfits!r}" in str(error.value)
    assert all(f"{name!r} {tuple(PARAMETERS[name].shape)}" in str(error.value) for name in misfits)
    parse_granularity(granularity).check({n: w for n, w in PARAMETERS.items() if n not in misfits}, [0.5])


@pytest.mark.parametrize("text", ["weights", "channels", "2x1"])
def test_shapes_that_fit(text):
    parse_granularity(text).check(PARAMETERS, [0.0, 0.5], [0.0, 0.3], "erk")


def test_vectors_have_no_groups():
    with pytest.raises(SparsityError, match=r"exclude=\['bias'\]"):
        parse_granularity("1:2").check({"bias": torch.zeros(8)}, [0.5])
    parse_granularity("channels").check({"bias": torch.zeros(8)}, [0.5])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.0, 0.51],), r"sparsity 0\.51 of .* granularity='2:4' keeps at least .* at most 0\.5,"),
        (([0.5], [0.0, 0.3]), "turnover=0.3 and granularity='2:4'.* turnover=0.0"),
        (([0.5], [0.0], "erk"), "allocation='erk'.* 'global' or 'uniform'.* exclude="),
    ],
)
def test_groups_refuse_what_would_break_them(arguments, message):
    with pytest.raises(SparsityError, match=message):
        parse_granularity("2:4").check(FITTING, *arguments)


def test_groups_of_three_take_two_thirds():
    parameters = {"a": torch.zeros(1000, 3000)}
    parse_granularity("1:3").check(parameters, [1 - 1 / 3, 2 / 3, 0.6666666], [0.0], "uniform")
    with pytest.raises(SparsityError, match=r"sparsity 0\.66667 of .* at most 0\.666666,"):
        parse_granularity("1:3").check(parameters, [0.66667])


def test_a_layer_keeps_one_whole_channel():
    """8 rows of 12 and 6 of 8: 20 of 144 connections are one of each, so that at most 1 - 20/144 = 0.861 may die."""
    parse_granularity("channels").check(FITTING, [0.86])
    with pytest.raises(SparsityError, match=r"144 connections leaves 19 .* 20 connections: ask for at most 0\.861111"):
        parse_granularity("channels").check(FITTING, [0.865])


def test_units_are_not_redistributed():
    with pytest.raises(SparsityError, match="redistribute=True and granularity='channels'"):
        parse_granularity("channels").check(FITTING, [0.5], redistribute=True)
    WEIGHTS.check(FITTING, [0.5], [0.3], redistribute=True)


def groups_of(array, m):
    """Every group as one row: M consecutive entries of dimension 1, at one output and one kernel position."""
    rows = []
    for out in range(array.shape[0]):
        for start in range(0, array.shape[1], m):
            for place in np.ndindex(array.shape[2:]):
                rows.append([array[(out, start + i, *place)] for i in range(m)])
    return np.array(rows)


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 3), (5, 6), (1, 2)])
@pytest.mark.parametrize("whole", [False, True])
def test_every_group_keeps_its_best(n, m, allocation, whole):
    weights = draw(GROUPED, seed=m, whole=whole)
    for name, mask in allocate(weights, 1 - n / m, allocation, f"{n}:{m}").items():
        scores, kept = groups_of(weights[name].numpy(), m), groups_of(mask.numpy(), m)
        best = np.zeros_like(kept)
        for row, order in enumerate(np.argsort(scores, axis=1, kind="stable")):
            best[row, order[m - n :]] = True
        assert np.array_equal(kept, best)


def pruned_in_groups(before, counts, drop, n, m):
    """Connection by connection: the lowest score dies, unless it is one of the N best of its group; ``counts`` is of all.

    The protected are known beforehand: a weight among the N best stays among them as worse ones die.
    """
    after = {name: mask.copy() for name, mask in before.items()}
    mortal = []
    for place, (name, mask) in enumerate(after.items()):
        for at in np.argwhere(mask):
            group = [tuple([at[0], at[1] // m * m + i, *at[2:]]) for i in range(m)]
            rank = sorted((drop[name][g], g) for g in group if mask[g])
            if (drop[name][tuple(at)], tuple(at)) not in rank[-n:]:
                mortal.append((drop[name][tuple(at)], place, tuple(at), name))
    present = {name: int(mask.sum()) for name, mask in before.items()}
    for _, _, at, name in sorted(mortal):
        if sum(present.values()) > counts if isinstance(counts, int) else present[name] > counts[name]:
            after[name][at] = False
            present[name] -= 1
    return after


@pytest.mark.parametrize("allocation", ["global", "uniform"])
@pytest.mark.parametrize("seed", range(2))
def test_the_way_to_the_groups_equals_a_loop(allocation, seed):
    """Prune, grow a little, and prune to exactly 2:4, with new scores each time; half of the scores are tied."""
    masks = dense(GROUPED)
    for step, sparsity in enumerate([0.1, 0.3, 0.45, 0.2, 0.4, 0.49, 0.5]):
        drop, grow = draw(GROUPED, 10 * seed + step, whole=step % 2 == 1), draw(GROUPED, 99 + step)
        living, share = asked(GROUPED, sparsity), ALLOCATIONS[allocation]
        after, _, _ = next_masks(masks, living, 0.0, drop, grow, share, Groups(2, 4))
        assert sum(int(mask.sum()) for mask in after.values()) == living
        if living < sum(int(mask.sum()) for mask in masks.values()):
            counts = living if allocation == "global" else share(drop, masks, living)
            as_arrays = [{name: tensor.numpy() for name, tensor in each.items()} for each in (masks, drop)]
            expected = pruned_in_groups(as_arrays[0], counts, as_arrays[1], 2, 4)
            assert all(np.array_equal(after[name].numpy(), expected[name]) for name in GROUPED)
        else:  # an ordinary birth
            plain, _, _ = next_masks(masks, living, 0.0, drop, grow, share)
            assert all(torch.equal(after[name], plain[name]) for name in GROUPED)
        assert all(groups_of(mask.numpy(), 4).sum(1).min() >= 2 for mask in after.values())
        masks = after
    assert all((groups_of(mask.numpy(), 4).sum(1) == 2).all() for mask in masks.values())


class Counted(dict):
    """Scores that note which layers were asked for."""

    def __missing__(self, name):
        self[name] = torch.rand(CHANNELS[name], generator=torch.Generator().manual_seed(len(self)))
        return self[name]


@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_pruning_in_units_reads_no_grow_score(allocation):
    masks = dense(CHANNELS)
    for sparsity in [0.1, 0.2, 0.3, 0.31, 0.32, 0.4, 0.42, 0.44, 0.46, 0.5, 0.7, 0.8]:
        drop, grow = Counted(), Counted()
        masks, _, _ = next_masks(masks, asked(CHANNELS, sparsity), 0.0, drop, grow, ALLOCATIONS[allocation], Blocks())
        assert not grow
    assert sum(int(mask.sum()) for mask in masks.values()) < 120


@pytest.mark.parametrize(("granularity", "sparsity"), [("2:4", 0.5), ("1x4", 0.8), ("4x4", 0.7), ("channels", 0.6)])
def test_a_training_ends_in_whole_units_with_exact_zeros(granularity, sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 16), nn.ReLU(), nn.Linear(16, 8)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    curve = Curve(0.0).then(2).then(12, sparsity, "cubic").then(20)
    engine = attach(optimizer, model, Recipe(curve, granularity=granularity, every=2))
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 4, 6, 6)).square().mean().backward()
        optimizer.step()
    for name, mask in engine.masks.items():
        assert bool((model.get_parameter(name)[~mask] == 0).all())
        if granularity == "2:4":
            assert (groups_of(mask.numpy(), 4).sum(1) == 2).all()
        else:
            units = units_of(tuple(mask.shape), parse_granularity(granularity))
            assert {mask.numpy().ravel()[unit].mean() for unit in units} <= {0.0, 1.0}
    largest = max(parse_granularity(granularity).size(mask.shape) for mask in engine.masks.values())
    assert abs(engine.masks.living - (1 - sparsity) * engine.masks.total) <= largest / 2
