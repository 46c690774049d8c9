import numpy as np
import pytest
import torch

from lightning_sparse.engine.allocation import ALLOCATIONS, apportion, erk, global_, globally, layer_table, uniform
from lightning_sparse.engine.layer_rules import LayerRules
from lightning_sparse.engine.masks import Masks


def masks(**shapes):
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


NET = masks(first=(300, 784), second=(100, 300), head=(10, 100))
CNN = masks(conv=(32, 3, 3, 3), wide=(64, 32, 3, 3), head=(10, 64))


@pytest.mark.parametrize("name", ALLOCATIONS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("net", [NET, CNN])
def test_counts_are_exact_and_within_every_layer(name, sparsity, net):
    total = sum(mask.numel() for mask in net.values())
    living = max(total - round(sparsity * total), len(net))
    generator = torch.Generator().manual_seed(0)
    scores = {layer: torch.rand(mask.shape, generator=generator) for layer, mask in net.items()}
    counts = ALLOCATIONS[name](scores, net, living)
    assert sum(counts.values()) == living
    assert all(1 <= counts[layer] <= mask.numel() for layer, mask in net.items())


def erk_densities(shapes, living):
    """Evci et al. 2020: density_l = eps * sum(shape_l) / prod(shape_l), layers above 1 made dense one by one."""
    dense: set[str] = set()
    while True:
        room = living - sum(np.prod(shapes[name]) for name in dense)
        eps = room / sum(sum(shape) for name, shape in shapes.items() if name not in dense)
        density = {name: 1.0 if name in dense else eps * sum(s) / np.prod(s) for name, s in shapes.items()}
        full = {name for name, value in density.items() if value > 1}
        if not full:
            return density, dense
        dense |= {max(full, key=density.__getitem__)}


@pytest.mark.parametrize(
    ("net", "sparsity", "full"),
    [
        (NET, 0.9, {"head"}),  # the case that a plain proportion gets wrong
        (NET, 0.98, set()),
        (CNN, 0.9, {"head"}),
        (CNN, 0.2, {"conv", "head"}),
    ],
)
def test_erk_equals_the_closed_form(net, sparsity, full):
    total = sum(mask.numel() for mask in net.values())
    living = total - round(sparsity * total)
    density, dense = erk_densities({name: tuple(mask.shape) for name, mask in net.items()}, living)
    assert dense == full
    counts = erk({}, net, living)
    for name, mask in net.items():
        assert abs(counts[name] - density[name] * mask.numel()) < 1


def test_uniform_is_within_one_connection_of_the_same_density():
    counts = uniform({}, NET, 26_620)
    for name, mask in NET.items():
        assert abs(counts[name] - 0.1 * mask.numel()) <= 1


def test_global_equals_a_sort_of_everything():
    generator = torch.Generator().manual_seed(3)
    scores = {name: torch.rand(mask.shape, generator=generator) for name, mask in CNN.items()}
    everything = np.sort(np.concatenate([score.numpy().ravel() for score in scores.values()]))
    counts = global_(scores, CNN, 1000)
    for name, score in scores.items():
        assert counts[name] == int((score.numpy() >= everything[-1000]).sum())


def test_global_growth_goes_where_the_grow_scores_are():
    before = {"a": torch.tensor([True, False, False]), "b": torch.tensor([True, False, False])}
    scores = {"a": torch.tensor([9.0, 0.1, 0.2]), "b": torch.tensor([9.0, 0.3, 0.4])}
    assert global_(scores, before, 4) == {"a": 1, "b": 3}


def test_global_leaves_the_best_connection_of_a_layer_that_would_be_emptied():
    scores = {"weak": torch.tensor([0.1, 0.3, 0.2]), "strong": torch.tensor([5.0, 6.0, 7.0])}
    assert global_(scores, masks(weak=(3,), strong=(3,)), 3) == {"weak": 1, "strong": 2}


def test_global_leaves_one_connection_in_each_of_several_layers_that_would_be_emptied_in_turn():
    """Each layer kept costs the next weakest a connection, until that one would be emptied too."""
    scores = {"a": torch.tensor([0.1, 0.2]), "b": torch.tensor([0.3, 0.4]), "c": torch.tensor([0.5, 0.6, 9.0, 9.1])}
    net = masks(a=(2,), b=(2,), c=(4,))
    assert [global_(scores, net, living) for living in (5, 4, 3)] == [
        {"a": 1, "b": 1, "c": 3},
        {"a": 1, "b": 1, "c": 2},
        {"a": 1, "b": 1, "c": 1},
    ]
    after = globally(scores, net, {"a": 2, "b": 2, "c": 4}, 4 - 8)
    assert [mask.tolist() for mask in after.values()] == [[False, True], [False, True], [False, False, True, True]]


@pytest.mark.parametrize("seed", range(20))
def test_global_equals_removing_connections_one_by_one(seed):
    """The lowest score dies, the earlier of equal ones, unless its layer has no more than it keeps."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"a": (5, 4), "b": (3,), "c": (40,), "d": (2, 2)}
    scores = {
        name: torch.randint(0, 12, shape, generator=generator).float() * (0.1 if name == "b" else 1.0)
        for name, shape in shapes.items()
    }
    before = {name: torch.rand(shape, generator=generator) < 0.7 for name, shape in shapes.items()}
    for name, mask in before.items():
        mask.view(-1)[-1] = True
        scores[name] += torch.rand(shapes[name], generator=generator) * (seed % 2)  # every other time without ties
    sizes = {name: int(mask.sum()) for name, mask in before.items()}
    present = sum(sizes.values())
    for least in (None, {"a": 6, "b": 3, "c": 11, "d": 2}):
        keep = {name: min((least or dict.fromkeys(shapes, 1))[name], size) for name, size in sizes.items()}
        for living in range(sum(keep.values()), present + 1, 3):
            alive = {name: mask.clone().view(-1) for name, mask in before.items()}
            order = sorted(
                (float(scores[name].view(-1)[at]), place, at)
                for place, (name, mask) in enumerate(alive.items())
                for at in mask.nonzero().view(-1).tolist()
            )
            while sum(int(mask.sum()) for mask in alive.values()) > living:
                for i, (_, place, at) in enumerate(order):
                    name, layer = list(alive.items())[place]
                    if layer.sum() > keep[name]:
                        layer[at] = False
                        del order[i]
                        break
            after = globally(scores, before, sizes, living - present, least)
            counts = {name: int(mask.sum()) for name, mask in after.items()}
            assert sum(counts.values()) == living
            assert all(counts[name] >= keep[name] for name in shapes)
            assert all(torch.equal(after[name].view(-1), alive[name]) for name in shapes)
            if least is None:
                assert counts == global_(scores, before, living)


def test_tiny_weights_still_get_one():
    most = {"a": 2, "b": 5, "c": 5}
    assert apportion(3, {"a": 1e6, "b": 1e-6, "c": 1e-6}, most) == {"a": 1, "b": 1, "c": 1}


def test_shares_stay_between_least_and_most():
    """In proportion 3 : 1 : 1, 50 would be 30, 10, 10; a takes 22, so b and c get 14 each; c's least is 20, so b gets 8."""
    weights, most = {"a": 3.0, "b": 1.0, "c": 1.0}, {"a": 22, "b": 50, "c": 50}
    assert apportion(50, weights, most, least=0) == {"a": 22, "b": 14, "c": 14}
    assert apportion(50, weights, most, {"a": 1, "b": 1, "c": 20}) == {"a": 22, "b": 8, "c": 20}


def test_a_share_of_weight_zero_is_the_least():
    assert apportion(9, {"a": 1.0, "b": 0.0}, {"a": 20, "b": 20}, least=0) == {"a": 9, "b": 0}
    assert apportion(9, {"a": 1.0, "b": 0.0}, {"a": 20, "b": 20}) == {"a": 8, "b": 1}


@pytest.mark.parametrize("share", [uniform, erk, LayerRules("uniform"), LayerRules("erk")])
def test_pruning_one_by_one_bears_nothing_and_growth_kills_nothing(share):
    """Largest remainders alone would give a layer one more here and there while the total falls (Alabama, 1880)."""
    present = masks(first=(60, 64), second=(30, 60), head=(10, 30))
    sizes = {name: mask.numel() for name, mask in present.items()}
    total = sum(sizes.values())
    weights = {
        name: float(m.numel() if share in (uniform, LayerRules("uniform")) else sum(m.shape))
        for name, m in present.items()
    }
    counts, paradoxes = sizes, 0
    for living in [*range(total - 1, 0, -999), *range(640, 300, -1), *range(301, 640)]:
        before, counts = counts, share({}, present, living)
        assert sum(counts.values()) == living
        steps = [counts[name] - before[name] for name in counts]
        assert max(steps) <= 0 or min(steps) >= 0
        raw = apportion(living, weights, sizes)
        assert all(abs(raw[name] - count) <= 2 for name, count in counts.items())
        paradoxes += raw != counts
        present = {name: (torch.arange(sizes[name]) < counts[name]).view(mask.shape) for name, mask in present.items()}
    assert paradoxes  # it did happen


def test_a_table_of_the_masks_of_a_network():
    table = layer_table(Masks({"a.weight": torch.arange(6).view(2, 3) < 4, "b.weight": torch.ones(1, 1, 2, 2) > 0}))
    assert [line.split() for line in table.splitlines()] == [
        ["layer", "shape", "connections", "living", "density", "%"],
        ["a.weight", "2", "x", "3", "6", "4", "66.67"],
        ["b.weight", "1", "x", "1", "x", "2", "x", "2", "4", "4", "100.00"],
        ["total", "10", "8", "80.00"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
