"""Arrays of numbers as arguments: tensors, numpy arrays or lists, checked to be numbers of the wanted shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError


def check_array(name: str, values: object, shape: str) -> npt.NDArray[Any]:
    """Return ``values`` as a numpy array of numbers or booleans of as many dimensions as ``shape`` has, else raise.

    Example:
        >>> check_array("maps", torch.ones(2, 3), "(n, H, W)")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: maps has shape (2, 3), not (n, H, W): give numbers of that shape
    """
    try:
        if isinstance(values, Tensor):
            values = values.detach().to_dense().cpu()
            values = values.float() if values.is_floating_point() and values.element_size() < 4 else values
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        array = np.empty((), dtype=object)
    if not (np.issubdtype(array.dtype, np.number) or array.dtype == np.bool_) or np.iscomplexobj(array):
        raise SparsityError(
            f"{name} is a {type(values).__name__}, not numbers of shape {shape}: give a tensor or an array"
        )
    if array.ndim != shape.count(",") + (not shape.endswith(",)")):
        raise SparsityError(f"{name} has shape {array.shape}, not {shape}: give numbers of that shape")
    return array


def check_weight_masks(masks: object, parameters: Mapping[str, Tensor]) -> None:
    """Refuse anything but None or boolean masks by the names and of the shapes of parameters.

    Example:
        >>> check_weight_masks(3, {"0.weight": torch.ones(2)})
        Traceback (most recent call last):
        lightning_sparse.SparsityError: masks=3 are not masks by parameter name: write masks={'0.weight': weight != 0}
    """
    if masks is None:
        return
    if not isinstance(masks, Mapping):
        example = next(iter(parameters), "0.weight")
        shown = masks if isinstance(masks, bool | int | float | str) else type(masks).__name__
        raise SparsityError(f"masks={shown} are not masks by parameter name: write masks={{{example!r}: weight != 0}}")
    for name, mask in masks.items():
        if name not in parameters:
            raise SparsityError(
                f"masks[{name!r}] is of no parameter: give masks by the names of model.named_parameters(), such as "
                f"{next(iter(parameters), '0.weight')!r}"
            )
        wanted = tuple(parameters[name].shape)
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != wanted:
            what = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else f"a {type(mask).__name__}"
            raise SparsityError(f"masks[{name!r}] is {what}: give torch.bool {wanted}, True where a connection lives")
