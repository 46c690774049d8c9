"""Sparse layers give what dense ones give, whatever the network does with them, and stand where they are faster."""

import copy
import pickle
import re
import sys
from itertools import pairwise

import pytest
import torch
from torch import nn

from advised import call_in
from lightning_sparse import SparsityError
from lightning_sparse.export import CSRLinear, sparsify
from lightning_sparse.models import lenet5, lenet_300_100
from networks import Lstm, Tokens, Transformer


def pruned(model, density=0.02):
    generator = torch.Generator().manual_seed(1)  # not that of the weights: only the negative ones would live
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() >= 2:
                weight.mul_(torch.rand(weight.shape, generator=generator) < density)
    return model


def mlp(*widths, bias=True):
    torch.manual_seed(0)
    layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def close(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (0, 7), (2, 3, 7), (2, 1, 3, 7), (1, 1, 7), (2, 0, 7)])
def test_a_layer_is_its_dense_one(shape, density, bias, dtype):
    torch.manual_seed(0)
    dense = pruned(nn.Linear(7, 4, bias=bias, dtype=dtype), density)
    sparse = CSRLinear(dense.weight, dense.bias)
    x = torch.randn(shape, dtype=dtype)
    assert sparse.nnz == int((dense.weight != 0).sum())
    expected = dense(x)
    torch.testing.assert_close(sparse(x), expected)
    packed = CSRLinear(dense.weight, dense.bias, contiguous=True)(x)
    assert packed.is_contiguous()
    torch.testing.assert_close(packed, expected)
    torch.testing.assert_close(sparse.weight.to_dense(), dense.weight.detach())


def test_inputs_laid_out_in_columns_are_read_as_they_are():
    dense = pruned(nn.Linear(7, 4), 0.5)
    sparse = CSRLinear(dense.weight, dense.bias)
    x = torch.randn(7, 5).t()
    torch.testing.assert_close(sparse(x), dense(x))
    assert sparse(x).t().is_contiguous()


def test_gradients_of_the_input_are_those_of_the_dense_layer():
    dense = pruned(nn.Linear(7, 4), 0.5)
    sparse = CSRLinear(dense.weight, dense.bias)
    with torch.inference_mode():
        sparse(torch.zeros(2, 7))  # what is kept from here must serve where there are gradients, too
    for rows in (1, 5):
        gradients = []
        for layer in (dense, sparse):
            x = torch.ones(rows, 7, requires_grad=True)
            gradients.append(torch.autograd.grad(layer(x).square().sum(), x)[0])
        torch.testing.assert_close(*gradients)


def test_autocast_computes_in_float32():
    layer = CSRLinear(torch.eye(3), torch.zeros(3))
    with torch.autocast("cpu", torch.bfloat16):
        for rows in (1, 2):
            out = layer(torch.full((rows, 3), 1.001))
            assert out.dtype == torch.float32
            close(out, torch.full((rows, 3), 1.001))
        assert layer(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_what_a_layer_shows():
    layer = CSRLinear(torch.tensor([[0.0, 2.0], [0.0, 0.0], [1.0, 0.0]]))
    assert repr(layer) == "CSRLinear(in_features=2, out_features=3, bias=False, nnz=2, density=0.3333)"
    assert list(layer.parameters()) == []


def test_a_layer_is_copied_pickled_moved_saved_and_loaded(tmp_path):
    layer = CSRLinear(pruned(nn.Linear(7, 4), 0.3).weight, torch.ones(4))
    x = torch.randn(5, 7)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
        other.values.zero_()
        assert torch.equal(layer(x), expected)  # nothing is shared
    double = copy.deepcopy(layer).to(torch.float64)
    torch.testing.assert_close(double(x.double()).float(), expected)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for assign in (True, False):
        other = CSRLinear(torch.eye(4, 7), torch.zeros(4))  # with another number of weights
        assert not torch.equal(other(x), expected)
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(x), expected)
    with pytest.raises(RuntimeError, match="size mismatch"):
        CSRLinear(torch.eye(5, 7), torch.zeros(5)).load_state_dict(state)


def test_indices_that_point_outside_the_matrix_are_refused_not_followed():
    layer = CSRLinear(torch.eye(4))
    layer.load_state_dict({**layer.state_dict(), "columns": torch.tensor([0, 1, 2, 10**6], dtype=torch.int32)})
    with pytest.raises(RuntimeError, match="col_indices"):
        layer(torch.ones(2, 4))


@pytest.mark.parametrize(
    ("weight", "bias", "says"),
    [
        ([[1.0]], None, "weight=list is not a matrix"),
        (torch.ones(3), None, r"weight=\(3,\) is not a matrix"),
        (torch.ones(0, 3), None, r"weight=\(0, 3\) is not a matrix"),
        (torch.eye(3).to_sparse(), None, r"weight=\(3, 3\) is not a matrix"),
        (torch.eye(3).half(), None, "weight is torch.float16"),
        (torch.eye(3), torch.ones(2), r"bias=torch.float32 \(2,\) is not torch.float32 \(3,\)"),
        (torch.eye(3), 1.0, "bias=float is not"),
    ],
)
def test_a_layer_of_something_else_is_refused(weight, bias, says):
    with pytest.raises(SparsityError, match=says):
        CSRLinear(weight, bias)


def test_the_advice_for_a_weight_in_16_bits_works():
    weight = torch.eye(3).half()
    with pytest.raises(SparsityError) as error:
        CSRLinear(weight)
    assert CSRLinear(eval(call_in(error, "weight.float("), {"weight": weight})).nnz == 3


class Views(nn.Module):
    """Asks for torch's usual layout after a layer, as attention written by hand does."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(256, 256), nn.Linear(128, 256)

    def forward(self, x):
        return self.b(self.a(x).view(-1, 128))


class Reads(nn.Module):
    """Uses a weight without calling its layer, and calls another one twice, under two names."""

    def __init__(self):
        super().__init__()
        self.read, self.twice, self.never = nn.Linear(256, 256), nn.Linear(256, 256), nn.Linear(256, 256)
        self.also = self.twice

    def forward(self, x):
        return {"out": (self.also(self.twice(nn.functional.linear(x, self.read.weight))), None)}


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        n_layer=1, n_embd=128, n_head=2, vocab_size=100, bos_token_id=0, eos_token_id=0, use_cache=False
    )
    return transformers.GPT2LMHeadModel(config)


def vit():
    timm = pytest.importorskip("timm")
    return timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32)


NETWORKS = {
    "lenet_300_100": (lambda: lenet_300_100((1, 28, 28), 10), torch.rand(4, 1, 28, 28)),
    "lenet5": (lambda: lenet5((1, 28, 28), 10), torch.rand(4, 1, 28, 28)),
    "one layer": (lambda: nn.Linear(512, 512), torch.randn(4, 512)),
    "no bias": (lambda: mlp(512, 512, 512, bias=False), torch.randn(4, 512)),
    "float64": (lambda: mlp(512, 512, 10).double(), torch.randn(4, 512, dtype=torch.float64)),
    "tokens": (lambda: mlp(256, 256, 10), torch.randn(2, 5, 256)),
    "views": (Views, torch.randn(4, 256)),
    "reads": (Reads, torch.randn(4, 256)),
    "softmax": (lambda: nn.Sequential(mlp(512, 512), nn.Softmax(1)), torch.randn(4, 512)),
    "lstm": (Lstm, torch.rand(4, 64)),
    "transformer": (Transformer, torch.rand(4, 64)),
    "embedding": (Tokens, torch.rand(4, 64)),
    "gpt2": (gpt2, torch.randint(100, (2, 8))),
    "vit": (vit, torch.rand(2, 3, 32, 32)),
    "no linear layer": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), torch.rand(2, 1, 8, 8)),
}


def outputs(model, x):
    with torch.no_grad():
        found = model(x)
    if isinstance(found, dict) and not isinstance(found, torch.Tensor):
        found = found.get("logits", found.get("out"))
    return found[0] if isinstance(found, tuple) else found


@pytest.mark.parametrize("batch_size", [1, 128])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_same_and_is_left_as_it_was(name, batch_size):
    make, x = NETWORKS[name]
    model = pruned(make()).train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    found = sparsify(model, x, batch_size=batch_size, seconds=0.05)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not isinstance(module, CSRLinear) for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in found.model.modules())
    model.eval()
    for batch in (x, x[:1], x.repeat(3, *[1] * (x.dim() - 1))):
        output, expected = outputs(found.model, batch), outputs(model, batch)
        close(output, expected)
        assert output.is_contiguous()
    chosen = {path for path, m in found.model.named_modules(remove_duplicate=False) if isinstance(m, CSRLinear)}
    assert chosen - {"also"} == {layer.name for layer in found.layers if layer.form == "csr"}
    assert found.speedup >= 1.0
    assert found.noise > 0
    assert found.batch_size == batch_size
    for layer in found.layers:
        assert (layer.form == "dense") == bool(layer.why)
        assert layer.form == "dense" or min(layer.sparse_ms, layer.dense_ms) > 0


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
    with pytest.raises(SparsityError, match="model=Sequential cannot be copied") as error:
        sparsify(model, torch.rand(2, 256), seconds=0.05)
    eval(call_in(error, "torch.nn.utils.prune.remove("), {"torch": torch, "layer": layer})
    assert sparsify(model, torch.rand(2, 256), seconds=0.05).layers[0].density == pytest.approx(0.1, abs=1e-3)


def test_layers_whose_gain_the_whole_does_not_show_go_back(monkeypatch):
    # What the clock would say of a network that is slower with its sparse layers, though each is faster alone.
    module = sys.modules["lightning_sparse.export.sparsify"]
    real = module.race

    def slower(calls, seconds, device=None):
        times = real(calls, seconds, device)
        if "again" in calls:
            for sparse in {"faster", "all"} & times.keys():
                times[sparse] = [2 * t for t in times["dense"]]
        return times

    monkeypatch.setattr(module, "race", slower)
    found = sparsify(pruned(mlp(784, 1024, 1024, 10)), torch.rand(8, 784), batch_size=128, seconds=0.1)
    assert {layer.form for layer in found.layers} == {"dense"}
    assert [layer.why for layer in found.layers[:2]] == ["the whole is slower with it"] * 2
    assert not any(isinstance(module, CSRLinear) for module in found.model.modules())


def test_a_network_whose_outputs_jump_stays_dense():
    class Jumps(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(512, 512)

        def forward(self, x):
            return (self.body(x) * 1e9).frac()  # the last digits, which rounding decides

    found = sparsify(pruned(Jumps(), 0.05), torch.randn(4, 512), seconds=0.05)
    assert found.layers[0].form == "dense"


def test_a_sparse_network_is_saved_and_loaded_as_a_whole_and_by_its_state(tmp_path):
    model = pruned(mlp(784, 1024, 10))
    found = sparsify(model, torch.rand(8, 784), batch_size=128, seconds=0.1)
    assert found.layers[0].form == "csr"
    x = torch.rand(5, 784)
    torch.save(found.model, tmp_path / "model.pt")
    assert torch.equal(torch.load(tmp_path / "model.pt", weights_only=False)(x), found.model(x))
    other = copy.deepcopy(found.model)
    other[0].values.zero_()
    other.load_state_dict(found.model.state_dict())
    assert torch.equal(other(x), found.model(x))


def test_several_arguments_and_a_trainer_are_no_hindrance():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(512, 512)

        def forward(self, x, scale):
            return self.body(x) * scale

    model = pruned(Two())
    model._trainer = iter(())  # which cannot be copied, like a Trainer's loaders
    x, scale = torch.randn(4, 512), torch.rand(4, 1)
    found = sparsify(model, (x, scale), batch_size=64, seconds=0.05)
    close(found.model(x, scale), model(x, scale))


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
