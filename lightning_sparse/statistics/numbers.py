"""Numbers as arguments: lists, arrays or tensors of them, and whole numbers."""

from __future__ import annotations

from contextlib import suppress
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_sparse.errors import SparsityError, check_count


def numbers(name: str, values: Any) -> npt.NDArray[np.float64]:
    """Return numbers as an array of floats, or raise a SparsityError.

    Example:
        >>> numbers("values", ["a"])
        Traceback (most recent call last):
        lightning_sparse.SparsityError: values=['a'] is not a list of numbers: write values=[0.7, 0.72, 0.74]
    """
    try:
        array = np.asarray(values)
        if array.dtype.kind in "biuf" and array.ndim:
            return array.astype(np.float64)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise SparsityError(f"{name}={values!r} is not a list of numbers: write {name}=[0.7, 0.72, 0.74]")


def whole(name: str, value: Any, *, most: int | None = None) -> int:
    """Return a whole number from 0 to ``most``, also one of numpy's, or raise a SparsityError.

    Example:
        >>> whole("n", np.int64(3))
        3
    """
    with suppress(TypeError):
        value = value if isinstance(value, bool) else index(value)
    return check_count(name, value, 0, most=most)
