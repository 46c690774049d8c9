"""What does not fit into memory is measured again with half as many images at a time."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


def smaller_batches(measure: Callable[P, T]) -> Callable[P, T]:
    """Halve ``batch_size`` of a function until what it computes fits into memory, with a warning that says so each time.

    Example:
        >>> @smaller_batches
        ... def most(data, *, batch_size=512):
        ...     if batch_size > 128:
        ...         raise torch.OutOfMemoryError("CUDA out of memory")
        ...     return batch_size
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     most([])
        128
    """
    default = inspect.signature(measure).parameters["batch_size"].default

    @functools.wraps(measure)
    def measured(*args: P.args, **kwargs: P.kwargs) -> T:
        size: Any = kwargs.get("batch_size", default)
        while True:
            try:
                return measure(*args, **{**kwargs, "batch_size": size})
            except RuntimeError as error:
                read_once = any(isinstance(given, Iterator) for given in (*args, *kwargs.values()))
                if not out_of_memory(error) or size < 2 or read_once:
                    raise
            # After the except, whose error would hold on to all tensors of the frames that it came through.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            size //= 2
            warnings.warn(
                f"{measure.__name__}: {2 * size} images at a time do not fit into memory, and {size} are tried",
                stacklevel=2,
            )

    return measured


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's is about memory, on a GPU or, by its words, on a CPU.

    Example:
        >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"))
        True
    """
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
