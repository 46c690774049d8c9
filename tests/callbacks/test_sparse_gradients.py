"""meProp, against backward passes worked out by hand, in a Trainer, and beside sparsity callbacks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import settings
from lightning_sparse import GradualPruning, SparseGradients, SparsityError
from lightning_sparse.ephemeral.sparse_gradients import ThinnedGradients


def kept(gradient, k):
    """The k largest of each row, one by one."""
    out = torch.zeros_like(gradient)
    for row, found in zip(gradient, out, strict=True):
        for place in sorted(range(len(row)), key=lambda i: -abs(row[i].item()))[:k]:
            found[place] = row[place]
    return out


def test_a_backward_pass_is_that_of_the_k_largest():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 5))
    ThinnedGradients([net[0], net[2]], lambda entries: 2)
    x = torch.rand(4, 6)
    net(x).square().sum().backward()
    hidden = F.linear(x, net[0].weight, net[0].bias).detach()
    out = F.linear(hidden.relu(), net[2].weight, net[2].bias).detach()
    last = kept(2 * out, 2)
    first = kept((last @ net[2].weight.detach()) * (hidden > 0), 2)
    torch.testing.assert_close(net[2].weight.grad, last.T @ hidden.relu())
    torch.testing.assert_close(net[0].weight.grad, first.T @ x)
    torch.testing.assert_close(net[0].bias.grad, first.sum(0))


def test_of_a_convolution_an_examples_entries_compete_and_of_a_sequence_those_of_a_position():
    torch.manual_seed(0)
    conv, linear = nn.Conv2d(1, 3, 3), nn.Linear(4, 6)
    seen = []
    ThinnedGradients([conv, linear], lambda entries: seen.append(entries) or 2)
    out = conv(torch.rand(5, 1, 6, 6))
    (gradient,) = torch.autograd.grad((out * torch.rand_like(out)).sum(), conv.weight, retain_graph=True)
    assert gradient.count_nonzero()
    linear(torch.rand(5, 7, 4)).sum().backward()
    assert seen == [3 * 4 * 4, 6]
    assert linear.bias.grad.sum() == 5 * 7 * 2


def test_in_eval_mode_and_in_a_copy_gradients_are_whole():
    net = nn.Linear(3, 4)
    ThinnedGradients([net], lambda entries: 1)

    def bias_of(model):
        model.zero_grad()
        model(torch.rand(1, 3)).sum().backward()
        return model.bias.grad.sum()

    assert [bias_of(net), bias_of(copy.deepcopy(net)), bias_of(net.eval())] == [1, 4, 4]


def test_a_compiled_network_has_them_too():
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    ThinnedGradients([net[0], net[2]], lambda entries: 2)
    x = torch.rand(4, 6)
    net(x).square().sum().backward()
    expected = [p.grad.clone() for p in net.parameters()]
    net.zero_grad()
    torch.compile(net, backend="aot_eager")(x).square().sum().backward()
    torch._dynamo.reset()
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def fit(*callbacks, model=None, **arguments):
    model = model or settings.Module()
    settings.quiet(*callbacks, **{"max_epochs": 2} | arguments).fit(model, settings.batches())
    return model


@pytest.mark.parametrize("method", [*settings.METHODS, *settings.RECIPES])
@pytest.mark.filterwarnings("ignore:no connection")
def test_it_goes_with_every_sparsity_callback_on_either_side(method):
    models = []
    for order in (1, -1):
        pruning = (settings.METHODS | settings.RECIPES)[method](0.8)
        models.append(fit(*[pruning, SparseGradients(density=0.3)][::order]))
        assert settings.exact(pruning.masks, pruning.recipe.sparsity.final)
        assert settings.dead_are_zero(models[-1], pruning.masks)
    assert settings.same_state(*models)


def test_all_entries_are_plain_training_and_fewer_are_not():
    plain = fit()
    assert settings.same_state(plain, fit(SparseGradients(k=60)))
    assert settings.same_state(plain, fit(SparseGradients(density=1.0)))
    few = fit(SparseGradients(k=3))
    assert not settings.same_state(plain, few)
    assert not any(layer._forward_hooks for layer in few.modules())


@pytest.mark.parametrize(
    "arguments", [{"accumulate_grad_batches": 2}, {"precision": "bf16-mixed"}, {"precision": "64-true"}], ids=str
)
def test_modes_of_the_trainer(arguments):
    pruning = GradualPruning(0.8)
    assert settings.dead_are_zero(fit(SparseGradients(k=3), pruning, **arguments), pruning.masks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "k=None and density=None: write one of them"),
        ({"k": 3, "density": 0.1}, "k=3 and density=0.1: write one of them"),
        ({"k": 0}, "k=0 is not an integer of at least 1: write 30"),
        ({"density": 0.0}, "density=0.0 keeps no gradient"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(SparsityError, match=message):
        SparseGradients(**arguments)
