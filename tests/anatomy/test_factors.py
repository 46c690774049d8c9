"""Layers that tltorch has factorised: their factors are weights like others, to make sparse, to count and to price."""

import pytest
import tltorch
import torch
from torch import nn

import settings
from lightning_sparse import GradualPruning, RigL, SparsityMonitor, sparsifiable, sparsity_of
from lightning_sparse.anatomy.flops import layer_flops
from lightning_sparse.anatomy.layer_calls import CallRecorder
from lightning_sparse.compress.factorised import factorise_layers
from lightning_sparse.export import load_packed, save_packed

FACTORS = [f"0.weight.factors.factor_{at}" for at in range(3)]


def train(implementation="reconstructed"):
    torch.manual_seed(0)
    layer = tltorch.FactorizedLinear(
        (2, 4, 8), (2, 3, 5), factorization="blocktt", rank=(1, 3, 4, 1), implementation=implementation
    )
    return nn.Sequential(layer, nn.ReLU(), nn.Linear(30, 10))


def test_each_factor_is_a_weight_by_default():
    net = train()
    assert list(sparsifiable(net)) == ["2.weight", *FACTORS]
    assert list(sparsifiable(net, exclude=["2.*", "*.factor_0"])) == FACTORS[1:]
    assert list(sparsifiable(net, include=["0.weight.*"])) == FACTORS
    net[0].requires_grad_(False)
    assert list(sparsifiable(net)) == ["2.weight"]


@pytest.mark.parametrize(
    ("factorization", "shapes"),
    [
        ("blocktt", [(1, 2, 4, 3), (3, 5, 4, 1)]),
        ("cp", [(2, 3), (5, 3), (4, 3), (4, 3)]),
        ("tucker", [(2, 3, 3, 3), (2, 2), (5, 3), (4, 3), (4, 3)]),
    ],
)
def test_other_factorisations_have_factors_too(factorization, shapes):
    rank = {"blocktt": (1, 3, 1), "cp": 3, "tucker": (2, 3, 3, 3)}[factorization]
    layer = tltorch.FactorizedLinear((4, 4), (2, 5), factorization=factorization, rank=rank)
    found = sparsifiable(nn.Sequential(layer, nn.ReLU()))
    assert [tuple(factor.shape) for factor in found.values()] == shapes
    assert sparsity_of(nn.Sequential(layer)) == 0.0


def test_embeddings_are_left_out_as_plain_ones_are():
    net = nn.Sequential(tltorch.FactorizedEmbedding(16, 16, factorization="blocktt", rank=2), nn.Linear(16, 4))
    assert list(sparsifiable(net)) == ["1.weight"]


def test_zeros_are_counted_in_every_factor():
    net = train()
    assert sum(weight.numel() for weight in sparsifiable(net).values()) == 12 + 144 + 160 + 300
    net[0].weight.factors[1].data[:, :2] = 0  # 3 * 2 * 4 * 4 of 616
    assert sparsity_of(net) == 96 / 616
    assert sparsity_of(net, exclude=["2.*"]) == 96 / 316
    net.requires_grad_(False)
    assert sparsity_of(net) == 96 / 616


class Factorised(settings.Module):
    """A network on digits whose first two layers are tensor trains."""

    def __init__(self):
        super().__init__()
        del self.body, self.head
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 10)
        )
        factorise_layers(self.net, None, "tensor_train", rank=6, exclude=["5.*"], fresh=True)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize("method", [GradualPruning, RigL])
def test_nine_tenths_of_all_factors_are_zero(make_trainer, method):
    model, callback, monitor = Factorised(), method(0.9, every=2, allocation="uniform"), SparsityMonitor()
    make_trainer(callback, monitor, max_epochs=2).fit(model, settings.batches())
    factors = {name: p for name, p in model.named_parameters() if ".factors." in name}
    assert set(factors) == set(callback.masks) - {"net.5.weight"}
    assert len(factors) == 6
    weights = [*factors.values(), model.net[5].weight]
    zeros = sum(int((weight == 0).sum()) for weight in weights)
    assert (
        zeros == round(0.9 * sum(weight.numel() for weight in weights)) == callback.masks.total - callback.masks.living
    )
    assert sparsity_of(model) == callback.sparsity == zeros / callback.masks.total
    assert sum(int((factor == 0).sum()) for factor in factors.values()) > 0


def test_flops_of_a_train_that_is_multiplied_out_are_those_of_its_products():
    net = train()
    with CallRecorder(net) as recorder:
        net(torch.rand(7, 64)).sum().backward()
    found = {name: cost.passes // 2 for name, cost in layer_flops(recorder.calls).items()}
    # (2 * 2) x 3 times 3 x (3 * 4) x 4, then (6 * 8) x 4 times 4 x (5 * 8), once; the products with the inputs seven times.
    by_hand = dict(zip(FACTORS, [0, 2 * 4 * 144, 2 * 48 * 160], strict=True))
    assert found == {**by_hand, "0.weight": 2 * 7 * 64 * 30, "2.weight": 2 * 7 * 300}


def test_flops_of_a_train_that_is_multiplied_with_the_input_are_those_that_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    net = train("factorized")
    with CallRecorder(net) as recorder, FlopCounterMode(display=False) as counter:
        net(torch.rand(7, 64))
    found = {call.name: call.flops for call in recorder.calls}
    by_hand = dict(zip(FACTORS, [2 * 7 * 12 * 32, 2 * 7 * 144 * 2 * 8, 2 * 7 * 160 * 2 * 3], strict=True))
    assert found == {**by_hand, "2.weight": 2 * 7 * 300}
    assert sum(found.values()) == counter.get_total_flops()


def test_a_packed_file_holds_the_zeros_of_factors_as_a_mask(tmp_path):
    dense, sparse = train(), train()
    for factor in sparsifiable(sparse).values():
        factor.data.flatten()[::2] = 0
    sizes = []
    for net in (dense, sparse):
        save_packed(net, None, tmp_path / "net")
        sizes.append((tmp_path / "net").stat().st_size)
        again = train()
        load_packed(tmp_path / "net", again)
        x = torch.rand(3, 64)
        assert torch.equal(again(x), net(x))
    assert sizes[1] < 0.75 * sizes[0]
