"""Checks that what a model gives are logits; each message says what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.advice import with_forward


def check_logits(outputs: object) -> Tensor:
    """Return a classifier's outputs if they are logits, else raise.

    Args:
        outputs: what the model gave.

    Returns:
        The same tensor, finite, of shape (n, classes) with at least two classes.

    Raises:
        SparsityError: for anything else, and for outputs of a softmax (in [0, 1], rows summing to 1): the gradients of
            their cross-entropy vanish, which looks like robustness.

    Example:
        >>> check_logits({"logits": torch.zeros(2, 3)})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: the model gives a dict of 'logits' (2, 3), not logits: write as_classifier...
    """
    scores = check_scores(outputs)
    values = scores.detach().float()
    # 1e-3 because rows of half-precision probabilities sum to 1 only roughly.
    if len(values) and bool((values >= 0).all()) and bool(((values.sum(dim=1) - 1).abs() < 1e-3).all()):
        raise SparsityError(
            "the model gives probabilities (in [0, 1], rows sum to 1), not logits: leave the softmax out, or write "
            f"{with_forward('model(x).clamp_min(1e-30).log()')}"
        )
    return scores


def check_not_padded(logits: Tensor) -> Tensor:
    """Return logits (n, classes) unless they are the probability of one class beside a column of zeros.

    The larger of 0 and a probability is always the probability, so every image would be put into one class. Probabilities
    of a trained model lie on both sides of a half; where they do not, they cannot be told from logits.

    Example:
        >>> check_not_padded(torch.tensor([[0.0, 0.9], [0.0, 0.2]]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: the model gives two columns, one of zeros and one of probabilities (in [0, 1]), ...
    """
    values = logits.detach().float()
    if values.shape[1] == 2 and len(values):
        for zeros, others in ((values[:, 0], values[:, 1]), (values[:, 1], values[:, 0])):
            low, high = float(others.min()), float(others.max())
            if not zeros.any() and 0 <= low < 0.5 < high <= 1:
                raise SparsityError(
                    "the model gives two columns, one of zeros and one of probabilities (in [0, 1]), and a probability p is "
                    "never less than 0: write torch.nn.functional.pad(torch.logit(p, 1e-6), (1, 0)), with p of shape (n, 1)"
                )
    return logits


def check_scores(outputs: object) -> Tensor:
    """Return a classifier's outputs if they are finite scores of shape (n, classes), else raise.

    :func:`check_logits` without the check for a softmax, which needs many images: in one forward pass, the two logits of a
    single image may happen to sum to 1.

    Example:
        >>> check_scores(torch.tensor([[0.25, 0.75]]))
        tensor([[0.2500, 0.7500]])
    """
    if not isinstance(outputs, Tensor):
        raise SparsityError(f"the model gives {_describe(outputs)}, not logits: write {_picked(outputs)}")
    shape = tuple(outputs.shape)
    if not outputs.is_floating_point():
        raise SparsityError(
            f"the model gives {outputs.dtype}, not logits: write {with_forward('...')} with the scores before argmax"
        )
    if outputs.dim() == 1 or (outputs.dim() == 2 and shape[1] == 1):
        raise SparsityError(
            f"the model gives one number per image (shape {shape}), and a classifier gives one per class: for a binary "
            f"model write {_padded(outputs)}"
        )
    if outputs.dim() != 2 or 0 in shape:
        raise SparsityError(
            f"the model gives a tensor of shape {shape}, not logits of shape (n, classes): write {with_forward('...')} with "
            "the part of the model that gives them"
        )
    values = outputs.detach()
    finite = torch.isfinite(values).all(dim=1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise SparsityError(
            f"the model gives NaN or infinite logits for {bad} of {len(values)} images: nothing measured"
        )
    return outputs


def _padded(outputs: Tensor) -> str:
    """What to write for one number per image, so that the other class has the logit 0."""
    wide, values = ".unsqueeze(1)" if outputs.dim() == 1 else "", outputs.detach()
    of_logit = with_forward(f"torch.nn.functional.pad(model(x){wide}, (1, 0))")
    if len(values) and bool(((values >= 0) & (values <= 1)).all()):
        of_probability = with_forward(f"torch.nn.functional.pad(torch.logit(model(x), 1e-6){wide}, (1, 0))")
        return f"{of_probability} if it is a probability (these lie in [0, 1]), or {of_logit} if it is a logit"
    return of_logit


def _describe(outputs: object) -> str:
    if isinstance(outputs, Mapping):
        return "a dict of " + (", ".join(f"{key!r} {_kind(value)}" for key, value in outputs.items()) or "nothing")
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {len(outputs)} ({', '.join(_kind(value) for value in outputs)})"
    return f"a {type(outputs).__name__}"


def _kind(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _picked(outputs: object) -> str:
    """What to write to take the logits out of ``outputs``, as far as it can be told which part they are."""
    parts: dict[Any, object] = {}
    if isinstance(outputs, Mapping):
        parts = dict(outputs)
    elif isinstance(outputs, tuple | list):
        parts = dict(enumerate(outputs))
    elif isinstance(getattr(outputs, "logits", None), Tensor):
        return f"{with_forward('model(x).logits')}, a tensor of shape (n, classes)"
    fit = [key for key, value in parts.items() if _could_be_logits(value)]
    if "logits" in fit:
        fit = ["logits"]
    if len(fit) == 1:
        return f"{with_forward(f'model(x)[{fit[0]!r}]')}, the tensor of shape (n, classes)"
    if parts:
        return f"{with_forward('model(x)[...]')} with the logits, a tensor of shape (n, classes), in place of ..."
    return f"{with_forward('...')} with a tensor of shape (n, classes)"


def _could_be_logits(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] > 1 and value.is_floating_point()
