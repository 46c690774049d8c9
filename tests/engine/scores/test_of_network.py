"""Scores of the whole network against full derivatives and closed forms; and they leave no trace."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_sparse import Recipe, SparsityError, attach
from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_network import Network, grasp, looking_at, snip, synflow


def loss(model, batch):
    images, labels = batch
    return F.cross_entropy(model(images), labels)


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    batches = [(torch.randn(6, 4).double(), torch.randint(0, 2, (6,))) for _ in range(3)]
    return net, batches


def flat_loss(net, names, batches):
    """The mean loss as a function of one flat vector of the named weights."""
    fixed = {name: p.detach() for name, p in net.named_parameters()}

    def of(vector):
        at, state = 0, dict(fixed)
        for name in names:
            size = fixed[name].numel()
            state[name] = vector[at : at + size].view_as(fixed[name])
            at += size
        outputs = [torch.func.functional_call(net, state, (x,)) for x, _ in batches]
        return sum(F.cross_entropy(out, y) for out, (_, y) in zip(outputs, batches, strict=True)) / len(batches)

    return of, torch.cat([fixed[name].flatten() for name in names])


def test_snip_is_weight_times_the_gradient_of_the_mean_loss(tiny):
    net, batches = tiny
    weights = sparsifiable(net)
    of, point = flat_loss(net, list(weights), batches)
    expected = (point * torch.func.grad(of)(point)).abs()
    with looking_at(net, weights, batches, loss) as network:
        scores = snip(network)
    assert torch.allclose(torch.cat([s.flatten() for s in scores.values()]), expected, rtol=1e-12)


def test_grasp_is_weight_times_the_full_hessian_times_the_gradient(tiny):
    net, batches = tiny
    weights = sparsifiable(net)
    of, point = flat_loss(net, list(weights), batches)
    hessian = torch.autograd.functional.hessian(of, point)
    gradient = torch.func.grad(of)(point)
    with looking_at(net, weights, batches, loss) as network:
        scores = grasp(network)
    assert torch.allclose(torch.cat([s.flatten() for s in scores.values()]), point * (hessian @ gradient), rtol=1e-9)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


def test_grasp_refuses_what_torch_would_leave_out_of_the_second_derivative_in_silence(tiny):
    net, batches = tiny
    once = lambda model, batch: loss(lambda x: model[2](model[1](Once.apply(model[0](x)))), batch)  # noqa: E731
    with looking_at(net, sparsifiable(net), batches, once) as network:
        assert snip(network)["0.weight"].any()
        with pytest.raises(SparsityError, match=r"cannot be differentiated twice in the weights .*once_differentiable"):
            grasp(network)


def test_removing_what_grasp_scores_high_lowers_the_gradient_norm_by_twice_the_score(tiny):
    """Wang et al., equation 8: the squared norm changes by 2 delta H g to first order; here for a small part of a weight."""
    net, batches = tiny
    weights = sparsifiable(net)
    of, point = flat_loss(net, list(weights), batches)
    with looking_at(net, weights, batches, loss) as network:
        scores = torch.cat([s.flatten() for s in grasp(network).values()])
    norm = lambda at: torch.func.grad(of)(at).square().sum()  # noqa: E731
    for place in range(0, len(point), 3):
        step = torch.zeros_like(point)
        step[place] = 1e-6 * point[place]
        change = norm(point - step) - norm(point + step)
        assert change.item() == pytest.approx(-4e-6 * scores[place].item(), rel=1e-4, abs=1e-14)


def test_synflow_sums_the_paths_through_each_connection():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    with looking_at(net, sparsifiable(net), [torch.zeros(7, 4)], loss) as network:
        scores = synflow(network)
    one, two, three = (net[i].weight.detach().double().abs() for i in (0, 2, 4))
    into = one.sum(1)  # what an input of ones brings to each unit
    onward = two.T @ three.sum(0)
    assert torch.allclose(scores["0.weight"], one * onward[:, None])
    assert torch.allclose(scores["2.weight"], two * into * three.sum(0)[:, None])
    # conserved from layer to layer where there is no bias in between
    assert scores["0.weight"].sum().item() == pytest.approx(scores["2.weight"].sum().item())


def deep(width=60, depth=6):
    torch.manual_seed(1)
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), *layers, nn.Linear(width, 10))


def paths(net, masks):
    """How many paths of living connections lead from an input to an output."""
    flow = torch.ones(64, dtype=torch.float64)
    for name in masks:
        flow = masks[name].double() @ flow
    return flow.sum().item()


def test_synflow_keeps_every_layer_connected_at_99_9_percent_where_snip_and_one_round_do_not():
    batch = (torch.rand(100, 64), torch.arange(100) % 10)
    found = {}
    for name, drop, rounds in (("synflow", "synflow", 100), ("one round", "synflow", 1), ("snip", "snip", 1)):
        net = deep()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        recipe = Recipe(Curve(0.999), drop=drop, rounds=rounds)
        engine = attach(optimizer, net, recipe, batches=[batch], loss_fn=loss)
        assert engine.masks.total - engine.masks.living == round(0.999 * engine.masks.total)
        assert len(engine.history) == 1
        found[name] = paths(net, engine.masks)
    assert found["synflow"] > 0
    assert found["one round"] == 0
    assert found["snip"] == 0


def test_a_hundred_rounds_shrink_by_the_same_factor_and_score_what_is_left():
    seen = []

    def counted(network):
        seen.append(sum(int(weight.count_nonzero()) for weight in network.parameters.values()))
        return snip(network)

    counted.of_network = True
    net = deep(depth=1)
    batch = (torch.rand(100, 64), torch.arange(100) % 10)
    attach(
        torch.optim.SGD(net.parameters(), lr=0.1),
        net,
        Recipe(Curve(0.99), drop=counted, rounds=10),
        batches=[batch],
        loss_fn=loss,
    )
    total = seen[0]
    living = total - round(0.99 * total)
    assert seen == [round(total * (living / total) ** (i / 10)) for i in range(10)]


def test_looking_leaves_no_trace():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3))
    net[2].eval()
    net[0].bias.requires_grad_(False)
    net[4].weight.grad = torch.ones_like(net[4].weight)
    batches = [(torch.randn(16, 8), torch.randint(0, 3, (16,)))]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes, state, gradient = [m.training for m in net.modules()], torch.get_rng_state(), net[4].weight.grad
    for score in (snip, grasp, synflow):
        with torch.no_grad(), looking_at(net, sparsifiable(net), batches, loss) as network:
            score(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert net[4].weight.grad is gradient
    assert bool((gradient == 1).all())
    assert not net[0].bias.requires_grad
    assert net[0].weight.grad is None


def test_grasp_on_a_compiled_network_with_attention():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    batches = [torch.randn(4, 5, 8)]
    of = lambda net, x: net(x).square().mean()  # noqa: E731
    weights = sparsifiable(net, include=["linear*.weight", "self_attn.in_proj_weight"])
    with looking_at(net, weights, batches, of) as network:
        plain = grasp(network)
    compiled = torch.compile(net, backend="aot_eager")
    with looking_at(compiled, weights, batches, of) as network:
        same = grasp(Network(compiled, network.parameters, network.batches, network.loss))
    assert all(torch.allclose(plain[name], same[name]) for name in plain)
    assert float(plain["self_attn.in_proj_weight"].abs().sum()) > 0


def test_a_score_of_the_network_without_data_is_refused_with_what_to_give():
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(SparsityError, match=r"give attach\(\) batches="):
        attach(optimizer, net, Recipe(Curve(0.5), drop="snip"))
    with pytest.raises(SparsityError, match="loss_fn="):
        attach(optimizer, net, Recipe(Curve(0.5), drop="snip"), batches=[torch.ones(1, 4)])
    attach(optimizer, net, Recipe(Curve(0.5), drop="synflow"), batches=[torch.ones(1, 4)])  # needs no loss


def test_synflow_says_what_it_cannot_feed():
    net = nn.Linear(4, 4)
    with (
        pytest.raises(SparsityError, match="no tensor in a str"),
        looking_at(net, sparsifiable(net), ["text"], loss) as network,
    ):
        synflow(network)
