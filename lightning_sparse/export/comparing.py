"""What networks give for an example, and whether two of them give the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_sparse.anatomy.channel_groups import call
from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.errors import SparsityError, in_short
from lightning_sparse.export.example import cloned


def run(model: nn.Module, example: Any) -> Any:
    """What a model gives on a copy of the example, without gradients and with the same random numbers each time."""
    with fork_random_states(0), torch.no_grad():
        return call(model, cloned(example))


class Run:
    """What a model gives for a batch, to be compared with what others give."""

    def __init__(self, model: nn.Module, batch: tuple[Tensor, ...]) -> None:
        self.batch = batch
        self.outputs = self._outputs(model)

    def _outputs(self, model: nn.Module) -> list[Any]:
        try:
            return tree_leaves(run(model, self.batch))
        except Exception as error:
            raise SparsityError(
                f"model={type(model).__name__} cannot be called with {len(self.batch[0])} rows of the example "
                f"({in_short(error)}): give a batch, or a tuple of what the model takes"
            ) from error

    def gives_the_same(self, model: nn.Module) -> bool:
        """Whether another model's outputs are equal to 1e-4 of the largest, and laid out alike."""
        outputs = self._outputs(model)
        return len(outputs) == len(self.outputs) and all(map(_same, outputs, self.outputs))


def _same(output: Any, expected: Any) -> bool:
    if not isinstance(expected, Tensor):
        return type(output) is type(expected)
    if not isinstance(output, Tensor) or (expected.is_contiguous() and not output.is_contiguous()):
        return False
    return relative_difference(output, expected) <= tolerance(expected.dtype)


def tolerance(dtype: torch.dtype) -> float:
    """Largest difference, relative to the largest output, that counts as equal: 1e-4, or two steps of a format of 16 bits.

    Example:
        >>> tolerance(torch.float32), tolerance(torch.int64)
        (0.0001, 0.0)
    """
    return max(1e-4, 2 * torch.finfo(dtype).eps) if dtype.is_floating_point else 0.0


def relative_difference(output: Tensor, expected: Tensor) -> float:
    """Return the largest difference as a share of the largest finite number expected; infinite if they are of other kinds.

    NaN and infinities have to stand at the same places.

    Example:
        >>> relative_difference(torch.tensor([1.0, 2.5]), torch.tensor([1.0, 2.0]))
        0.25
    """
    if output.shape != expected.shape or output.dtype != expected.dtype:
        return math.inf
    if not expected.is_floating_point():
        return 0.0 if torch.equal(output, expected) else math.inf
    finite = expected.isfinite()
    if not torch.equal(output[~finite].nan_to_num(), expected[~finite].nan_to_num()):
        return math.inf
    if not finite.any():
        return 0.0
    difference = (output - expected)[finite].abs().amax().item()
    return 0.0 if difference == 0 else difference / max(expected[finite].abs().amax().item(), 1e-30)


def difference(wanted: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    """The largest difference in units of what is allowed: 1e-5 of a tensor's largest value, in half precision 1e-2.

    Example:
        >>> round(difference([torch.tensor([4.0, -2.0])], [torch.tensor([4.0, -2.0001])]), 1)
        2.5
    """
    if len(wanted) != len(given):
        return math.inf
    return max(
        relative_difference(other, one) / (1e-2 if one.dtype in (torch.float16, torch.bfloat16) else 1e-5)
        for one, other in zip(wanted, given, strict=True)
    )
