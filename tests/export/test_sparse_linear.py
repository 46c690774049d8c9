"""A layer in compressed sparse rows gives what the dense one gives, and can be copied, moved, saved and loaded."""

import copy
import pickle

import pytest
import torch
from torch import nn

from advised import call_in
from export.sparse_networks import close, pruned
from lightning_sparse import SparsityError
from lightning_sparse.export import CSRLinear


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
