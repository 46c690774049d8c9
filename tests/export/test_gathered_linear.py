"""A layer of its living inputs and outputs gives what the dense one gives, and stands where it is the fastest."""

import copy
import pickle

import pytest
import torch
from torch import nn

from advised import call_in
from export.sparse_networks import close, mlp, pruned
from lightning_sparse import SparsityError
from lightning_sparse.export import CSRLinear, GatheredLinear, sparsify, to_exported_program, to_onnx
from lightning_sparse.models import lenet_300_100

DEAD = {
    "nothing": ([], []),
    "inputs": ([], [0, 3, 4]),
    "outputs": ([1, 3], []),
    "both": ([0, 2], [1, 6]),
    "all": ([0, 1, 2, 3], []),
}


def killed(layer, outputs=(), inputs=()):
    with torch.no_grad():
        layer.weight[list(outputs)] = 0
        layer.weight[:, list(inputs)] = 0
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dead", DEAD)
@pytest.mark.parametrize("shape", [(7,), (1, 7), (5, 7), (0, 7), (2, 3, 7), (2, 0, 7)])
def test_a_layer_is_its_dense_one(shape, dead, bias, dtype):
    torch.manual_seed(0)
    dense = killed(nn.Linear(7, 4, bias=bias, dtype=dtype), *DEAD[dead])
    layer = GatheredLinear(dense.weight, dense.bias)
    x = torch.randn(shape, dtype=dtype)
    output, expected = layer(x), dense(x)
    torch.testing.assert_close(output, expected)
    assert output.is_contiguous()


def test_inputs_laid_out_in_columns_give_rows():
    dense = killed(nn.Linear(7, 4), [2], [0, 5])
    x = torch.randn(7, 5).t()
    output = GatheredLinear(dense.weight, dense.bias)(x)
    torch.testing.assert_close(output, dense(x))
    assert output.is_contiguous()


def test_what_is_held_by_hand():
    layer = GatheredLinear(torch.tensor([[0.0, 2.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]]))
    assert torch.equal(layer.weight, torch.tensor([[2.0, 1.0], [0.0, 3.0]]))
    assert (layer.outputs.tolist(), layer.inputs.tolist()) == ([0, 2], [1, 3])
    assert repr(layer) == "GatheredLinear(in_features=4, out_features=3, bias=False, living=2 x 2)"
    assert list(layer.parameters()) == []
    assert layer(torch.tensor([[9.0, 1.0, 9.0, 10.0]])).tolist() == [[12.0, 0.0, 30.0]]


def test_gradients_of_the_input_are_those_of_the_dense_layer():
    dense = killed(nn.Linear(7, 4), [2], [0, 5])
    x = torch.randn(5, 7, requires_grad=True)
    layer = GatheredLinear(dense.weight, dense.bias)
    torch.testing.assert_close(*(torch.autograd.grad(net(x).square().sum(), x)[0] for net in (dense, layer)))


def test_autocast_gives_what_it_gives_of_the_dense_layer():
    dense = killed(nn.Linear(7, 4), [2], [0, 5])
    x = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(GatheredLinear(dense.weight, dense.bias)(x), dense(x))


def test_a_layer_is_copied_pickled_moved_saved_and_loaded(tmp_path):
    layer = GatheredLinear(killed(nn.Linear(7, 4), [2], [0, 5]).weight, torch.ones(4))
    x = torch.randn(5, 7)
    expected = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(other(x), expected)
        other.weight.zero_()
        assert torch.equal(layer(x), expected)  # nothing is shared
    torch.testing.assert_close(copy.deepcopy(layer).double()(x.double()).float(), expected)
    torch.testing.assert_close(copy.deepcopy(layer).bfloat16()(x.bfloat16()).float(), expected, rtol=0.02, atol=0.02)
    assert copy.deepcopy(layer).to("meta")(x.to("meta")).shape == (5, 4)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    for assign in (True, False):
        other = GatheredLinear(torch.eye(4, 7), torch.zeros(4))  # with others that live
        assert not torch.equal(other(x), expected)
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(x), expected)
    with pytest.raises(RuntimeError, match="size mismatch"):
        GatheredLinear(torch.eye(5, 7), torch.zeros(5)).load_state_dict(state)


@pytest.mark.parametrize("places", ["inputs", "outputs"])
def test_places_outside_the_layer_are_refused_not_followed(places):
    layer = GatheredLinear(torch.diag(torch.tensor([1.0, 1.0, 0.0, 1.0])))
    layer.load_state_dict({**layer.state_dict(), places: torch.tensor([0, 1, 10**6])})
    with pytest.raises((IndexError, RuntimeError), match=r"out of (DATA )?bounds"):
        layer(torch.ones(2, 4))


@pytest.mark.filterwarnings("ignore")
def test_it_goes_to_other_runtimes(tmp_path):
    dense = killed(nn.Linear(32, 16), [2], range(20))
    layer = GatheredLinear(dense.weight, dense.bias)
    x = torch.randn(5, 32)
    torch.testing.assert_close(to_exported_program(layer, x).module()(x), dense(x))
    pytest.importorskip("onnxruntime")
    assert to_onnx(layer, x, tmp_path / "net.onnx").difference < 1e-5


@pytest.mark.parametrize(
    ("weight", "bias", "says"),
    [
        ([[1.0]], None, "weight=list is not a matrix"),
        (torch.ones(0, 3), None, r"weight=\(0, 3\) is not a matrix"),
        (torch.eye(3).to_sparse(), None, r"weight=\(3, 3\) is not a matrix"),
        (torch.eye(3), torch.ones(2), r"bias=torch.float32 \(2,\) is not torch.float32 \(3,\)"),
    ],
)
def test_a_layer_of_something_else_is_refused(weight, bias, says):
    with pytest.raises(SparsityError, match=says):
        GatheredLinear(weight, bias)


def test_advice_works_and_an_input_of_another_width_is_refused():
    weight = torch.eye(3, dtype=torch.int64)
    with pytest.raises(SparsityError, match=r"weight is torch\.int64, not floating point") as error:
        GatheredLinear(weight)
    layer = GatheredLinear(eval(call_in(error, "weight.float("), {"weight": weight})[:, :2])
    with pytest.raises(SparsityError, match=r"x=\(5, 3\) is not \(\.\.\., 2\)"):
        layer(torch.ones(5, 3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wide_layer_with_a_tenth_of_its_inputs_is_shrunk_and_faster(dtype):
    model = mlp(1024, 1024, 10).to(dtype)
    killed(model[0], inputs=torch.randperm(1024)[102:])
    x = torch.rand(8, 1024).to(dtype)
    found = sparsify(model, x, batch_size=128, seconds=0.3)
    assert [layer.form for layer in found.layers] == ["shrunk", "dense"]
    assert (found.layers[0].why, found.layers[1].why) == ("", "too dense")
    assert found.layers[0].sparse_ms < found.layers[0].dense_ms  # a tenth of the multiplications
    assert found.model[0].weight.shape == (1024, 102)
    torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=0.02 if dtype == torch.bfloat16 else 1e-5)
    assert "shrunk" in found.table().splitlines()[1]


def test_zeros_at_random_places_are_not_shrunk():
    model = pruned(mlp(1024, 1024), 0.1)
    assert bool((model[0].weight != 0).any(0).all())
    found = sparsify(model.bfloat16(), torch.rand(8, 1024).bfloat16(), seconds=0.05)
    assert [(layer.form, layer.why) for layer in found.layers] == [("dense", "no sparse kernel for bfloat16")]


def test_one_dead_input_of_many_is_not_tried():
    found = sparsify(killed(nn.Linear(256, 256), inputs=[7]), torch.rand(8, 256), seconds=0.05)
    assert [(layer.form, layer.why) for layer in found.layers] == [("dense", "too dense")]


def test_the_faster_of_csr_and_shrunk_is_taken():
    model = mlp(1024, 1024, 1024, 10)
    killed(model[0], inputs=range(512))  # every second weight: too many for sparse rows
    pruned(model[2], 0.01)
    killed(model[2], inputs=range(100))  # from which nearly as much is left as was: too little for a dense matrix
    x = torch.rand(8, 1024)
    found = sparsify(model, x, batch_size=128, seconds=0.5)
    assert [layer.form for layer in found.layers[:2]] == ["shrunk", "csr"]
    assert [type(found.model[place]) for place in (0, 2)] == [GatheredLinear, CSRLinear]
    close(found.model(x), model(x))


def test_a_network_pruned_by_channels_keeps_its_outputs():
    torch.manual_seed(0)
    model = lenet_300_100((1, 28, 28), 10)
    first, second, _ = (module for module in model.modules() if isinstance(module, nn.Linear))
    killed(first, range(250), range(500))
    killed(second, range(80), range(250))
    images = torch.rand(16, 1, 28, 28)
    found = sparsify(model, images, batch_size=128, seconds=0.3)
    assert found.layers[0].form == "shrunk"
    close(found.model(images), model.eval()(images))
