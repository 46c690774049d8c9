"""The dense tensors that a tensor is made of: a sparse one holds its values and their places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_PARTS = {
    torch.sparse_coo: ("_indices", "_values"),
    torch.sparse_csr: ("crow_indices", "col_indices", "values"),
    torch.sparse_bsr: ("crow_indices", "col_indices", "values"),
    torch.sparse_csc: ("ccol_indices", "row_indices", "values"),
    torch.sparse_bsc: ("ccol_indices", "row_indices", "values"),
}


def tensor_parts(tensor: Tensor) -> list[Tensor]:
    """Return the strided tensors that hold what a tensor holds: itself, or those of a sparse or a wrapped (2:4) one.

    A layout that cannot be taken apart, such as MKL-DNN's, has none.

    Example:
        >>> tensor_parts(torch.eye(3).to_sparse_coo())[1]
        tensor([1., 1., 1.])
    """
    if is_traceable_wrapper_subclass(tensor):
        names, _ = tensor.__tensor_flatten__()
        return [part for name in names for part in tensor_parts(getattr(tensor, name))]
    if tensor.layout == torch.strided:
        return [tensor]
    return [getattr(tensor, name)() for name in _PARTS.get(tensor.layout, ())]
