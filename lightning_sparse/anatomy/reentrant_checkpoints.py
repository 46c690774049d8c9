"""Recognise reentrant checkpointing, whose weights ``torch.autograd.grad`` passes over in silence."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor
from torch.autograd.graph import Node

WRITE = (
    "write torch.utils.checkpoint.checkpoint(..., use_reentrant=False), or in transformers "
    "gradient_checkpointing_enable({'use_reentrant': False})"
)


def has_reentrant_checkpoint(result: Tensor) -> bool:
    """Whether a result was computed through a reentrant checkpoint.

    Such a checkpoint runs a backward pass of its own, which writes to ``.grad``: in the graph of the result, the weights
    inside it do not occur.

    Example:
        >>> import torch
        >>> from torch.utils.checkpoint import checkpoint
        >>> layer, x = torch.nn.Linear(2, 2), torch.ones(1, 2, requires_grad=True)
        >>> [has_reentrant_checkpoint(checkpoint(layer, x, use_reentrant=way).sum()) for way in (True, False)]
        [True, False]
    """
    return any(node.name() == "CheckpointFunctionBackward" for node in graph_of(result))


def graph_of(result: Tensor) -> Iterator[Node]:
    """Yield every node of the autograd graph behind a tensor, each once."""
    seen, waiting = set[Node](), [result.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [following for following, _ in node.next_functions]
