"""Texts as numbers: what a tensor of tokens is, the embedding that reads it, and its vectors moved for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError

PAD = 0
"""Fills a text up to the length of the longest, at its end."""
UNKNOWN = 1
"""A word that is not in the vocabulary."""

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def are_tokens(inputs: object) -> bool:
    """Whether inputs are texts: integers (n, length).

    Example:
        >>> are_tokens(torch.zeros(2, 5, dtype=torch.long)), are_tokens(torch.rand(2, 1, 4, 4))
        (True, False)
    """
    return isinstance(inputs, Tensor) and inputs.dim() == 2 and inputs.dtype in _INTEGERS


def word_embedding(model: nn.Module, tokens: Tensor) -> nn.Embedding:
    """Find the embedding that reads the tokens (n, length) themselves, by one pass; positions, say, have another.

    Raises:
        SparsityError: if none does, or the model reads the tokens with several.

    Example:
        >>> model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(6, 2))
        >>> word_embedding(model, torch.tensor([[2, 5]])) is model[0]
        True
    """
    found: list[nn.Embedding] = []

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        read = inputs[0] if inputs else None
        if isinstance(read, Tensor) and read.shape == tokens.shape and torch.equal(read, tokens.to(read)):
            found.append(module)  # type: ignore[arg-type]

    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    hooks = [module.register_forward_pre_hook(look) for module in embeddings]
    try:
        with torch.no_grad():
            model(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    if len(set(found)) != 1:
        what = f"{len(set(found))} layers" if found else f"none of its {len(embeddings)} nn.Embedding layers"
        raise SparsityError(
            f"model={type(model).__name__} reads the tokens with {what}, and words have their vectors in one: give a model "
            "with an nn.Embedding(words, dimensions) that is called with the tokens (n, length)"
        )
    return found[0]


@contextmanager
def moved(embedding: nn.Embedding, move: Tensor) -> Iterator[None]:
    """Within this context ``move`` (n, length, dimensions) is added to the vectors that an embedding gives.

    Example:
        >>> embedding, tokens = nn.Embedding(4, 3), torch.tensor([[1, 2]])
        >>> with moved(embedding, torch.ones(1, 2, 3)):
        ...     away = embedding(tokens)
        >>> bool(torch.allclose(away - embedding(tokens), torch.ones(1, 2, 3)))
        True
    """
    hook = embedding.register_forward_hook(lambda module, inputs, vectors: vectors + move)
    try:
        yield
    finally:
        hook.remove()
