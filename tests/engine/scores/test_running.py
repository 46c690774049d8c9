"""Scores with a memory, against sums written out."""

import pytest
import torch
from torch import nn

from lightning_sparse import GradualPruning, Recipe, SparsityError, attach
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.running import Fisher, Momentum, Movement
from settings import Module, batches, quiet


class Watched:
    """Keeps what a score returned each time it was asked."""

    def __init__(self, score):
        self.score, self.given, self.needs_gradient = score, [], True

    def observe(self, layer):
        self.score.observe(layer)

    def __call__(self, layer):
        self.given.append((layer.name, layer.weight.clone(), self.score(layer).clone()))
        return self.score(layer)

    def state_dict(self):
        return self.score.state_dict()

    def load_state_dict(self, state):
        self.score.load_state_dict(state)


def trained(score, steps=12):
    """Train a linear layer by hand; return the score's last answer, and weights before and gradients of each step."""
    torch.manual_seed(0)
    net, starts, gradients = nn.Linear(6, 4, bias=False), [], []
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    engine = attach(optimizer, net, Recipe(Curve(0.0).then(steps).then(steps, 0.5), drop=Watched(score)))
    for _ in range(steps):
        optimizer.zero_grad()
        (net(torch.randn(8, 6)).square().mean() + net.weight.abs().sum() * 0.1).backward()
        starts.append(net.weight.detach().clone())
        gradients.append(net.weight.grad.clone())
        last_gradient = net.weight.grad.clone()
        optimizer.step()
    assert engine.sparsity == 0.5
    [(_, weight, given)] = engine._scoring._drop.given
    return weight, given, starts, gradients, last_gradient


def test_fisher_is_half_the_squared_weight_times_the_mean_squared_gradient():
    weight, given, _, gradients, _ = trained(Fisher(decay=0.8))
    mean = sum(0.2 * 0.8 ** (len(gradients) - 1 - i) * g.square() for i, g in enumerate(gradients))
    assert torch.allclose(given, 0.5 * weight.square() * mean, rtol=1e-5)


def test_movement_sums_weight_times_gradient_at_the_weight_that_the_step_started_from():
    _, given, starts, gradients, _ = trained(Movement())
    # The first step has no earlier one to have left its start behind.
    expected = -sum(start * gradient for start, gradient in zip(starts[1:], gradients[1:], strict=True))
    assert torch.allclose(given, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("score", [Fisher, Movement, Momentum])
def test_a_score_goes_on_from_its_state(score):
    from lightning_sparse.engine.scores.of_layer import Layer

    generator = torch.Generator().manual_seed(0)
    layers = [
        Layer("w", torch.randn(5, generator=generator), torch.randn(5, generator=generator), generator)
        for _ in range(6)
    ]
    whole, first, second = score(), score(), score()
    for layer in layers:
        whole.observe(layer)
    for layer in layers[:3]:
        first.observe(layer)
    second.load_state_dict(first.state_dict())
    for layer in layers[3:]:
        second.observe(layer)
    assert torch.equal(whole(layers[-1]), second(layers[-1]))


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "movement"])
def test_by_name_in_a_gradual_schedule(criterion):
    pruning = GradualPruning(0.9, criterion=criterion)
    quiet(pruning).fit(Module(), batches())
    assert pruning.sparsity == pytest.approx(0.9, abs=1e-3)


def test_movement_spares_a_small_weight_that_grows_and_drops_a_large_one_that_shrinks():
    weight = nn.Parameter(torch.tensor([[5.0, 0.1]]))
    net = nn.Module()
    net.weight = weight
    optimizer = torch.optim.SGD([weight], lr=0.1)
    recipe = Recipe(Curve(0.0).then(5).then(5, 0.5), drop="movement", include=("weight",))
    engine = attach(optimizer, net, recipe)
    for _ in range(5):
        optimizer.zero_grad()
        (weight[0, 0] - weight[0, 1]).backward()  # pulls the first down and the second up
        optimizer.step()
    assert engine.masks["weight"].tolist() == [[False, True]]


def test_a_decay_out_of_range_is_refused():
    with pytest.raises(SparsityError, match=r"decay=1.0 is not a share in \[0, 1\)"):
        Fisher(decay=1.0)
