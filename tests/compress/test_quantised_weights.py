"""Weights on a grid: by hand, with zeros, with masks, and around optimizers of every kind."""

import pytest
import torch
from torch import nn

import settings
from lightning_sparse import Curve, Recipe, SparsityError, attach, cubic
from lightning_sparse.compress.levels import even_grid
from lightning_sparse.compress.quantised_weights import QuantisedWeights


def weight(*rows):
    return nn.Parameter(torch.tensor(rows))


def held(parameter, levels, **arguments):
    weights = QuantisedWeights({"w": parameter}, levels, **arguments)
    weights.begin()
    return weights


def test_values_are_those_of_the_grid_and_zeros_stay_zeros():
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(30, 40))
    parameter.data[torch.rand(30, 40) < 0.5] = 0.0
    before = parameter.detach().clone()
    for levels in (2, 4, 7, 256):
        for per_row, symmetric in ((False, False), (True, False), (False, True), (True, True)):
            parameter.data.copy_(before)
            weights = held(parameter, levels, per="row" if per_row else "tensor", symmetric=symmetric)
            grid = even_grid(before, before != 0, levels, per_row=per_row, symmetric=symmetric)
            assert torch.equal(weights.levels_of("w").entries, grid.entries)
            error = (parameter.detach() - grid.round(before))[before != 0]
            assert torch.count_nonzero(error) <= 1  # a weight halfway between two levels
            assert bool((parameter[before == 0] == 0).all())
            for row, entries in zip(parameter.detach() if per_row else [parameter.detach()], grid.entries, strict=True):
                assert set(row[row != 0].tolist()) <= set(entries.tolist())


def test_the_gradient_of_the_quantised_moves_the_latent_by_hand():
    parameter = weight([0.0, 1.0, 2.0, 4.0])
    weights = held(parameter, 4)  # of 1, 2, 3, 4
    optimizer = torch.optim.SGD([parameter], 1.0, weight_decay=0.1)
    weights.install([optimizer])
    for latent, written in ((1.7, 2.0), (2.33, 2.0), (2.897, 3.0)):  # 0.9 of it, and 0.8 more
        parameter.grad = torch.tensor([[0.0, -0.8, 0.0, 0.0]])
        optimizer.step()
        assert weights.latent["w"][0, 1] == pytest.approx(latent, abs=1e-6)
        assert parameter[0, 1] == written
    assert parameter[0].tolist()[0] == 0.0
    weights.detach()
    optimizer.step()
    assert parameter[0, 1].item() == pytest.approx(3.0 * 0.9 + 0.8)  # nobody holds it any more


def test_the_grid_follows_the_latent_weights_every_fifty_steps():
    parameter = weight([1.0, 2.0, 3.0, 4.0])
    weights = held(parameter, 4)
    optimizer = torch.optim.SGD([parameter], 1.0)
    weights.install([optimizer])
    for step in range(50):
        assert weights.levels_of("w").entries.tolist() == [[1.0, 2.0, 3.0, 4.0]], step
        parameter.grad = torch.tensor([[0.0, 0.0, 0.0, -0.06]])
        optimizer.step()
    low, *_, high = weights.levels_of("w").entries[0].tolist()
    assert (low, high) != (1.0, 4.0)
    assert high > 5.0


def test_weights_that_are_all_equal_get_a_grid_as_soon_as_they_differ():
    parameter = weight([0.5, 0.5, 0.5])
    weights = held(parameter, 2)
    optimizer = torch.optim.SGD([parameter], 1.0)
    weights.install([optimizer])
    parameter.grad = torch.tensor([[-0.5, 0.0, 0.0]])
    optimizer.step()
    assert parameter.tolist() == [[1.0, 0.5, 0.5]]


def test_nan_is_not_hidden():
    parameter = weight([1.0, 2.0, 3.0, 4.0])
    weights = held(parameter, 4)
    optimizer = torch.optim.SGD([parameter], 1.0)
    weights.install([optimizer])
    parameter.grad = torch.tensor([[torch.nan, 0.0, 0.0, 0.0]])
    optimizer.step()
    assert parameter.isnan().tolist() == [[True, False, False, False]]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))


def train(model, optimizer, steps=20, closure=False):
    images, labels = settings.digits().tensors

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(images), labels)
        value.backward()
        return value

    for _ in range(steps):
        if closure:
            optimizer.step(loss)
        else:
            loss()
            optimizer.step()


@pytest.mark.parametrize("closure", [False, True])
def test_it_trains_as_a_network_that_rounds_in_its_forward_pass(closure):
    """Straight through by autograd: w + (q(w) - w).detach(), on the same grid."""
    model, twin = net(), net()
    parameters = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    weights = QuantisedWeights(parameters, 4)
    weights.install([optimizer])
    weights.begin()
    train(model, optimizer, closure=closure)

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = twin

        def forward(self, x):
            first, second = (
                w + (grids[name].round(w.detach()) - w.detach())
                for name, w in (("0.weight", twin[0].weight), ("2.weight", twin[2].weight))
            )
            hidden = nn.functional.linear(x, first, twin[0].bias).relu()
            return nn.functional.linear(hidden, second, twin[2].bias)

    grids = {
        name: even_grid(w, torch.ones_like(w) > 0, 4)
        for name, w in (("0.weight", twin[0].weight), ("2.weight", twin[2].weight))
    }
    train(Rounded(), torch.optim.SGD(twin.parameters(), 0.1, 0.9))
    for name, latent in weights.latent.items():
        torch.testing.assert_close(latent, twin.get_parameter(name).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", ["masks", "grid"])
def test_masks_and_grid_together(first):
    """The engine has to be first in the optimizer, be the grid begun before its masks or after."""
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    parameters = {"0.weight": model[0].weight, "2.weight": model[2].weight}
    weights = QuantisedWeights(parameters, 8)
    if first == "grid":
        weights.begin()
    engine = attach(optimizer, model, Recipe(cubic(0.8, end=0.5), turnover=Curve(0.2), every=2), total_steps=20)
    weights.install([optimizer])
    if first == "masks":
        weights.begin()
    train(model, optimizer)
    engine.verify()  # every dead weight is zero
    assert engine.sparsity == engine.masks.sparsity == pytest.approx(0.8, abs=1e-3)
    for name, parameter in parameters.items():
        dead = ~engine.masks[name]
        assert not parameter[dead].any()
        assert not weights.latent[name][dead].any()
        assert len(parameter[parameter != 0].unique()) <= 8
        assert len(weights.latent[name].unique()) > 50
    assert engine.history[-1].born or any(update.replaced for update in engine.history)


class Holding(torch.optim.Optimizer):
    """Holds an optimizer; what it does around it is said by a subclass."""

    def __init__(self, inner):
        super().__init__(inner.param_groups, {})
        self.inner, self.param_groups = inner, inner.param_groups


class Lookahead(Holding):
    """After each second step, the mean of the weights and what they were two steps ago."""

    slow, taken = None, 0

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        self.slow = self.slow or [p.detach().clone() for p in parameters]
        loss = self.inner.step(closure)
        self.taken += 1
        if self.taken % 2 == 0:
            for p, slow in zip(parameters, self.slow, strict=True):
                slow.lerp_(p, 0.5)
                p.copy_(slow)
        return loss


class Sam(Holding):
    """Takes its gradient where the loss is high nearby."""

    def step(self, closure):
        parameters = [p for group in self.param_groups for p in group["params"]]
        loss = torch.enable_grad()(closure)()
        with torch.no_grad():
            kept = [p.detach().clone() for p in parameters]
            norm = torch.cat([p.grad.flatten() for p in parameters]).norm()
            for p in parameters:
                p.add_(0.05 * p.grad / norm)
        torch.enable_grad()(closure)()
        for p, was in zip(parameters, kept, strict=True):
            p.data = was
        self.inner.step()
        return loss


class Alone(Holding):
    """Moves the weights by itself, and never lets the one inside step."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(0.1 * p.grad)
        return loss


class Decaying(Holding):
    """Decays the weights, and then lets the one inside step."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(0.999)
        self.inner.step()
        return loss


@pytest.mark.parametrize("kind", [Lookahead, Sam, Alone, Decaying])
def test_optimizers_that_hold_others(kind):
    model = net()
    optimizer = kind(torch.optim.SGD(model.parameters(), 0.5))
    engine = attach(optimizer, model, Recipe(Curve(0.5)))
    weights = QuantisedWeights({"0.weight": model[0].weight, "2.weight": model[2].weight}, 4)
    weights.install([optimizer])
    weights.begin()
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(len(model[0].weight[model[0].weight != 0].unique())))
    images, labels = settings.digits().tensors
    start = nn.functional.cross_entropy(model(images), labels)
    train(model, optimizer, closure=True)
    engine.verify()
    # SAM's second pass looks at weights between the levels, and only that. The middle two levels are pruned.
    assert max(seen[1::2] if kind is Sam else seen) <= 4
    assert nn.functional.cross_entropy(model(images), labels) < start


def test_an_optimizer_that_moves_weights_alone_moves_the_latent_as_one_that_is_inside():
    latents = []
    for make in (lambda p: torch.optim.SGD(p, 0.1), lambda p: Alone(torch.optim.SGD(p, 0.3))):
        model = net()
        optimizer = make(model.parameters())
        weights = QuantisedWeights({"0.weight": model[0].weight}, 4)
        weights.install([optimizer])
        weights.begin()
        train(model, optimizer)
        latents.append(weights.latent["0.weight"])
    torch.testing.assert_close(*latents, rtol=1e-4, atol=1e-5)


def test_lbfgs_is_refused_and_leaves_nothing():
    model = net()
    weights = QuantisedWeights({"0.weight": model[0].weight}, 4)
    with pytest.raises(SparsityError, match=r"LBFGS evaluates .* train with SGD or Adam"):
        weights.install([torch.optim.LBFGS(model.parameters())])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, r"levels=1 is not an integer in \[2, 256\]"),
        ({"levels": 4, "per": "rows"}, r"per='rows' does not exist: did you mean 'row'"),
        ({"levels": 4, "symmetric": 1}, "symmetric=1 is neither true nor false"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(SparsityError, match=message):
        QuantisedWeights({}, **arguments)


def test_it_goes_on_bit_for_bit_from_its_state():
    def run(steps, again=None):
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        weights = QuantisedWeights({"0.weight": model[0].weight, "2.weight": model[2].weight}, 4, per="row")
        weights.install([optimizer])
        if again is None:
            weights.begin()
        else:
            model.load_state_dict(again[0])
            optimizer.load_state_dict(again[1])
            weights.load_state_dict(again[2])
        train(model, optimizer, steps)
        return [model.state_dict(), optimizer.state_dict(), weights.state_dict()]

    whole, resumed = run(70), run(40, run(30))
    assert all(torch.equal(whole[0][name], resumed[0][name]) for name in whole[0])
    assert whole[2]["age"] == resumed[2]["age"] == {"0.weight": 20, "2.weight": 20}
    for kind in ("latent", "grids"):
        assert all(torch.equal(whole[2][kind][name], resumed[2][kind][name]) for name in whole[2][kind])


def test_what_somebody_else_writes_becomes_the_latent_weight_where_it_differs():
    parameter = weight([1.0, 1.9, 3.0, 4.0])
    weights = held(parameter, 4)
    before = weights.latent["w"].clone()
    written = parameter.detach().clone()
    assert not weights.moved()
    with torch.no_grad():
        parameter.copy_(written)  # as an average that is put in its place and taken away again
    assert weights.moved()
    weights.adopt()
    assert torch.equal(weights.latent["w"], before)
    with torch.no_grad():
        parameter[0, 2] = 1.2
    weights.adopt()
    assert torch.equal(weights.latent["w"], torch.where(torch.arange(4) == 2, torch.tensor(1.2), before))
    assert parameter[0, 2] == parameter[0, 0]
    assert not weights.moved()
