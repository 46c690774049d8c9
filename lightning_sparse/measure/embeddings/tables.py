"""Tables of embeddings: found in a model, checked, and read a part at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_choice

ROWS = 16_384  # of a table that are in double precision at once


def check_table(name: str, table: Tensor) -> Tensor:
    """Return a table (rows, dimensions) of finite floats, with at least two of both, or raise a SparsityError.

    Example:
        >>> check_table("vectors", torch.zeros(3))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: vectors.shape=(3,) is not (rows, dimensions), at least two of both: give one ...
    """
    if not isinstance(table, Tensor) or table.layout != torch.strided or table.is_meta:
        raise SparsityError(f"{name}={type(table).__name__} is no dense tensor: write torch.as_tensor({name})")
    if table.dim() != 2 or min(table.shape) < 2:
        raise SparsityError(
            f"{name}.shape={tuple(table.shape)} is not (rows, dimensions), at least two of both: give one row for each word"
        )
    if not table.is_floating_point():
        raise SparsityError(f"{name}.dtype={table.dtype} is not floating point: write {name}.float()")
    if not all(bool(part.isfinite().all()) for part in parts(table)):
        raise SparsityError(f"{name} holds NaN or infinity: leave such rows out, or train them again")
    return table.detach()


def parts(table: Tensor) -> Iterator[Tensor]:
    """The rows of a table on the CPU in double precision, some thousands at a time."""
    return (part.detach().to("cpu", torch.float64) for part in torch.split(table, ROWS))


def moments(table: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of the rows (dimensions,) and their covariance (dimensions, dimensions), over n, in double precision.

    Example:
        >>> moments(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))[1].tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    mean = torch.stack([part.sum(0) for part in parts(table)]).sum(0) / len(table)
    centred = (part - mean for part in parts(table))
    return mean, torch.stack([part.T @ part for part in centred]).sum(0) / len(table)


def embedding_of(model: nn.Module, layer: str | None = None) -> tuple[str, nn.Embedding | nn.EmbeddingBag]:
    """Find a model's embedding by the name of its layer, or the largest one, with its name.

    Raises:
        SparsityError: if there is none, or none of this name.

    Example:
        >>> embedding_of(nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2)))
        ('0', Embedding(5, 3))
    """
    found = {name: each for name, each in model.named_modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)}
    if not found:
        raise SparsityError(
            f"{type(model).__name__} has no nn.Embedding: give a table of shape (rows, dimensions) instead"
        )
    if layer is not None:
        return check_choice("layer", layer, found), found[layer]
    return max(found.items(), key=lambda item: item[1].num_embeddings * item[1].embedding_dim)


def plain_table(model: nn.Module, layer: str | None = None) -> tuple[str, nn.Embedding | nn.EmbeddingBag, Tensor]:
    """The name, the layer and the table of an embedding whose weight is a parameter of its own, so that it can be filled.

    Raises:
        SparsityError: if there is no such embedding, or its table is not one of finite floats.

    Example:
        >>> plain_table(nn.Sequential(nn.Embedding(5, 3)))[2].shape
        torch.Size([5, 3])
    """
    name, found = embedding_of(model, layer)
    if "weight" not in dict(found.named_parameters(recurse=False)):
        raise SparsityError(f"the weight of {name!r} is computed from something else: make it a plain parameter first")
    return name, found, check_table(f"{name}.weight", found.weight)
