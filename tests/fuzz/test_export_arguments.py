"""What takes a second a call, with one odd value at a time: refused in our words, or rightly taken."""

import pytest
import torch

from fuzz import odd_values
from fuzz.outcomes import result_or_refusal
from fuzz.small_inputs import images, net
from lightning_sparse import SparsityError
from lightning_sparse.export import finalise, sparsify, to_exported_program, to_onnx

ODD = [
    *(None, True, False, [], (), {}, [1, 2], (1, 2), {"a": 1}, {1}, [torch.ones(2)], (torch.ones(3), torch.ones(2))),
    *odd_values._FLOATS,
    *odd_values._INTS,
    *odd_values._TEXTS,
    *odd_values._TENSORS,
    *odd_values._ARRAYS,
    *odd_values._FUNCTIONS,
    *odd_values._OBJECTS,
]
# How an argument's right values look; None where it may be left out. Large numbers are right and slow: they are not tried.
RIGHT = {
    "example": lambda value: isinstance(value, torch.Tensor) and value.shape == (4, 1, 8, 8),
    "int8": lambda value: value is None or RIGHT["example"](value),
    "path": lambda value: False,
    "model": lambda value: False,
    "masks": lambda value: value is None,
    "to": lambda value: False,
    "batch_size": lambda value: value is None or (type(value) is int and value > 0),
    "seconds": lambda value: type(value) in (int, float) and 0 < value <= 3600,
}


@pytest.mark.parametrize(
    ("function", "argument"),
    [
        *((sparsify, name) for name in ("model", "example", "batch_size", "seconds")),
        *((finalise, name) for name in ("model", "masks", "example", "to", "seconds")),
        *((to_onnx, name) for name in ("model", "example", "path", "int8")),
        *((to_exported_program, name) for name in ("model", "example", "path")),
    ],
)
def test_odd_values(function, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    right = {"model": net(), "example": images()}
    right |= (
        {"seconds": 0.001}
        if function is sparsify
        else {"seconds": 0.001, "masks": None, "to": "dense"}
        if function is finalise
        else {"path": f"net{'.onnx' if function is to_onnx else '.pt2'}"}
    )
    for value in ODD:
        taken = RIGHT[argument](value) or (function is to_exported_program and argument == "path" and value is None)
        if taken and argument in ("batch_size", "seconds"):
            continue
        found = result_or_refusal(lambda value=value: function(**right | {argument: value}))
        assert isinstance(found, SparsityError) != taken or isinstance(value, torch.Tensor), (
            f"{argument}={value!r}: {found}"
        )
    assert {path.name for path in tmp_path.iterdir()} <= {"net.onnx", "net.pt2"}
