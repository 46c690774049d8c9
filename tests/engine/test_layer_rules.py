"""Rules of single layers against counts worked out by hand, and against removing connections one by one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lightning_sparse import Curve, Recipe, attach
from lightning_sparse.engine.granularities import parse_granularity
from lightning_sparse.engine.granularity import Blocks
from lightning_sparse.engine.layer_rules import LayerRules
from lightning_sparse.engine.update import allocate, next_masks
from lightning_sparse.errors import SparsityError

# 1000 connections: 100, 400, 300, 200
SHAPES = {"stem.weight": (10, 10), "a.weight": (20, 20), "b.weight": (15, 20), "head.weight": (10, 20)}


def weights_of(seed=0, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def dense(shapes=SHAPES):
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def counts(rules, living, masks=None, scores=None):
    return list(rules(scores or weights_of(), masks or dense(), living).values())


@pytest.mark.parametrize(
    ("rules", "living", "expected"),
    [
        # 300 live; the stem keeps its 100, so that 200 of 900 are left: in proportion to 400, 300, 200
        (LayerRules("uniform", first=0.0), 300, [100, 89, 67, 44]),  # 88.9, 66.7, 44.4
        # ... and the head 200: none is left for the others but 0; so 400 live, and 100 are shared 4 : 3
        (LayerRules("uniform", first=0.0, last=0.0), 400, [100, 57, 43, 200]),  # 57.1, 42.9
        # a keeps 30 %, 120; 80 are left for 600: 1 : 3 : 2
        (LayerRules("uniform", {"a.*": 0.7}), 200, [13, 120, 40, 27]),  # 13.3, 40, 26.7
        # the head keeps half, 100; 100 are left, in proportion to 10 + 10, 20 + 20, 15 + 20
        (LayerRules("erk", last=0.5), 200, [21, 42, 37, 100]),  # 21.05, 42.1, 36.8
        # ERK of 270 would be 45, 90, 79, 56 and gives the stem its 45; a floor of 0.3 lifts a to 120, b to 90
        (
            LayerRules("erk", floor=0.3),
            330,
            [48, 120, 90, 72],
        ),  # 30 to the stem at least, 60 to the head; 120 are 20 : 30
        # a pattern of several layers: 0.9 of 400 and of 300 die, and 200 - 40 - 30 are left for 300
        (LayerRules("uniform", {"[ab].weight": 0.9}), 200, [43, 40, 30, 87]),  # 43.3, 86.7
    ],
)
def test_counts_worked_out_by_hand(rules, living, expected):
    assert counts(rules, living) == expected


def test_without_rules_it_is_its_base():
    weights = weights_of()
    for base in ("global", "uniform", "erk"):
        for name, mask in allocate(weights, 0.83, LayerRules(base)).items():
            assert torch.equal(mask, allocate(weights, 0.83, base)[name])


def test_a_rule_scales_with_the_sparsity_of_the_network():
    """The head ends at 0.6 when the network ends at 0.8: at 0.4 it is at 0.3, at 0.2 at 0.15; and 1000 in all."""
    rules = LayerRules("uniform", last=0.6).towards(0.8)
    assert [rules({}, dense(), living)["head.weight"] for living in (999, 800, 600, 400, 200)] == [
        200,
        170,
        140,
        110,
        80,
    ]
    assert rules({}, dense(), 600) == {"stem.weight": 57, "a.weight": 230, "b.weight": 173, "head.weight": 140}
    assert LayerRules("uniform", last=0.6)({}, dense(), 600)["head.weight"] == 80  # from the start, by default


def by_removing(weights, living, keep):
    """One ranking, the lowest first; a layer loses none of those that it has to keep."""
    entries = [
        (place, name, at, w) for place, (name, t) in enumerate(weights.items()) for at, w in enumerate(t.view(-1))
    ]
    order = sorted((float(w), place, at, name) for place, name, at, w in entries)
    left, total = {name: tensor.numel() for name, tensor in weights.items()}, sum(w.numel() for w in weights.values())
    masks = {name: np.ones(tensor.numel(), bool) for name, tensor in weights.items()}
    for _, _, at, name in order:
        if total > living and left[name] > keep[name]:
            masks[name][at], left[name], total = False, left[name] - 1, total - 1
    return {name: mask.reshape(weights[name].shape) for name, mask in masks.items()}


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.9, 0.93])
def test_one_ranking_stops_at_the_floors(sparsity):
    """Layers of very different scales: without floors the weakest would be emptied but for one connection."""
    weights = {name: w * scale for (name, w), scale in zip(weights_of().items(), (0.1, 1.0, 0.3, 2.0), strict=True)}
    masks = allocate(weights, sparsity, LayerRules(floor=0.05))
    keep = {"stem.weight": 5, "a.weight": 20, "b.weight": 15, "head.weight": 10}
    expected = by_removing(weights, 1000 - round(sparsity * 1000), keep)
    assert all(np.array_equal(mask.numpy(), expected[name]) for name, mask in masks.items())
    if sparsity > 0.5:
        assert int(masks["stem.weight"].sum()) == 5
        assert int(allocate(weights, sparsity)["stem.weight"].sum()) == 1


def test_one_ranking_of_the_layers_without_a_rule():
    weights = weights_of(3)
    masks = allocate(weights, 0.7, LayerRules(first=0.0, sparsity={"b*": 0.5}))  # 100 and 150 of 300 are given
    rest = {name: weights[name] for name in ("a.weight", "head.weight")}
    expected = by_removing(rest, 50, dict.fromkeys(rest, 1)) | by_removing(
        {"b.weight": weights["b.weight"]}, 150, {"b.weight": 0}
    )
    assert bool(masks["stem.weight"].all())
    assert all(np.array_equal(masks[name].numpy(), mask) for name, mask in expected.items())


@pytest.mark.parametrize("base", ["global", "uniform", "erk"])
@pytest.mark.parametrize("seed", range(6))
def test_a_gradual_schedule_is_exact_all_the_way(base, seed):
    """At every step: the exact total, no birth while the network shrinks, no death while it grows, floors kept."""
    generator = np.random.default_rng(seed)
    rules = LayerRules(
        base, {"a.*": float(generator.uniform(0.75, 0.95))}, last=float(generator.uniform(0.6, 0.9)), floor=0.04
    )
    rules.check(weights_of(), [0.0, 0.8, 0.5])
    towards = rules.towards(0.8)
    masks = dense()
    before = {name: mask.numel() for name, mask in masks.items()}
    jump = int(generator.integers(3, 40))  # many a step, and now and then one by one, where rounding shows
    down = [*range(998, 600, -jump), *range(600, 520, -1), *range(519, 200, -jump), 200]
    up = [*range(201, 400, jump), *range(400, 460), 500]
    for living in [*down, *up, *range(498, 200, -jump), 200]:
        shrinks = living < sum(before.values())
        masks, _, _ = next_masks(masks, living, 0.0, weights_of(living), weights_of(living + 5000), towards)
        after = {name: int(mask.sum()) for name, mask in masks.items()}
        steps = [after[name] - before[name] for name in SHAPES]
        assert sum(after.values()) == living
        assert max(steps) <= 0 if shrinks else min(steps) >= 0
        assert all(after[name] >= round(0.04 * np.prod(SHAPES[name])) for name in ("stem.weight", "b.weight"))
        share = (1000 - living) / 800
        for name, own in (("a.weight", rules.sparsity["a.*"]), ("head.weight", rules.last)):
            dead = np.prod(SHAPES[name]) - after[name]
            assert abs(dead - own * share * np.prod(SHAPES[name])) < 2.5
            if living == 200:
                assert dead == round(own * np.prod(SHAPES[name]))
        before = after


@pytest.mark.parametrize("base", ["global", "uniform", "erk"])
def test_rules_with_channels(base):
    """Channels of 9, 20, 16 and 20: the head keeps 3 of 8, which 0.6 of it rounds to; a floor of 0.1 is 2 of 12."""
    shapes = {"stem.weight": (6, 1, 3, 3), "a.weight": (15, 20), "b.weight": (12, 16), "head.weight": (8, 20)}
    rules, weights = LayerRules(base, first=0.0, last=0.6, floor=0.1), weights_of(1, shapes)
    weights["b.weight"] *= 0.01
    total = sum(weight.numel() for weight in weights.values())
    living = 54 + 60 + 100 + 32
    masks = allocate(weights, 1 - living / total, rules, "channels")
    rows = {name: mask.reshape(mask.shape[0], -1).float().mean(1) for name, mask in masks.items()}
    assert all(set(row.tolist()) <= {0.0, 1.0} for row in rows.values())
    channels = {name: int(row.sum()) for name, row in rows.items()}
    # 132 are left for 300 and 192: 0.268 of each is 80.5 and 51.5, 4 and 3 channels; by dimensions 35 : 28, 73 and 59
    others = {"global": (5, 2), "uniform": (4, 3), "erk": (4, 4)}[base]
    assert tuple(channels.values()) == (6, *others, 3)
    means = weights["a.weight"].mean(1)
    assert torch.equal(rows["a.weight"].bool(), means >= means.sort(descending=True).values[others[0] - 1])


@pytest.mark.parametrize("granularity", ["channels", "1x5", "2x5"])
@pytest.mark.parametrize("base", ["global", "uniform", "erk"])
def test_a_gradual_schedule_in_units_ends_where_the_rules_say(base, granularity):
    shapes = {"stem.weight": (6, 5), "a.weight": (20, 15), "b.weight": (30, 10), "head.weight": (10, 10)}
    rules, units = LayerRules(base, first=0.0, last=0.4, floor=0.1), parse_granularity(granularity)
    rules.check(weights_of(0, shapes), [0.0, 0.7], units)
    masks, total = dense(shapes), 730
    for step in range(1, 101):
        living = total - round(0.7 * total * (1 - (1 - step / 100) ** 3))
        drop = weights_of(step, shapes)
        masks, _, _ = next_masks(masks, living, 0.0, drop, {}, rules.towards(0.7), units)  # no grow score is read
        assert bool(masks["stem.weight"].all())
        assert all(int(masks[name].sum()) >= 30 for name in ("a.weight", "b.weight"))
    assert int(masks["head.weight"].sum()) == 60
    largest = max(units.size(mask.shape) for mask in masks.values())
    assert abs(sum(int(mask.sum()) for mask in masks.values()) - 219) <= largest * (0.5 if base == "global" else 1)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            LayerRules(sparsity={"hed.*": 0.5}),
            r"sparsity\['hed\.\*'\] matches no parameter .*did you mean 'head.weight'\?",
        ),
        (LayerRules(sparsity={"*.weight": 0.5}), "a rule for every layer"),
        (LayerRules(sparsity={"a.*": 0.5, "[ab].*": 0.6}), r"'a.weight' has two rules, .*=0.5 and .*=0.6: leave one"),
        (
            LayerRules(sparsity={"s*": 0.5}, first=0.0),
            r"'stem.weight' has two rules, sparsity\['s\*'\]=0.5 and first=0.0",
        ),
        # a and b keep 700, where 200 live; stem and head may lose 298 of 300
        (LayerRules(sparsity={"[ab].*": 0.0}), r"of 200 .* 700 are .* leaves -500 for 2 others.* from 0\.0 to 0\.298,"),
        # a, b and the head keep 9, so that 191 are left for the stem's 100
        (
            LayerRules(sparsity={"[abh]*": 0.99}),
            r"9 are in .* leaves 191 for 1 others, .* have 100 .* from 0\.891 to 0\.99,",
        ),
        (LayerRules(first=0.0, floor=0.2), r"leaves 100 for 3 others, .* keep at least 180 \(floor=0.2\).* to 0\.72,"),
    ],
)
def test_rules_that_cannot_be_met_are_refused_before_training(rules, message):
    with pytest.raises(SparsityError, match=message):
        rules.check(weights_of(), [0.0, 0.8])
    with pytest.raises(SparsityError, match=message):
        allocate(weights_of(), 0.8, rules)


def test_rules_at_the_edge_are_met():
    """The stem and the head are left all of their 300, or one connection each."""
    edge = LayerRules(sparsity={"[ab].*": 0.999})  # which leaves both of them one connection
    edge.check(weights_of(), [0.0, 0.698])
    assert counts(edge, 302) == [100, 1, 1, 200]
    with pytest.raises(SparsityError, match=r"from 0\.698 to 0\.996"):
        edge.check(weights_of(), [0.0, 0.697])
    edge.check(weights_of(), [0.0, 0.996])
    assert counts(edge, 4) == [1, 1, 1, 1]


def test_moving_connections_between_ruled_layers_is_refused():
    with pytest.raises(SparsityError, match="redistribute=True moves connections"):
        LayerRules(first=0.0).check(weights_of(), [0.5], redistribute=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base": "globl"}, "did you mean 'global'"),
        ({"sparsity": {"a": 90}}, r"sparsity\['a'\]=90 .*write 0.9 for 90 percent"),
        ({"sparsity": 0.5}, "sparsity=0.5 is not a mapping"),
        ({"first": 1.0}, r"first=1.0 .*\[0, 1\)"),
        ({"last": -0.1}, "last=-0.1"),
        ({"floor": 1.5}, "floor=1.5"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        LayerRules(**arguments)


def test_a_checkpoint_can_name_them():
    rules = LayerRules("uniform", {"a.*": 0.5}, last=0.0)
    named = Recipe(Curve(0.9), allocation=rules).plain()["allocation"]
    assert named == "LayerRules(base='uniform', sparsity={'a.*': 0.5}, first=None, last=0.0, floor=0.0)"
    assert repr(copy.deepcopy(rules.towards(0.9))) == repr(rules)
    assert rules == LayerRules("uniform", {"a.*": 0.5}, last=0.0) != LayerRules("uniform", {"a.*": 0.6}, last=0.0)


def test_they_can_be_written_in_yaml():
    hydra_utils, omegaconf = pytest.importorskip("hydra.utils"), pytest.importorskip("omegaconf")
    text = """
    _target_: lightning_sparse.LayerRules
    base: erk
    sparsity: {"body.*": 0.5}
    last: 0.0
    """
    rules = hydra_utils.instantiate(omegaconf.OmegaConf.create(text))
    assert repr(rules) == repr(LayerRules("erk", {"body.*": 0.5}, last=0.0))


def test_a_training_keeps_them():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 5))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rules = LayerRules(first=0.0, last=0.4, floor=0.05).towards(0.4)
    turnover = Curve(0.0).then(12).then(20, 0.3)
    recipe = Recipe(Curve(0.0).then(2).then(12, 0.4, "cubic").then(20), turnover, allocation=rules, every=2)
    engine = attach(optimizer, model, recipe)
    for _ in range(20):
        optimizer.zero_grad()
        model(torch.randn(8, 20)).square().mean().backward()
        optimizer.step()
    # 600 + 600 + 100 connections: 520 die, 40 of them in the head, none in the first
    assert [int(mask.sum()) for mask in engine.masks.values()] == [600, 120, 60]


def test_units_round_the_rules_too():
    """Of 4 channels of 5, a sparsity of 0.3 is 6 of 20 connections: 14 live, which 3 channels are nearest to."""
    rules = LayerRules(sparsity={"a": 0.3})
    masks = {"a": torch.ones(4, 5, dtype=torch.bool), "b": torch.ones(16, 5, dtype=torch.bool)}
    scores = {name: torch.rand(mask.shape) for name, mask in masks.items()}
    after, _, _ = next_masks(masks, 50, 0.0, scores, scores, rules, Blocks())
    assert [int(mask.sum()) for mask in after.values()] == [15, 35]
