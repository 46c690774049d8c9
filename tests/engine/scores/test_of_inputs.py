"""Wanda against norms worked out here, layer by layer, with nothing but torch's own functions."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import settings
from lightning_sparse import GradualPruning, LayerRules, OneShot, Recipe, SparsityError, attach, sparsifiable
from lightning_sparse.engine.schedules import Curve
from lightning_sparse.engine.scores.of_inputs import wanda
from lightning_sparse.engine.scores.of_network import looking_at


def loss(model, batch):
    return model(batch).square().mean()


def ranks(worth):
    """Where each entry stands in its row, in (0, 1)."""
    return ((worth[:, :, None] > worth[:, None, :]).sum(2) + 0.5) / worth.shape[1]


def scores(net, batches):
    with looking_at(net, sparsifiable(net), batches, loss) as network:
        return wanda(network)


def test_linear_layers_over_several_batches():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    batches = [torch.randn(n, 7, 6).double() for n in (4, 2)]
    found = scores(net, batches)
    inputs = torch.cat([batch.reshape(-1, 6) for batch in batches])
    with torch.no_grad():
        hidden = net[1](net[0](inputs))
    for name, given in (("0.weight", inputs), ("2.weight", hidden)):
        weight = net.get_parameter(name).detach()
        torch.testing.assert_close(found[name], ranks(weight.abs() * given.norm(dim=0)), check_dtype=False)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution_has_a_norm_for_each_channel_and_place_of_the_kernel(groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=groups)
    given = torch.randn(5, 4, 9, 8)
    unfolded = F.unfold(given, 3, dilation=2, padding=1, stride=2)  # images, channels times places, positions
    norms = unfolded.square().sum((0, 2)).sqrt().view(groups, -1).repeat_interleave(6 // groups, 0)
    expected = ranks(layer.weight.detach().flatten(1).abs() * norms)
    torch.testing.assert_close(scores(layer, [given])["weight"].flatten(1), expected)


def test_attention_and_its_projection_of_queries_keys_and_values_from_two_places():
    torch.manual_seed(0)

    class Cross(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, both):
            return self.attention(both[0], both[1], both[1])[0]

    net, both = Cross(), (torch.randn(2, 5, 8), torch.randn(2, 3, 8))
    weights = sparsifiable(net, include=["*weight"])
    with looking_at(net, weights, [both], loss) as network:
        found = wanda(network)
    norms = torch.stack([both[0].flatten(0, 1).norm(dim=0)] * 8 + [both[1].flatten(0, 1).norm(dim=0)] * 16)
    expected = ranks(net.attention.in_proj_weight.detach().abs() * norms)
    torch.testing.assert_close(found["attention.in_proj_weight"], expected)


def test_a_conv1d_of_transformers_is_the_linear_layer_transposed():
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D(5, 6)
    linear = nn.Linear(6, 5)
    linear.weight.data.copy_(layer.weight.data.T)
    given = torch.randn(3, 4, 6)
    assert torch.equal(scores(layer, [given])["weight"].T, scores(linear, [given])["weight"])


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk", LayerRules(sparsity={"0.*": 0.25})])
def test_every_output_of_a_layer_keeps_as_many(allocation):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 10))
    recipe = Recipe(Curve(0.6), drop="wanda", allocation=allocation)
    engine = attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=[torch.randn(30, 20)], loss_fn=loss)
    assert settings.exact(engine.masks, 0.6)
    for mask in engine.masks.values():
        kept = mask.sum(1)
        assert kept.max() - kept.min() <= 1
    if allocation in ("global", "uniform"):
        assert [mask.sum(1).float().mean().round().item() for mask in engine.masks.values()] == [8, 6, 5]


def test_pruned_gradually_every_output_still_keeps_as_many(make_trainer):
    method = GradualPruning(0.75, criterion="wanda", score_batches=2)
    make_trainer(method, max_epochs=2).fit(settings.Module(), settings.batches())
    assert settings.exact(method.masks, 0.75)
    for mask in method.masks.values():
        kept = mask.sum(1)
        assert kept.max() - kept.min() <= 1


def test_two_of_four_are_those_worth_most():
    torch.manual_seed(0)
    net = nn.Linear(16, 5)
    given = torch.randn(30, 16)
    worth = (net.weight.detach().abs() * given.norm(dim=0)).view(5, 4, 4)
    expected = (worth.argsort(2).argsort(2) >= 2).view(5, 16)
    recipe = Recipe(Curve(0.5), drop="wanda", granularity="2:4")
    engine = attach(torch.optim.SGD(net.parameters(), 0.1), net, recipe, batches=[given], loss_fn=loss)
    assert torch.equal(engine.masks["weight"], expected)


def test_an_encoder_is_looked_at_without_a_trace_and_without_keeping_what_passed_through():
    torch.manual_seed(0)
    outputs, alive = [], []

    class Kept(nn.Module):
        def forward(self, x):
            alive.append(sum(output() is not None for output in outputs))
            y = x + 0.0
            outputs.append(weakref.ref(y))
            return y

    layers = [
        module
        for _ in range(4)
        for module in (nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True), nn.BatchNorm1d(6), Kept())
    ]
    net = nn.Sequential(*layers)
    net[0].eval()
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    state, fused = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    first, second = (scores(net, [torch.ones(3, 6, 16)]) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled() == fused
    assert max(alive) <= 1


def test_refused_before_training_with_what_to_write(make_trainer):
    def fit(method, module=None):
        make_trainer(method, max_epochs=1).fit(module or settings.Module(), settings.batches())

    for granularity in ("channels", "1x4"):
        with pytest.raises(
            SparsityError, match=r"criterion='wanda' compares single weights within an output.*'weights'"
        ):
            OneShot(0.5, criterion="wanda", granularity=granularity)
    with pytest.raises(SparsityError, match=r"='wanda' needs weights that are multiplied.*'body.1.weight'.*exclude="):
        fit(OneShot(0.5, criterion="wanda", include=["body*weight"]))
    net = settings.Module()
    with pytest.raises(SparsityError, match=r"computed from training data: give attach\(\) batches="):
        attach(torch.optim.SGD(net.parameters(), 0.1), net, OneShot(0.5, at=5, criterion="wanda"))

    class Recurrent(settings.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(64, 64, batch_first=True)

        def forward(self, x):
            return super().forward(self.cell(x[:, None])[0][:, 0])

    # The update is due at step 5; it is refused before the first.
    module = Recurrent()
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(
        SparsityError, match=r"'cell.weight_ih_l0' is not multiplied.*exclude=\['cell.weight_ih_l0', 'cell.w"
    ):
        fit(OneShot(0.5, at=5, criterion="wanda", include=["*.weight_*", "head.weight"]), module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    net = nn.Linear(3, 2)
    with pytest.raises(SparsityError, match="the inputs of 'weight' are not finite"):
        attach(
            torch.optim.SGD(net.parameters(), 0.1),
            net,
            OneShot(0.5, at=0, criterion="wanda"),
            batches=[torch.full((2, 3), torch.inf)],
            loss_fn=lambda model, batch: model(batch).nan_to_num().sum(),
        )
