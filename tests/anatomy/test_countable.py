"""The sparsity of any model, counted by hand."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lightning_sparse import sparsity_of
from lightning_sparse.errors import SparsityError


def half_sparse():
    """A dense layer of 64 weights and one of 64 with 48 zeros: 0.375."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    net[2].weight.data[:6] = 0
    return net


def test_frozen_layers_count():
    net = half_sparse()
    assert sparsity_of(net) == 0.375
    net[0].requires_grad_(False)
    assert sparsity_of(net) == 0.375
    net.requires_grad_(False)
    assert sparsity_of(net) == 0.375
    assert sparsity_of(net, exclude=["0.*"]) == 0.75
    assert sparsity_of(net, include=["0.weight"]) == 0.0


@pytest.mark.parametrize("static", [False, True])
def test_quantised_layers_of_torch_count(static):
    from torch.ao import quantization

    net = half_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao says that it has moved
        if static:
            net = nn.Sequential(quantization.QuantStub(), *net, quantization.DeQuantStub()).eval()
            net.qconfig = quantization.default_qconfig
            net = quantization.prepare(net)
            net(torch.randn(20, 8))
            net = quantization.convert(net)
        else:
            net = quantization.quantize_dynamic(net, {nn.Linear})
        assert not dict(net.named_parameters())
        last = "3" if static else "2"
        rounded = int((net[int(last) - 2].weight().dequantize() == 0).sum())  # some of the living are rounded to zero
        assert sparsity_of(net) == pytest.approx((48 + rounded) / 128, abs=2 / 128)
        assert sparsity_of(net, exclude=[f"{int(last) - 2}.*"]) >= 0.75
        assert sparsity_of(net, include=[f"{last}.weight"]) == pytest.approx(0.75, abs=1 / 64)


@pytest.mark.filterwarnings("ignore")
def test_quantised_weights_of_torchao_count():
    quantization = pytest.importorskip("torchao.quantization")
    net = half_sparse()
    quantization.quantize_(net, quantization.Int8WeightOnlyConfig())
    assert type(net[2].weight) is not nn.Parameter
    rounded = [int((net[at].weight.dequantize() == 0).sum()) for at in (0, 2)]
    assert rounded[1] >= 48
    assert sparsity_of(net) == sum(rounded) / 128


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda layer: prune.l1_unstructured(layer, "weight", 0.75),
        lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", nn.ReLU()),
        lambda layer: nn.utils.parametrizations.weight_norm(layer),
    ],
)
def test_rewritten_weights_count_as_they_are_used(rewrite):
    net = half_sparse()
    rewrite(net[2])
    assert sparsity_of(net) == int((net[2].weight == 0).sum()) / 128
    assert sparsity_of(net, exclude=["2.*"]) == 0.0


def test_a_tied_weight_counts_once_and_goes_by_any_of_its_names():
    net = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    net["b"].weight = net["a"].weight
    net["a"].weight.data[0] = 0
    assert sparsity_of(net) == 4 / 32
    assert sparsity_of(net, include=["b.weight"]) == 4 / 16
    assert sparsity_of(net, exclude=["b.*"]) == 0.0


def test_an_embedding_is_counted_if_it_is_named():
    net = nn.ModuleDict({"table": nn.Embedding(4, 3, sparse=True, padding_idx=0), "head": nn.Linear(3, 4, bias=False)})
    assert sparsity_of(net) == 0.0
    assert sparsity_of(net, include=["table.weight"]) == 0.25


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.BatchNorm1d(3)), r"Sequential has no weight to count.*include=.*0\.weight"),
        (nn.ReLU(), "ReLU has no weight to count"),
        (nn.Sequential(nn.LazyLinear(3)), "run one batch"),
    ],
)
def test_what_cannot_be_counted_is_said(net, message):
    with pytest.raises(SparsityError, match=message):
        sparsity_of(net)


def test_packed_weights_are_refused_and_the_advice_works():
    net = half_sparse()
    net[0].weight = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)  # two to a byte
    with pytest.raises(SparsityError, match=r"'0.weight' cannot be read.*exclude=\['0.weight'\]"):
        sparsity_of(net)
    assert sparsity_of(net, exclude=["0.weight"]) == 0.75
