"""The largest eigenvalue against numpy's, of Hessians that torch writes out in full."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure import as_classifier
from lightning_sparse.measure.stability.hessian import measure_hessian


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 1, 2, 2, generator=generator), torch.randint(0, 3, (12,), generator=generator)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))


def eigenvalues(model, data, masks=None):
    """All of them, from the whole Hessian, of the living rows and columns only."""
    model.eval()
    named = dict(model.named_parameters())
    sizes = [weight.numel() for weight in named.values()]

    def loss(flat):
        parts = [p.view_as(w) for p, w in zip(flat.split(sizes), named.values(), strict=True)]
        return F.cross_entropy(functional_call(model, dict(zip(named, parts, strict=True)), (data[0],)), data[1])

    full = torch.autograd.functional.hessian(loss, torch.cat([w.detach().flatten() for w in named.values()]))
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in named.items()} | dict(masks or {})
    living = torch.cat([masks[name].flatten() for name in named])
    return np.linalg.eigvalsh(full[living][:, living].double().numpy())


def value_and_residual(measured):
    (record,) = measured.records
    assert record.metric == "curvature_hessian_eigenvalue"
    return record.value, float(re.search(r"residual ([^;]+);", record.detail).group(1))


def test_equals_numpys_largest(net, data):
    found = measure_hessian(net, data, iterations=100)
    value, residual = value_and_residual(found)
    every = eigenvalues(net, data)
    assert value == pytest.approx(every[np.abs(every).argmax()], rel=3e-3)
    assert np.abs(every - value).min() <= residual * 1.01 + 1e-6
    assert "in 43 of 43 weights" in found.records[0].detail
    assert "iterations, settled" in found.records[0].detail


def test_dead_connections_are_no_direction(net, data):
    generator = torch.Generator().manual_seed(2)
    shapes = {"1.weight": (5, 4), "4.weight": (3, 5)}
    masks = Masks({name: torch.rand(shape, generator=generator) < 0.4 for name, shape in shapes.items()})
    masks.apply({name: net.get_parameter(name) for name in masks})
    found = measure_hessian(net, data, masks=masks, iterations=100)
    living, everywhere = eigenvalues(net, data, masks), eigenvalues(net, data)
    assert found.records[0].value == pytest.approx(np.abs(living).max(), rel=3e-3)
    assert living.max() < 0.99 * everywhere.max()
    assert f"in {masks.living + 8} of 43 weights" in found.records[0].detail


def test_the_largest_by_magnitude_keeps_its_sign():
    """By hand: logits 0 and -k w^2, label 0, loss log(1 + exp(-k w^2)); at w = 0 its second derivative is -k."""

    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))

        def forward(self, x):
            flat = 0 * x.flatten(1).sum(dim=1)
            return torch.stack([flat, flat - 3 * self.w**2], dim=1)

    images = torch.rand(4, 1, 2, 2)
    assert value_and_residual(measure_hessian(Bent(), (images, torch.zeros(4).long()))) == (pytest.approx(-1.5 * 2), 0)
    assert value_and_residual(measure_hessian(Bent(), (images, torch.ones(4).long()))) == (pytest.approx(1.5 * 2), 0)


def test_batches_and_modes_do_not_matter(net, data):
    whole = measure_hessian(net, data).records[0].value
    assert measure_hessian(net, data, batch_size=5).records[0].value == pytest.approx(whole, rel=1e-4)
    with torch.inference_mode():
        masks = {"1.weight": torch.ones(5, 4, dtype=torch.bool)}
        inside = measure_hessian(net, (data[0].clone(), data[1].clone()), masks=masks).records[0].value
    assert inside == whole
    assert measure_hessian(net, data, seed=1).records[0].value == pytest.approx(whole, rel=1e-2)


@pytest.mark.parametrize("seed", range(8))
def test_it_settles_on_the_largest_from_any_start(net, data, seed):
    """This net has negative eigenvalues at 0.78 of the largest, which slow it down."""
    every = eigenvalues(net, data)
    assert every.min() < -0.7 * every.max()
    assert measure_hessian(net, data, seed=seed).records[0].value == pytest.approx(every.max(), rel=3e-3)


def test_opposite_eigenvalues_do_not_pass_for_a_settled_one():
    """By hand: two weights, loss curved by +1.5 along one and -1.4999 along the other, where nothing settles soon."""

    class Saddle(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            flat = 0 * x.flatten(1).sum(dim=1)
            return torch.stack([flat, flat + 1.5 * self.w[0] ** 2 - 1.4999 * self.w[1] ** 2], dim=1)

    record = measure_hessian(Saddle(), (torch.rand(4, 1, 2, 2), torch.zeros(4).long())).records[0]
    assert abs(record.value) < 1.4
    assert "100 power iterations, not settled" in record.detail


def test_too_few_iterations_are_reported(net, data):
    record = measure_hessian(net, data, iterations=1).records[0]
    assert "1 power iterations, not settled" in record.detail
    assert record.samples == 12


def test_no_curvature_is_zero(net, data):
    net[4].weight.data.zero_()
    masks = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in net.named_parameters()}
    masks["1.weight"][:] = True  # none of their effect gets through
    assert value_and_residual(measure_hessian(net, data, masks=masks)) == (0, 0)


def test_no_trace_is_left_also_after_an_exception(net, data):
    net.train()
    net[1].weight.requires_grad_(False)
    net[4].bias.grad = waiting = torch.ones(3)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    measure_hessian(net, data)
    with pytest.raises(SparsityError):
        measure_hessian(as_classifier(net, forward=lambda model, x: Once.apply(model(x))), data)
    assert all(module.training for module in net.modules())
    assert [parameter.requires_grad for parameter in net.parameters()] == [False, True, True, True]
    assert net[4].bias.grad is waiting
    assert waiting.tolist() == [1, 1, 1]
    assert net[4].weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


def test_models_without_a_second_derivative_are_refused(net, data):
    with pytest.raises(SparsityError, match="cannot be differentiated twice in the weights"):
        measure_hessian(as_classifier(net, forward=lambda model, x: Once.apply(model(x))), data)
    with pytest.raises(SparsityError, match="cannot be differentiated twice in the weights"):
        measure_hessian(as_classifier(net, forward=lambda model, x: model(x).detach()), data)


def test_attention_and_compiled_models_run_by_their_plain_kernels(net, data):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = nn.Linear(2, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            tokens = self.inside(x.squeeze(1)).view(len(x), 1, 2, 8)
            return self.head(F.scaled_dot_product_attention(tokens, tokens, tokens).mean(dim=(1, 2)))

    torch.manual_seed(5)  # of some weights the two largest eigenvalues are too close for a hundred iterations
    attention = Attention()
    found = measure_hessian(attention, data, iterations=100).records[0].value
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert found == pytest.approx(np.abs(eigenvalues(attention, data)).max(), rel=3e-3)
    compiled = torch.compile(net, backend="aot_eager")
    assert measure_hessian(compiled, data).records[0].value == measure_hessian(net, data).records[0].value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"iterations": 0}, "iterations=0 is not"),
        ({"iterations": 2.0}, "iterations=2.0 is not"),
        ({"masks": {"weight": torch.ones(5, 4, dtype=torch.bool)}}, "is of no parameter: .* such as '1.weight'"),
        ({"masks": {"1.weight": torch.ones(5, 4)}}, r"give torch.bool \(5, 4\)"),
        ({"masks": {"1.weight": torch.ones(5, dtype=torch.bool)}}, r"give torch.bool \(5, 4\)"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(net, data, settings, said):
    with pytest.raises(SparsityError, match=said):
        measure_hessian(net, data, **settings)


def test_without_a_direction_there_is_nothing_to_measure(net, data):
    with pytest.raises(SparsityError, match="no living connection"):
        measure_hessian(net, data, masks={n: torch.zeros_like(w, dtype=torch.bool) for n, w in net.named_parameters()})
    with pytest.raises(SparsityError, match="no parameters"):
        measure_hessian(nn.Flatten(), data)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # where the logits are only looked at
@pytest.mark.parametrize("first", [0, 1])
def test_a_reentrant_checkpoint_would_hide_weights_and_is_refused(first):
    class Checkpointed(nn.Linear):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=reentrant)

    layers = [nn.Linear(4, 4), nn.Linear(4, 4)]
    layers[first] = Checkpointed(4, 4)
    net, images = nn.Sequential(nn.Flatten(), *layers), torch.rand(6, 1, 2, 2)
    reentrant = True
    with pytest.raises(SparsityError, match="use_reentrant=False"):
        measure_hessian(net, (images, torch.arange(6) % 4))
    reentrant = False
    assert measure_hessian(net, (images, torch.arange(6) % 4)).records[0].value > 0
