"""Optimal brain surgery over whole networks: which layer sees what, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import settings
from engine.explicit_surgery import by_downdates, by_trailing_inverses
from lightning_sparse import SNIP, GradualPruning, OneShot, Recipe, SparsityError, attach, sparsifiable
from lightning_sparse.engine.reconstruction import reconstruct
from lightning_sparse.engine.rewinding import Rewind
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.calibration import look_at_passes
from lightning_sparse.engine.scores.of_network import looking_at


def loss(model, batch):
    return model(batch).square().mean()


def dead_by_count(weights, share):
    return {name: round(share * weight.numel()) for name, weight in weights.items()}


def test_each_layer_is_shown_what_the_pruned_layers_before_it_give():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    dense = copy.deepcopy(net)
    batches = [torch.randn(n, 5, 16).double() for n in (6, 3)]
    recipe = OneShot(0.5, at=0, reconstruct="obs", score_batches=2)
    engine = attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=batches, loss_fn=loss)
    inputs = torch.cat([batch.reshape(-1, 16) for batch in batches])
    assert settings.exact(engine.masks, 0.5)
    for at in (0, 2, 4):
        with torch.no_grad():
            given = net[:at](inputs)
        hessian = given.T @ given
        damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian)).double()
        weight = dense[at].weight.detach()
        dead = weight.numel() - engine.masks.count(f"{at}.weight")
        assert abs(dead - weight.numel() / 2) <= len(weight)
        expected, mask = by_trailing_inverses(weight, damped, dead, 128)
        assert torch.equal(engine.masks[f"{at}.weight"], mask)
        torch.testing.assert_close(net[at].weight.detach(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_by_their_patches_group_by_group(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, padding=1, groups=groups).double()
    given, dense = torch.randn(9, 4, 7, 6).double(), layer.weight.detach().clone()
    recipe = Recipe(Curve(0.5), drop="magnitude", reconstruct="obs", allocation="uniform")
    engine = attach(torch.optim.SGD(layer.parameters(), 0.1), layer, recipe, batches=[given], loss_fn=loss)
    mask = engine.masks["weight"]
    expected_mask = torch.ones(dense.numel(), dtype=torch.bool)
    expected_mask[dense.abs().flatten().argsort()[: dense.numel() // 2]] = False
    assert torch.equal(mask.flatten(), expected_mask)
    # From the last place of the kernel inwards it would be another sum; places come first, and channels within them.
    size = 4 // groups
    order = [channel * 9 + place for place in range(9) for channel in range(size)]
    patches = F.unfold(given, 3, padding=1).view(9, groups, size * 9, -1)
    for group in range(groups):
        rows = slice(6 // groups * group, 6 // groups * (group + 1))
        inputs = patches[:, group].transpose(1, 2).reshape(-1, size * 9)[:, order]
        hessian = inputs.T @ inputs
        damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(len(hessian)).double()
        flat, dead = dense[rows].flatten(1)[:, order], ~mask[rows].flatten(1)[:, order]
        expected = by_downdates(flat, damped, dead)
        torch.testing.assert_close(layer.weight.detach()[rows].flatten(1)[:, order], expected, rtol=1e-8, atol=1e-10)


class Cross(nn.Module):
    """Reads one thing by another: three parts of one weight have two kinds of inputs."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, both):
        return self.head(self.attention(both[0], both[1], both[1])[0])


def test_projections_of_attention_each_by_its_own_inputs():
    torch.manual_seed(0)
    net = Cross().double()
    both = torch.randn(4, 5, 8).double(), torch.randn(4, 6, 8).double()
    dense = net.attention.in_proj_weight.detach().clone()
    recipe = Recipe(Curve(0.5), drop="wanda", reconstruct="obs", include=["*weight"])
    engine = attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=[both], loss_fn=loss)
    mask = engine.masks["attention.in_proj_weight"]
    assert set(mask.sum(1).tolist()) == {4}
    for rows, given in ((slice(0, 8), both[0]), (slice(8, 24), both[1])):
        inputs = given.reshape(-1, 8)
        hessian = inputs.T @ inputs
        damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(8).double()
        expected = by_downdates(dense[rows], damped, ~mask[rows])
        torch.testing.assert_close(net.attention.in_proj_weight.detach()[rows], expected)
    chosen = Cross()
    recipe = OneShot(0.5, at=0, reconstruct="obs", granularity="2:4", include=["*weight"])
    both = tuple(each.float() for each in both)
    attach(torch.optim.SGD(chosen.parameters(), 0.1), chosen, recipe, batches=[both], loss_fn=loss)
    assert bool((chosen.attention.in_proj_weight.view(24, 2, 4) != 0).sum(2).eq(2).all())


def test_queries_keys_and_values_that_read_the_same_tensor_share_a_pass_and_a_pass_ends_at_its_layer():
    runs = []

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            attended = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
            runs.append("attended")
            return x + self.o(attended)

    net = nn.Sequential(Block(), Block())
    with looking_at(net, sparsifiable(net), [torch.randn(3, 5, 8)], loss) as network:
        before = {name: torch.ones_like(weight) > 0 for name, weight in network.parameters.items()}
        after = {name: mask.clone().index_fill_(1, torch.tensor([0]), False) for name, mask in before.items()}
        reconstruct(network, before, after, None, lambda name, change: None)
    # One whole pass to see the order; then q, k, v of the first block, its o, and likewise in the second.
    assert len(runs) == 2 + (0 + 1) + (1 + 2)


def test_a_conv1d_of_transformers_is_the_linear_layer_transposed():
    kind = pytest.importorskip("transformers.pytorch_utils").Conv1D
    torch.manual_seed(0)
    conv, linear, given = kind(6, 8).double(), nn.Linear(8, 6).double(), torch.randn(3, 9, 8).double()
    linear.weight.data.copy_(conv.weight.data.T)
    linear.bias.data.copy_(conv.bias.data)
    for arguments in ({}, {"criterion": "magnitude"}, {"granularity": "2:4"}):
        for net in (one := copy.deepcopy(conv), other := copy.deepcopy(linear)):
            recipe = OneShot(0.5, at=0, reconstruct="obs", **arguments)
            attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=[given], loss_fn=loss)
        torch.testing.assert_close(one.weight.T, other.weight)


def test_copies_of_a_weight_in_an_optimizer_move_along():
    torch.manual_seed(0)
    net, given = nn.Linear(8, 6), torch.randn(30, 8)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    optimizer.state[net.weight]["slow_params"] = net.weight.detach().clone() + 1.0
    engine = attach(optimizer, net, OneShot(0.5, at=2, reconstruct="obs"), batches=[given], loss_fn=loss)
    for _ in range(2):
        loss(net, given).backward()
        optimizer.step()
    mask, slow = engine.masks["weight"], optimizer.state[net.weight]["slow_params"]
    assert engine.sparsity == 0.5
    torch.testing.assert_close(slow[mask], (net.weight + 1.0).detach()[mask])


def test_a_layer_in_which_nothing_dies_stays_as_it_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4))
    dense = copy.deepcopy(net)
    rules = {"allocation": lambda scores, masks, living: {"0.weight": 64, "2.weight": 32}}
    recipe = OneShot(0.4, at=0, reconstruct="obs", **rules)
    attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=[torch.randn(40, 16)], loss_fn=loss)
    assert torch.equal(net[2].weight, dense[2].weight)
    assert not torch.equal(net[0].weight, dense[0].weight)


def test_channels_that_die_are_made_up_for_where_the_criterion_is_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    given = torch.randn(200, 4) @ torch.randn(4, 16)
    outputs = {}
    for way in (None, "obs"):
        pruned = copy.deepcopy(net)
        rules = {"granularity": "1x4", "criterion": "magnitude", "reconstruct": way}
        recipe = OneShot(0.5, at=0, **rules)
        engine = attach(torch.optim.SGD(pruned.parameters(), 0.1), pruned, recipe, batches=[given], loss_fn=loss)
        with torch.no_grad():
            outputs[way] = float((pruned(given) - net(given)).square().mean()), engine.masks.checksum()
    assert outputs["obs"][1] == outputs[None][1]
    assert outputs["obs"][0] < 0.6 * outputs[None][0]


def test_an_order_in_which_a_layer_is_used_again():
    """The last layer reads what the first reads, but right after the second: it is not done beside the second."""

    class Again(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(4, 4) for _ in range(3))

        def forward(self, x):
            y = self.b(self.a(x))
            return y + self.a(x) + self.c(x)

    net = Again()
    with looking_at(net, sparsifiable(net), [torch.randn(3, 4)] * 2, loss) as network:
        passes = look_at_passes(network, "this")
    assert passes.order == [["a.weight"], ["b.weight"], ["c.weight"]]
    assert passes.uses == [{"a.weight": 2, "b.weight": 1, "c.weight": 1}] * 2


@pytest.mark.parametrize("criterion", ["obs", "magnitude"])
@pytest.mark.parametrize(("granularity", "final"), [("weights", 0.6), ("2:4", 0.5)])
def test_at_every_update_of_a_gradual_schedule(criterion, granularity, final, make_trainer):
    method = GradualPruning(
        final, criterion=criterion, reconstruct="obs", granularity=granularity, exclude=["head.*", "body.1.*"]
    )
    module = settings.Module()
    make_trainer(method, max_epochs=2).fit(module, settings.batches())
    assert len(method.history) == 15
    assert all(update.sparsity == round(update.asked * 5640) / 5640 for update in method.history)
    assert settings.dead_are_zero(module, method.masks)


def test_refused_with_what_to_write():
    with pytest.raises(SparsityError, match=r"reconstruct='gpt'.*obs"):
        OneShot(0.5, reconstruct="gpt")
    with pytest.raises(SparsityError, match=r"criterion='obs' chooses while.*write reconstruct='obs' too"):
        OneShot(0.5, criterion="obs")
    with pytest.raises(SparsityError, match=r"criterion='obs' compares single weights.*granularity='channels'"):
        OneShot(0.5, reconstruct="obs", granularity="channels")
    for conflict, recipe in (
        ("rounds=2", lambda: SNIP(0.5, rounds=2, reconstruct="obs")),
        ("rewind=", lambda: OneShot(0.5, reconstruct="obs", rewind=Rewind(0))),
        ("connections that are born", lambda: Recipe(Curve(0.5), turnover=Curve(0.1), reconstruct="obs")),
    ):
        with pytest.raises(SparsityError, match=rf"reconstruct='obs', and {conflict}.*leave one of the two out"):
            recipe()
    net = nn.Linear(4, 4)
    with pytest.raises(
        SparsityError, match=r"reconstruct='obs' is computed from training data: give attach\(\) batches"
    ):
        attach(torch.optim.SGD(net.parameters(), 0.1), net, OneShot(0.5, reconstruct="obs"), total_steps=10)
    GradualPruning(0.5, reconstruct="obs")  # no contradiction: at every update
