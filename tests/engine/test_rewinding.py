"""Rewinding in a plain loop: weights, buffers, optimizer state, and the control."""

import pytest
import torch
from torch import nn

from lightning_sparse import Recipe, Rewind, SparsityError, attach
from lightning_sparse.engine.rewinding import draw_anew, snapshot
from lightning_sparse.engine.schedules import Curve


def run(recipe, steps, seed=0, optimizer=torch.optim.Adam):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = optimizer(net.parameters(), lr=0.01)
    engine = attach(optimizer, net, recipe)
    states, memory = [snapshot(net)], [0]
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(16, 10, generator=generator)).square().mean().backward()
        optimizer.step()
        states.append(snapshot(net))
        memory.append(len(optimizer.state))
    return net, engine, states, memory


@pytest.mark.parametrize("to", [0, 3])
def test_after_pruning_all_but_the_dead_is_as_it_was_at_that_step(to):
    stairs = Curve(0.0).then(10).then(20, 0.5).then(20, 0.75)
    _, engine, states, memory = run(Recipe(stairs, rewind=Rewind(to)), 25)
    for step in (10, 20):
        assert memory[step] == 0
        for name, then in states[to].items():
            now = states[step][name]
            alive = engine.masks[name] if name in engine.masks and step == 20 else now != 0
            assert torch.equal(now[alive], then[alive]), name
    assert engine.rewound == 2
    assert engine.sparsity == pytest.approx(0.75, abs=0.005)
    assert any(not torch.equal(states[9][name], states[to][name]) for name in states[0])


def test_the_control_has_the_tickets_masks_and_other_weights():
    stairs = Curve(0.0).then(10).then(20, 0.5).then(20, 0.75)
    _, ticket, states, _ = run(Recipe(stairs, rewind=Rewind()), 20)
    _, control, other, _ = run(Recipe(stairs, rewind=Rewind(reinit=True)), 20)
    for name, mask in ticket.masks.items():
        assert torch.equal(mask, control.masks[name])
        assert torch.equal(states[10][name], other[10][name])  # only the last rewinding differs
        drawn = other[20][name][mask]
        assert not torch.isclose(drawn, states[20][name][mask]).any()
        bound = 1 / mask.shape[1] ** 0.5  # torch's own initialisation of a Linear
        assert float(drawn.abs().max()) <= bound
        assert bool((other[20][name][~mask] == 0).all())


def test_drawing_anew_is_a_function_of_the_seed_and_draws_nothing_global():
    nets = [nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    nets[0][1].running_mean += 5
    state = torch.get_rng_state()
    for net in nets:
        draw_anew(net, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(a, b) for a, b in zip(nets[0].state_dict().values(), nets[1].state_dict().values(), strict=True)
    )
    assert float(nets[0][1].running_mean.abs().sum()) == 0


def test_what_cannot_be_drawn_anew_is_refused_before_training():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.token = nn.Linear(4, 4), nn.Parameter(torch.zeros(4))

    net = Own()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    recipe = Recipe(Curve(0.0).then(5).then(5, 0.5), rewind=Rewind(reinit=True), include=("layer.weight",))
    with pytest.raises(SparsityError, match="token cannot be drawn anew"):
        attach(optimizer, net, recipe)


def test_a_run_that_goes_on_from_its_state_rewinds_to_the_same_weights():
    stairs = Curve(0.0).then(10).then(10, 0.5)
    recipe = Recipe(stairs, rewind=Rewind(2))
    _, engine, states, _ = run(recipe, 6)
    torch.manual_seed(9)
    net = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    later = attach(optimizer, net, recipe, state=engine.state_dict())
    for _ in range(4):
        optimizer.zero_grad()
        net(torch.randn(16, 10)).square().mean().backward()
        optimizer.step()
    assert later.rewound == 1
    alive = later.masks["0.weight"]
    assert torch.equal(net[0].weight[alive], states[2]["0.weight"][alive])
