"""The Hessian of a loss times a vector, for GraSP's scores and for eigenvalues by power iteration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_sparse.anatomy.reentrant_checkpoints import WRITE, graph_of, has_reentrant_checkpoint
from lightning_sparse.errors import SparsityError


def hessian_product(loss: Tensor, weights: Sequence[Tensor], vector: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """Return the loss's Hessian times a vector (Pearlmutter 1994): the gradient of (gradient times vector).

    ``vector`` has a tensor of its shape for each weight, and so has the result, zero where the loss does not use the weight.
    It is None if the gradient does not depend on the weights at all, as with a loss that is linear in them.

    Raises:
        SparsityError: if the loss cannot be differentiated twice.

    Example:
        >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
        >>> hessian_product((weight**3).sum(), [weight], [torch.tensor([1.0, 10.0])])
        (tensor([  6., 120.]),)
        >>> hessian_product(weight.sum(), [weight], [torch.ones(2)]) is None
        True
    """
    if has_reentrant_checkpoint(loss):
        raise SparsityError(
            "the loss comes through a reentrant checkpoint, and the weights inside it would have no second derivative: "
            f"{WRITE}"
        )
    try:
        first = torch.autograd.grad(loss, weights, create_graph=True, materialize_grads=True)
        slope = torch.stack([(gradient * part).sum() for gradient, part in zip(first, vector, strict=True)]).sum()
        if slope.grad_fn is None:
            return None
        _check_differentiable(slope)
        return torch.autograd.grad(slope, weights, materialize_grads=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise SparsityError(
            f"the loss cannot be differentiated twice in the weights ({error}): leave GraSP and the Hessian out for this "
            "model, or give it operations that have a second derivative"
        ) from error


def _check_differentiable(slope: Tensor) -> None:
    """Raise for an operation marked ``once_differentiable``: torch silently leaves it out of the second derivative."""
    if any(node.name().endswith("::Error") for node in graph_of(slope)):
        raise RuntimeError("an operation is marked once_differentiable")
