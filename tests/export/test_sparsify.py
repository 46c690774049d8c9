"""Which layers become sparse, and what is said of the others."""

import re
import sys

import pytest
import torch
from torch import nn

from advised import call_in
from export.sparse_networks import Reads, mlp, pruned
from lightning_sparse import SparsityError
from lightning_sparse.export import CSRLinear, sparsify


def test_a_wide_and_very_sparse_network_is_sparse_and_says_so():
    model = pruned(mlp(784, 1024, 1024, 10), 0.01)
    found = sparsify(model, torch.rand(8, 784), batch_size=128, seconds=0.5)
    assert [layer.form for layer in found.layers[:2]] == ["csr", "csr"]
    assert [layer.shape for layer in found.layers] == [(1024, 784), (1024, 1024), (10, 1024)]
    assert found.layers[0].density == pytest.approx(0.01, abs=0.002)
    lines = found.table().splitlines()
    assert lines[0].split() == ["layer", "shape", "density", "%", "dense", "ms", "sparse", "ms", "form"]
    assert re.fullmatch(r"2 +1024 x 1024 +\d\.\d\d +[\d.]+ +[\d.]+  csr", lines[2])
    assert re.fullmatch(
        r"batch 128, \d+ threads?: [\d.]+ times as fast as dense \([\d.]+ ms\); a second dense copy: [\d.]+ times",
        lines[-1],
    )


def test_dense_weights_stay_dense_untimed():
    found = sparsify(mlp(16, 8, 4), torch.rand(8, 16), seconds=0.02)
    assert [(layer.form, layer.why) for layer in found.layers] == [("dense", "too dense")] * 2
    assert found.speedup == 1.0
    assert "0      8 x 16     100.00         -          -  dense  too dense" in found.table().splitlines()


def test_what_a_network_does_not_let_go_of_stays_dense_and_says_why():
    found = sparsify(pruned(Reads()), torch.randn(4, 256), seconds=0.1)
    why = {layer.name: layer.why for layer in found.layers}
    assert why["read"] == "not called"
    assert why["never"] == "not called"
    encoder = nn.TransformerEncoderLayer(64, 2, 128, batch_first=True)  # whose fast path reads weights
    why = {layer.name: layer.why for layer in sparsify(pruned(encoder), torch.rand(2, 3, 64), seconds=0.1).layers}
    assert why["linear1"] == "the network reads its weight, or gives other outputs"
    assert why["self_attn.out_proj"] == "a class of its own"
    half = sparsify(pruned(mlp(256, 256)).bfloat16(), torch.randn(4, 256).bfloat16(), seconds=0.05)
    assert half.layers[0].why == "no sparse kernel for bfloat16"
    hooked = pruned(mlp(256, 256))
    hooked[0].register_forward_hook(lambda *_: None)
    assert sparsify(hooked, torch.rand(2, 256), seconds=0.05).layers[0].why == "it has hooks"


def test_what_torch_has_pruned_is_taken_as_the_message_says():
    model = mlp(256, 256)
    layer = model[0]
    nn.utils.prune.random_unstructured(layer, "weight", 0.9)
    with pytest.raises(SparsityError, match=r"'0\.weight' of model=Sequential cannot be copied") as error:
        sparsify(model, torch.rand(2, 256), seconds=0.05)
    eval(call_in(error, "torch.nn.utils.prune.remove("), {"torch": torch, "layer": layer})
    assert sparsify(model, torch.rand(2, 256), seconds=0.05).layers[0].density == pytest.approx(0.1, abs=1e-3)


def test_layers_whose_gain_the_whole_does_not_show_go_back(monkeypatch):
    # What the clock would say of a network that is slower with its sparse layers, though each is faster alone.
    module = sys.modules["lightning_sparse.export.sparsify"]
    real = module.race

    def slower(calls, seconds, device, **kwargs):
        times = real(calls, seconds, device, **kwargs)
        if "again" in calls:
            for sparse in {"faster", "all"} & times.keys():
                times[sparse] = [2 * t for t in times["dense"]]
        return times

    monkeypatch.setattr(module, "race", slower)
    found = sparsify(pruned(mlp(784, 1024, 1024, 10)), torch.rand(8, 784), batch_size=128, seconds=0.1)
    assert {layer.form for layer in found.layers} == {"dense"}
    assert [layer.why for layer in found.layers[:2]] == ["the whole is slower with it"] * 2
    assert not any(isinstance(module, CSRLinear) for module in found.model.modules())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"model": nn.Linear}, "is not a torch.nn.Module"),
        ({"example": [torch.ones(2, 4)]}, "example=list is not a batch"),
        ({"example": torch.tensor(1.0)}, r"example=\(\) is not a batch"),
        ({"example": ()}, r"example=\(\) is empty"),
        ({"example": (torch.ones(2, 4), torch.ones(3))}, r"example=\(3,\) is not a batch"),
        ({"example": torch.ones(2, 5)}, "model=Sequential cannot be called with 2 rows of the example"),
        ({"batch_size": 0}, "batch_size=0 is not an integer of at least 1: write 128"),
        ({"seconds": 0}, "seconds=0 is not a number above 0 and up to 3600: write seconds=2"),
        ({"seconds": float("nan")}, "seconds=nan is not a number"),
        ({"model": torch.compile(nn.Linear(4, 2))}, "model is compiled"),
    ],
)
def test_odd_arguments_are_refused(arguments, says):
    with pytest.raises(SparsityError, match=says):
        sparsify(**{"model": mlp(4, 2), "example": torch.ones(2, 4)} | arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_two_of_four_on_a_gpu():
    torch.manual_seed(0)
    model = mlp(1024, 1024, 1024).cuda().half()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.view(1024, -1, 4)[:, :, :2] = 0
    x = torch.randn(256, 1024, device="cuda").half()
    found = sparsify(model, x, seconds=1.0)
    assert {layer.form for layer in found.layers} <= {"dense", "2:4"}
    assert all(layer.form == "2:4" or layer.dense_ms > 0 for layer in found.layers)  # it was tried
    torch.testing.assert_close(found.model(x), model(x), rtol=1e-2, atol=1e-2)
