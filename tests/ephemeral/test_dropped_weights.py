"""Weights left out of a step: against products worked out here, and every way in which a hook could miss."""

import copy
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_sparse import SparsityError, sparsifiable
from lightning_sparse.ephemeral.dropped_weights import DroppedWeights, smallest


def dropping(model, p=0.5, share=None, seed=0, **patterns):
    weights = DroppedWeights(sparsifiable(model, **patterns), p, share, seed)
    weights.install(model)
    return weights


def make(*widths, seed=0):
    torch.manual_seed(seed)
    layers = [nn.Linear(before, after) for before, after in pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_pass_is_that_of_the_weights_that_are_left(share):
    net, x = make(6, 5, 4), torch.rand(3, 6)
    weights = dropping(net, 0.4, share)
    weights.draw()
    scale = 1 / 0.6 if share is None else 1.0
    whole = [net[0].weight.detach().clone(), net[2].weight.detach().clone()]
    left = [w.masked_fill(weights.dropped[n], 0).mul(scale) for n, w in zip(weights.parameters, whole, strict=True)]
    assert all(0 < int(dropped.sum()) < dropped.numel() for dropped in weights.dropped.values())
    free = [w.clone().requires_grad_() for w in left]
    expected = F.linear(F.linear(x, free[0], net[0].bias).relu(), free[1], net[2].bias)
    out = net(x)
    assert torch.equal(out, expected)
    gradients = torch.autograd.grad(expected.square().sum(), free)
    out.square().sum().backward()
    for (name, parameter), before, gradient in zip(weights.parameters.items(), whole, gradients, strict=True):
        assert torch.equal(parameter, before)
        assert torch.equal(parameter.grad, gradient.masked_fill(weights.dropped[name], 0) * scale)
    assert torch.equal(net.eval()(x), F.linear(F.linear(x, whole[0], net[0].bias).relu(), whole[1], net[2].bias))


def test_the_mean_over_many_draws_is_the_whole_weight():
    torch.manual_seed(0)
    net, x = nn.Linear(50, 1, bias=False), torch.ones(50)
    weights = dropping(net, 0.3)
    outputs = []
    for _ in range(4000):
        weights.draw()
        outputs.append(net(x).item())
    spread = (net.weight.square().sum() * 0.3 / 0.7).sqrt().item()
    assert abs(np.mean(outputs) - net.weight.sum().item()) < 4 * spread / 4000**0.5
    assert np.std(outputs) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.75, 1.0])
def test_the_smallest_of_each_row_are_those_of_numpy(share):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(20, 3, 7)).astype(np.float32)
    rows[generator.random(rows.shape) < 0.4] = 0
    rows[3] = 0
    found = smallest(torch.from_numpy(rows), share).reshape(20, 21).numpy()
    for row, marks in zip(rows.reshape(20, 21), found, strict=True):
        living = np.flatnonzero(row)
        count = round(share * len(living))
        assert set(np.flatnonzero(marks)) == set(living[np.argsort(np.abs(row[living]))[:count]])


def test_of_equal_weights_exactly_the_share_is_marked():
    assert smallest(torch.full((4, 10), 0.5), 0.3).sum(1).tolist() == [3] * 4


def test_in_a_layer_with_its_inputs_first_outputs_are_rows_all_the_same():
    conv1d = pytest.importorskip("transformers.pytorch_utils").Conv1D
    net = nn.Sequential(conv1d(3, 10))
    net[0].weight.data = torch.arange(1.0, 31).reshape(10, 3)
    weights = dropping(net, 0.99, 0.5)
    weights.draw()
    assert weights.dropped["0.weight"][5:].sum() == 0
    assert weights.dropped["0.weight"][:5].sum() >= 13


def test_what_is_zero_is_not_dropped_and_gets_the_gradient_of_growth():
    net, x = make(6, 5), torch.rand(3, 6)
    net[0].weight.data[:, ::2] = 0
    weights = dropping(net, 0.9)
    weights.draw()
    net(x).sum().backward()
    assert not weights.dropped["0.weight"][:, ::2].any()
    assert (net[0].weight.grad[:, ::2] != 0).all()


class Failing(nn.Linear):
    def forward(self, x):
        raise RuntimeError("no")


def test_a_forward_that_fails_leaves_the_parameter_and_the_order_of_all():
    net = nn.Sequential(nn.Linear(3, 3), Failing(3, 3))
    before = list(net.parameters())
    weights = dropping(net)
    weights.draw()
    with pytest.raises(RuntimeError, match="no"):
        net(torch.rand(2, 3))
    assert [id(p) for p in net.parameters()] == [id(p) for p in before]
    assert list(net[1]._parameters) == ["weight", "bias"]
    net[1].forward = lambda x: x * net[1].weight.sum()
    net(torch.rand(2, 3)).sum().backward()
    assert net[1].weight.grad.eq(0).equal(weights.dropped["1.weight"])


def test_inside_a_pass_the_names_and_their_order_are_those_outside():
    seen = []

    class Looking(nn.Linear):
        def forward(self, x):
            seen.append(([*self._parameters], isinstance(self.get_parameter("weight"), nn.Parameter)))
            return super().forward(x)

    net = Looking(3, 3)
    dropping(net).draw()
    net(torch.rand(2, 3))
    assert seen == [(["weight", "bias"], True)]


def test_a_tied_weight_is_dropped_in_every_layer_that_owns_it():
    net = make(4, 4, 4)
    net[2].weight = net[0].weight
    weights = dropping(net)
    weights.draw()
    net(torch.rand(9, 4)).sum().backward()
    assert (net[0].weight.grad[weights.dropped["0.weight"]] == 0).all()


def test_attention_reads_the_weight_of_its_out_proj_without_a_call():
    net = nn.MultiheadAttention(8, 2, batch_first=True)
    weights, x = dropping(net), torch.rand(2, 3, 8)
    weights.draw()
    net(x, x, x)[0].sum().backward()
    assert list(weights.parameters) == ["out_proj.weight"]
    assert (net.out_proj.weight.grad[weights.dropped["out_proj.weight"]] == 0).all()
    assert type(net.out_proj.weight) is nn.Parameter
    weights.verify()


def test_recurrent_layers_are_refused_and_the_advice_works():
    net = nn.ModuleDict({"rnn": nn.LSTM(4, 4), "out": nn.Linear(4, 2)})
    with pytest.raises(SparsityError, match=r"'rnn.weight_hh_l0' belongs to a LSTM.*exclude=\['rnn.\*'\]"):
        dropping(net, include=["rnn.weight_hh*", "out.weight"])
    dropping(net, include=["*weight*"], exclude=["rnn.*"])


class Elsewhere(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return F.linear(self.a(x), self.b.weight)


def test_a_weight_that_another_layer_reads_is_refused_and_the_advice_works():
    net = Elsewhere()
    weights = dropping(net)
    weights.draw()
    net(torch.rand(2, 4)).sum().backward()
    with pytest.raises(SparsityError, match=r"'b.weight' is trained, but .*exclude=\['b.weight'\]"):
        weights.verify()
    weights.detach()
    weights = dropping(net, exclude=["b.weight"])
    weights.draw()
    net(torch.rand(2, 4)).sum().backward()
    weights.verify()


@pytest.fixture
def dynamo():
    torch._dynamo.reset()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def test_a_compiled_network_drops_anew_in_each_step_in_one_graph(dynamo):
    net, x = make(8, 16, 4), torch.rand(3, 8)
    weights = dropping(net)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    compiled(x)
    dynamo.clear()
    seen = []
    for _ in range(4):
        net.zero_grad()
        weights.draw()
        compiled(x).sum().backward()
        seen.append({name: dropped.clone() for name, dropped in weights.dropped.items()})
        assert all((weights.parameters[n].grad[dropped] == 0).all() for n, dropped in weights.dropped.items())
    assert not torch.equal(seen[0]["0.weight"], seen[1]["0.weight"])
    assert dynamo["stats"]["unique_graphs"] == 1
    weights.verify()


def test_one_that_was_compiled_and_called_before_is_refused(dynamo):
    net, x = make(8, 16, 4), torch.rand(3, 8)
    compiled = torch.compile(net, backend="aot_eager")
    compiled(x)
    weights = dropping(net)
    weights.draw()
    compiled(x).sum().backward()
    with pytest.raises(SparsityError, match="compile the model without calling it"):
        weights.verify()


@pytest.mark.parametrize("way", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_a_copy_of_the_network_is_whole(way):
    net, x = make(8, 16, 4), torch.rand(3, 8)
    weights = dropping(net)
    weights.draw()
    twin = way(net)
    assert torch.equal(twin(x), net.eval()(x))
    assert not torch.equal(twin(x), net.train()(x))


def test_what_is_computed_again_for_a_checkpoint_drops_the_same():
    net, x = make(8, 16, 4), torch.rand(3, 8)
    weights = dropping(net)
    weights.draw()
    net(x).sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    checkpoint(net, x, use_reentrant=False).sum().backward()
    assert all(torch.equal(p.grad, gradient) for p, gradient in zip(net.parameters(), expected, strict=True))


def test_draws_depend_on_seed_and_number_alone():
    def masks(seed, draws):
        weights = DroppedWeights(sparsifiable(make(8, 16)), 0.5, seed=seed)
        torch.rand(draws)
        weights.draws = draws
        weights.draw()
        return weights.dropped["0.weight"]

    assert torch.equal(masks(0, 3), masks(0, 3))
    assert not torch.equal(masks(0, 3), masks(0, 4))
    assert not torch.equal(masks(0, 3), masks(1, 3))


def test_after_detach_nothing_is_left():
    net, x = make(8, 16), torch.rand(3, 8)
    weights = dropping(net)
    weights.draw()
    weights.detach()
    assert torch.equal(net(x), net.eval()(x))
    assert not net[0]._forward_pre_hooks
    assert not net[0]._forward_hooks
