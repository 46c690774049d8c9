"""transformers' Conv1D is a Linear layer whose weight is transposed: everything has to be what it is for that layer."""

import copy

import pytest
import torch
from torch import nn

import lightning_sparse
import settings
from lightning_sparse import Curve, Engine, LayerRules, Recipe, allocate, attach, cubic, sparsifiable
from lightning_sparse.anatomy.dead_units import dead_units
from lightning_sparse.anatomy.flops import layer_flops
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.anatomy.layer_order import layer_order
from lightning_sparse.compress import Code, Prune, Quantise, Share, compress, decompress
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import measure_cost

Conv1D = pytest.importorskip("transformers.pytorch_utils").Conv1D


def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 4)).double()


def twin(net):
    """The same network, its first two layers as Conv1D."""
    net = copy.deepcopy(net)
    for at in (0, 2):
        layer = Conv1D(net[at].out_features, net[at].in_features).double()
        layer.weight.data.copy_(net[at].weight.data.T)
        layer.bias.data.copy_(net[at].bias.data)
        net[at] = layer
    return net


def turned(masks):
    return {name: mask if name == "4.weight" else mask.T for name, mask in masks.items()}


def same(masks, others):
    return list(masks) == list(others) and all(torch.equal(masks[name], others[name]) for name in masks)


CHOICES = [
    ("2:4", "global"),
    ("1:4", "uniform"),
    ("1x4", "global"),
    ("4x2", "erk"),
    ("channels", "global"),
    ("channels", LayerRules("uniform", first=0.5)),
    ("weights", "erk"),
]


def test_it_is_a_target_and_so_are_its_subclasses_and_no_other_class_of_that_name():
    class Quantised(Conv1D):
        pass

    mine = type("Conv1D", (nn.Module,), {})()
    mine.weight = nn.Parameter(torch.ones(2, 3))
    net = nn.ModuleDict({"theirs": Conv1D(3, 2), "sub": Quantised(3, 2), "mine": mine})
    assert list(sparsifiable(net)) == ["theirs.weight", "sub.weight"]
    assert list(sparsifiable(net, exclude=["sub.*"])) == ["theirs.weight"]


@pytest.mark.parametrize(("granularity", "allocation"), CHOICES)
def test_masks_are_those_of_the_linear_layer_transposed(granularity, allocation):
    net = linear()
    expected = allocate(sparsifiable(net), 0.5, allocation, granularity)
    assert same(turned(allocate(sparsifiable(twin(net)), 0.5, allocation, granularity)), expected)


@pytest.mark.parametrize("with_model", [True, False])
@pytest.mark.parametrize(("granularity", "allocation"), CHOICES)
def test_a_training_has_the_masks_of_the_linear_layer(granularity, allocation, with_model):
    turnover = Curve(0.0) if ":" in granularity else Curve(0.2)
    recipe = Recipe(
        cubic(0.5, end=8), turnover=turnover, every=2, granularity=granularity, allocation=allocation, grow="gradient"
    )
    found = []
    for net in (linear(), twin(linear())):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        if with_model:
            engine = attach(optimizer, net, recipe)
        else:
            engine = Engine(sparsifiable(net), recipe)
            engine.install([optimizer])
            engine.birth()
        draw = torch.Generator().manual_seed(1)
        for _ in range(10):
            optimizer.zero_grad()
            net(torch.randn(32, 16, generator=draw, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
        engine.verify()
        found.append(engine.masks)
    assert found[0].sparsity == pytest.approx(0.5, abs=0.05)
    assert same(turned(found[1]), dict(found[0]))


def test_groups_run_along_the_inputs_and_units_along_the_outputs():
    parameters = sparsifiable(nn.Sequential(Conv1D(6, 8)))
    groups = allocate(parameters, 0.5, granularity="2:4")["0.weight"]
    assert groups.reshape(2, 4, 6).sum(1).eq(2).all()
    channels = allocate(parameters, 0.5, granularity="channels")["0.weight"]
    assert channels.all(0).sum() == 3  # three of the six outputs, with all of their inputs
    assert channels.any(0).sum() == 3
    with pytest.raises(SparsityError, match=r"'0.weight' \(8, 6\).*exclude=\['0.weight'\]"):
        allocate(sparsifiable(nn.Sequential(Conv1D(8, 6))), 0.5, granularity="2:4")  # six inputs


def test_dead_units_order_and_flops_are_those_of_the_linear_layer():
    net, x = linear(), torch.rand(5, 16, dtype=torch.float64)
    masks = allocate(sparsifiable(net), 0.9)
    masks["0.weight"][3], masks["2.weight"][:, 5] = False, False  # a unit without inputs, and one that nothing reads
    found = []
    for each, theirs in ((net, masks), (twin(net), turned(masks))):
        with CallRecorder(each) as recorder:
            loss = each(x).sum()
        order = layer_order(each, recorder.calls, [loss])
        found.append((order, layer_flops(recorder.calls), dead_units(each, theirs, order.chains)))
    assert found[0][:2] == found[1][:2]
    assert found[1][0].chains == (("0.weight", "2.weight", "4.weight"),)
    assert same(found[0][2], found[1][2])
    assert found[1][2]["0.weight"][[3, 5]].all()
    without = dead_units(twin(net), {"2.weight": masks["2.weight"].T}, [("0.weight", "2.weight")])
    assert without["0.weight"][5]
    assert not without["0.weight"].all()


@pytest.mark.parametrize(
    "steps",
    [
        [Code()],
        [Prune(0.6), Code()],
        [Prune(0.6), Quantise(bits=2, per="row"), Code()],
        [Quantise(bits=3, per="row", symmetric=True)],
        [Prune(0.5), Share(bits=2, codebook_of="network"), Code()],
    ],
    ids=lambda steps: " ".join(map(str, steps)),
)
@pytest.mark.parametrize("fine_tune", [0, 3])
def test_in_few_bits_it_is_the_linear_layer_and_takes_as_many(steps, fine_tune):
    net, data = linear().float(), (torch.rand(40, 16), torch.arange(40) % 4)
    found = [
        compress(each, steps, data=data, fine_tune=fine_tune, optimizer=lambda weights: torch.optim.SGD(weights, 0.1))
        for each in (net, twin(net).float())
    ]
    for at in (0, 2):
        torch.testing.assert_close(found[1].model[at].weight.T, found[0].model[at].weight)
    assert len(found[1].content) == len(found[0].content)
    assert torch.equal(decompress(found[1].content, twin(net).float())(data[0]), found[1].model(data[0]))


def test_hashed_it_is_decoded_as_it_was():
    net = twin(linear()).float()
    found = compress(net, [Prune(0.5), Share(bits=2, assignment="hash"), Code()])
    assert torch.equal(decompress(found.content, net)[0].weight, found.model[0].weight)
    assert 4 <= len(found.model[0].weight.unique()) <= 9


@pytest.mark.parametrize("include", [None, ["body.*.weight"]])
def test_quantise_gives_each_of_its_outputs_a_grid(include):
    callbacks = [lightning_sparse.Quantise(2, per="row", include=include) for _ in range(2)]
    for callback, make in zip(callbacks, (lambda body: body, twin), strict=True):
        module = settings.Module()
        module.body = make(nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 30)))
        module.float()
        settings.quiet(callback, max_epochs=1).fit(module, settings.batches())
        assert callback.weights.levels_of("body.0.weight").entries.shape == (30, 4)
        weight = module.body[0].weight.detach()
        rows = weight if isinstance(module.body[0], nn.Linear) else weight.T
        assert max(len(row.unique()) for row in rows) == callback.distinct_values["body.0.weight"] == 4


def test_its_cost_is_that_of_the_linear_layer():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8))
    other = nn.Sequential(nn.Flatten(), Conv1D(8, 16))
    images, labels = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    for name in ("cost_flops_dense", "cost_living"):
        values = [
            next(row.value for row in measure_cost(each, (images, labels)).records if row.metric == name)
            for each in (net, other)
        ]
        assert values[0] == values[1]
