"""Weights that share a codebook: beside a codebook that autograd trains, with births and deaths, hashed, and resumed."""

import pytest
import torch
from torch import nn

import settings
from lightning_sparse import Curve, Recipe, SparsityError, attach, cubic
from lightning_sparse.compress.levels import codebook
from lightning_sparse.compress.shared_weights import SharedWeights

START = torch.tensor([[0.1, 0.9, -0.5], [1.1, 0.0, -0.7]], dtype=torch.float64)
NUMBERS = torch.tensor([[1, 2, 0], [2, -1, 0]])  # of the entries -0.6, 0.1 and 1.0; one weight is zero


def numbers_of(weights, name):
    """Of each living weight, in order, the number of its value."""
    row = weights.parameters[name].detach().reshape(1, -1)
    return weights.levels_of(name).nearest(row.float())[row != 0]


def shared(parameter, entries=3, **arguments):
    return SharedWeights({"w": parameter}, entries, **arguments)


def loss(weight, images):
    return (images @ weight.T).tanh().square().sum() + (images @ weight.T).sum().sin()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.05),
    "momentum": lambda p: torch.optim.SGD(p, 0.05, 0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_it_trains_as_an_explicit_codebook_does(kind):
    """w = codebook[number], each entry's gradient that of autograd, divided by the number of its weights."""
    torch.manual_seed(0)
    images = torch.randn(20, 8, 3, dtype=torch.float64)
    parameter = nn.Parameter(START.clone())
    alive = START != 0
    optimizer = OPTIMIZERS[kind]([parameter])
    weights = shared(parameter)
    weights.install([optimizer])
    weights.begin()
    entries = nn.Parameter(torch.tensor([-0.6, 0.1, 1.0]).half().double())
    assert torch.equal(weights.levels_of("w").entries[0].double(), entries.detach())
    assert torch.equal(numbers_of(weights, "w"), NUMBERS[alive])
    explicit = OPTIMIZERS[kind]([entries])
    counts = torch.tensor([2.0, 1.0, 2.0])
    for batch in images:
        for each in (optimizer, explicit):
            each.zero_grad()
        loss(parameter, batch).backward()
        loss(torch.where(alive, entries[NUMBERS], 0.0), batch).backward()
        entries.grad /= counts
        parameter.grad[~alive] = 0.0  # as masks would have it
        optimizer.step()
        explicit.step()
        torch.testing.assert_close(parameter.detach(), torch.where(alive, entries[NUMBERS], 0.0), rtol=0, atol=1e-6)
        levels = weights.levels_of("w")  # in order, though entries may have passed each other
        assert torch.equal(levels.entries[0][numbers_of(weights, "w")], parameter.detach()[alive].float())


def test_for_adam_the_mean_is_the_sum_of_the_paper():
    torch.manual_seed(0)
    images = torch.randn(20, 8, 3, dtype=torch.float64)
    parameter, entries = nn.Parameter(START.clone()), nn.Parameter(torch.tensor([-0.6, 0.1, 1.0]).half().double())
    optimizer, explicit = torch.optim.Adam([parameter], 0.01), torch.optim.Adam([entries], 0.01)
    weights = shared(parameter)
    weights.install([optimizer])
    weights.begin()
    for batch in images:
        for each in (optimizer, explicit):
            each.zero_grad()
        loss(parameter, batch).backward()
        parameter.grad[1, 1] = 0.0
        loss(torch.where(START != 0, entries[NUMBERS], 0.0), batch).backward()
        optimizer.step()
        explicit.step()
    torch.testing.assert_close(parameter[0].detach(), entries[[1, 2, 0]].detach(), rtol=0, atol=1e-6)


def test_the_gradient_of_a_weight_at_no_entry_stays_its_own():
    parameter = nn.Parameter(START.clone())
    weights = shared(parameter)
    weights.begin()
    parameter.grad = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype=torch.float64)
    weights.before_step()
    assert parameter.grad.tolist() == [[1.0, 3.0, 4.5], [3.0, 5.0, 4.5]]


def test_the_dead_leave_and_the_newborn_join_the_nearest_entry():
    parameter = nn.Parameter(START.clone())
    weights = shared(parameter)
    weights.begin()
    parameter.data[0, 1] = 0.0  # of the entry 1.0, which goes on with one
    parameter.data[1, 0] = 2.0
    parameter.data[1, 1] = -0.2  # -0.6 is farther away than 0.1
    weights.after_step()
    assert parameter.tolist() == [
        pytest.approx([0.1, 0.0, -0.6], abs=1e-3),
        pytest.approx([2.0, 0.1, -0.6], abs=1e-3),
    ]
    assert numbers_of(weights, "w").tolist() == [1, 0, 2, 1, 0]
    parameter.data[1, 1] = 0.2  # from now on it counts
    weights.after_step()
    assert parameter[0, 0].item() == parameter[1, 1].item() == pytest.approx(0.15, abs=1e-3)
    parameter.data[1, 0] = 0.0
    weights.after_step()
    assert weights.levels_of("w").entries[0].tolist() == pytest.approx([-0.6, 0.15, 2.0], abs=1e-3)  # none is there now


def test_one_codebook_for_the_network():
    torch.manual_seed(0)
    first, second = nn.Parameter(torch.randn(20, 10)), nn.Parameter(torch.randn(5, 20))
    weights = SharedWeights({"a": first, "b": second}, 4, codebook_of="network")
    expected = codebook(torch.cat([first.flatten(), second.flatten()]).detach(), 4)
    weights.begin()
    assert weights.levels_of("a").entries.tolist() == weights.levels_of("b").entries.tolist()
    assert torch.equal(torch.cat([first.flatten(), second.flatten()]).unique(), expected.entries[0])
    weights.settle()
    levels = weights.levels_of("b")
    assert torch.equal(levels.entries, levels.entries.half().float())
    assert torch.equal(levels.entries[0][numbers_of(weights, "b")], second.detach().flatten())


def test_hashed_weights_are_said_by_the_seed_and_the_entries():
    torch.manual_seed(0)
    start = torch.randn(200, 50)
    start[start.abs() < 0.1] = 0.0
    a, b, c = (nn.Parameter(start.clone()) for _ in range(3))
    one, same, other = (shared(p, 8, assignment="hash", seed=s) for p, s in ((a, 3), (b, 3), (c, 4)))
    for weights in (one, same, other):
        weights.begin()
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(a == 0, start == 0)
    values = a[a != 0].unique()
    assert len(values) == 16  # eight and their negatives
    assert torch.equal(values, -values.flip(0))
    value = values[-1].detach()
    means = torch.stack([torch.cat([start[a == v], -start[a == -v]]).mean() for v in values.detach()])
    spread = a.detach()[a != 0].square().mean().sqrt()
    assert spread == pytest.approx(start[start != 0].square().mean().sqrt().item(), rel=1e-4)
    assert (values.detach() / means).tolist() == pytest.approx([(values[0] / means[0]).item()] * 16, rel=1e-3)
    a.grad = torch.randn_like(a)
    there, opposite = a.grad[a == value].clone(), a.grad[a == -value].clone()
    expected = (there.sum() - opposite.sum()) / (len(there) + len(opposite))
    one.before_step()
    assert a.grad[a == value].tolist() == pytest.approx([expected.item()] * len(there), rel=1e-4)
    assert a.grad[a == -value].tolist() == pytest.approx([-expected.item()] * len(opposite), rel=1e-4)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))


def train(model, optimizer, steps=20):
    images, labels = settings.digits().tensors
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


def parameters(model):
    return {"0.weight": model[0].weight, "2.weight": model[2].weight}


def test_masks_that_prune_and_grow_beside_it():
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    engine = attach(optimizer, model, Recipe(cubic(0.8, end=0.5), turnover=Curve(0.2), every=2), total_steps=20)
    weights = SharedWeights(parameters(model), 8)
    weights.install([optimizer])
    weights.begin()
    train(model, optimizer, 21)
    engine.verify()
    assert engine.sparsity == engine.masks.sparsity == pytest.approx(0.8, abs=1e-3)
    for name, weight in parameters(model).items():
        assert len(weight[weight != 0].unique()) <= 8
        assert not weight[~engine.masks[name]].any()
    assert any(update.replaced for update in engine.history)


@pytest.mark.parametrize("kind", [torch.optim.Adafactor, torch.optim.LBFGS])
def test_an_optimizer_that_mixes_elements_is_refused(kind):
    model = net()
    with pytest.raises(SparsityError, match="train with SGD"):
        SharedWeights(parameters(model), 4).install([kind(model.parameters())])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"entries": 257}, r"entries=257 is not an integer in \[2, 256\]"),
        ({"entries": 4, "codebook_of": "layers"}, "did you mean 'layer'"),
        ({"entries": 4, "assignment": "kmean"}, "did you mean 'kmeans'"),
        ({"entries": 4, "seed": -1}, "seed=-1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(SparsityError, match=message):
        SharedWeights({}, **arguments)


@pytest.mark.parametrize("arguments", [{}, {"codebook_of": "network"}, {"assignment": "hash"}])
def test_it_goes_on_bit_for_bit_from_its_state(arguments):
    def run(steps, again=None):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
        weights = SharedWeights(parameters(model), 4, **arguments)
        weights.install([optimizer])
        if again is None:
            weights.begin()
        else:
            model.load_state_dict(again[0])
            optimizer.load_state_dict(again[1])
            weights.load_state_dict(again[2])
        train(model, optimizer, steps)
        return [model.state_dict(), optimizer.state_dict(), weights.state_dict()]

    whole, resumed = run(30), run(10, run(20))
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
    for kind in ("values", "numbers"):
        assert all(torch.equal(whole[2][kind][name], resumed[2][kind][name]) for name in whole[2][kind])


@pytest.mark.parametrize("rate", [0.1, 0.01])
def test_a_wide_layer_learns_at_the_rate_of_the_unshared(rate):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(), nn.Linear(600, 10))
    optimizer = torch.optim.SGD(model.parameters(), rate, 0.9)
    weights = SharedWeights({f"{place}.weight": model[place].weight for place in (0, 2, 4)}, 16)
    train(model, optimizer, 10)
    weights.install([optimizer])
    weights.begin()
    train(model, optimizer, 30)
    images, labels = settings.digits().tensors
    assert (model(images).argmax(1) == labels).float().mean() > 0.5
