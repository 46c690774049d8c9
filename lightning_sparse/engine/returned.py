"""What a user's own function returned: an allocation, a score, a loss. Each kind is checked here, once, where it comes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_sparse.engine.function_arguments import check_takes
from lightning_sparse.errors import SparsityError


@contextmanager
def calling(what: str, function: object) -> Iterator[None]:
    """Add to an exception from within a user's function where it was called; the exception stays the user's own."""
    try:
        yield
    except SparsityError:
        raise
    except Exception as error:
        error.add_note(f"lightning_sparse called {called(function)} here, as {what}")
        raise


@contextmanager
def trying() -> Iterator[None]:
    """Leave what a user's function raises to the training, which may call it with what it was made for."""
    try:
        yield
    except SparsityError:
        raise
    except Exception:
        return


def called(function: object) -> str:
    """A function by its name, or an object by its class.

    Example:
        >>> called(len), called(3)
        ('len', 'int')
    """
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def counts(allocation: object, found: Any, masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
    """Return what an allocation gave as integers, one for each layer, or raise a SparsityError.

    Example:
        >>> masks = {"a": torch.ones(6, dtype=torch.bool), "b": torch.ones(4, dtype=torch.bool)}
        >>> counts(dict, {"a": 3.0, "b": 2}, masks, 5)
        {'a': 3, 'b': 2}
        >>> counts(dict, {"a": 0.5, "b": 0.5}, masks, 5)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: allocation=dict returned 0.5 for 'a', which is not a whole number from 1 to its 6 connections: return apportion(living, weights, most), which shares exactly `living` in proportion to weights
    """  # noqa: E501
    write = "return apportion(living, weights, most), which shares exactly `living` in proportion to weights"
    who = f"allocation={called(allocation)}"
    if not isinstance(found, Mapping):
        raise SparsityError(f"{who} returned {_short(found)}, not a count for each layer by name: {write}")
    missing, unknown = [name for name in masks if name not in found], [name for name in found if name not in masks]
    if missing or unknown:
        wrong = f"no count for {missing[0]!r}" if missing else f"a count for {unknown[0]!r}, which is not a layer here"
        raise SparsityError(f"{who} returned {wrong} (layers: {', '.join(masks)}): {write}")
    whole = {name: _whole(found[name]) for name in masks}
    for name, count in whole.items():
        if count is None or not min(1, masks[name].numel()) <= count <= masks[name].numel():
            raise SparsityError(
                f"{who} returned {_short(found[name])} for {name!r}, which is not a whole number from 1 to its "
                f"{masks[name].numel()} connections: {write}"
            )
    given = {name: count for name, count in whole.items() if count is not None}
    if sum(given.values()) != living:
        raise SparsityError(
            f"{who} returned {sum(given.values())} connections in all, where {living} are to live: {write}"
        )
    return given


def scores(score: object, found: Any, name: str, weight: Tensor, *, nan: bool = False) -> Tensor:
    """Return a score's tensor, of the weight's shape and on its device, or raise a SparsityError.

    A tensor of integers or of True and False is taken as numbers. It is a copy: a score may write its next one to the same
    memory. NaN is refused unless ``nan`` is true.

    Example:
        >>> scores(len, torch.tensor([True, False]), "head.weight", torch.zeros(2))
        tensor([1., 0.])
    """
    who = f"the score {called(score)}"
    shape = tuple(weight.shape)
    write = f"return one number a connection, shape {shape}, such as layer.weight.abs()"
    if not isinstance(found, Tensor):
        raise SparsityError(f"{who} returned {_short(found)} for {name!r}: {write}")
    if found.shape != weight.shape:
        raise SparsityError(f"{who} returned shape {tuple(found.shape)} for {name!r}: {write}")
    if found.is_complex() or found.layout != torch.strided or found.is_quantized or found.is_meta:
        kind = found.dtype if found.layout == torch.strided and not found.is_meta else f"a {found.layout} tensor"
        raise SparsityError(f"{who} returned {kind} for {name!r}, which cannot be ranked: {write}")
    given = found.detach().to(weight.device, copy=True)
    if not given.is_floating_point():
        return given.to(torch.float64 if given.element_size() > 2 and weight.device.type != "mps" else torch.float32)
    missing = 0 if nan else int(given.isnan().sum())
    if missing:
        raise SparsityError(
            f"{who} returned NaN for {missing} of the {given.numel()} connections of {name!r}, and NaN has no rank: return "
            "numbers (torch.nan_to_num(scores) makes NaN 0), or look whether the training has diverged"
        )
    return given


def network_scores(score: object, found: Any, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a score of the whole network gave for each parameter, checked, or raise a SparsityError."""
    missing = [name for name in parameters if name not in found] if isinstance(found, Mapping) else []
    if missing or not isinstance(found, Mapping):
        wrong = f"nothing for {missing[0]!r}" if missing else _short(found)
        raise SparsityError(
            f"the score {called(score)} returned {wrong}: return a tensor for each parameter by name, such as "
            "{name: weight.detach().abs() for name, weight in network.parameters.items()}"
        )
    return {name: scores(score, found[name], name, weight) for name, weight in parameters.items()}


@contextmanager
def unwritten(score: object, what: str, tensors: Mapping[str, Tensor | None]) -> Iterator[None]:
    """Raise a SparsityError if a user's function writes to the training's own ``tensors``, which torch counts."""
    before = {name: tensor._version for name, tensor in tensors.items() if tensor is not None}
    yield
    for name, version in before.items():
        tensor = tensors[name]
        if tensor is not None and tensor._version != version:
            raise SparsityError(
                f"{what} {called(score)} wrote to {name} in place, which is the training's own: make a new tensor, such "
                f"as {name}.clone() or {name}.abs() in place of {name}.abs_()"
            )


def check_loss_fn(loss_fn: object, model: str) -> None:
    """Raise a SparsityError unless ``loss_fn`` is a function, or None; ``model`` is what its first argument is called."""
    if loss_fn is not None and not callable(loss_fn):
        raise SparsityError(
            f"loss_fn={loss_fn!r} is not a function: write one such as loss_fn=lambda {model}, batch: "
            f"{model}(batch[0]).square().mean(), which returns a tensor of one number"
        )
    if callable(loss_fn):
        check_takes("loss_fn", loss_fn, model, "batch")


def loss(function: object, found: Any) -> Tensor:
    """Return a loss, if it is one number that has a gradient where gradients are on, or raise a SparsityError.

    Example:
        >>> loss(len, torch.tensor(2.0, requires_grad=True))
        tensor(2., requires_grad=True)
    """
    who, write = f"loss_fn={called(function)}", "return the loss, a tensor of one number, such as loss.mean()"
    if not isinstance(found, Tensor):
        raise SparsityError(f"{who} returned {_short(found)}: {write}")
    if found.numel() != 1 or not found.is_floating_point():
        raise SparsityError(f"{who} returned a {found.dtype} tensor of shape {tuple(found.shape)}: {write}")
    if torch.is_grad_enabled() and not found.requires_grad:
        raise SparsityError(
            f"{who} returned a loss without a gradient: compute it from the module's output, without detach(), item() or "
            "torch.no_grad()"
        )
    if not found.isfinite().all():
        raise SparsityError(
            f"{who} returned {found.item():g}, and no score can be computed from that: look at the batch and the first "
            "weights, or return a finite loss"
        )
    return found


def _whole(count: Any) -> int | None:
    """An integer, also a whole float and numpy's and torch's numbers, or None."""
    try:
        number = float(count)
        return int(count) if number.is_integer() and not isinstance(count, bool | str | bytes) else None
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def _short(value: object) -> str:
    """A value as text that fits into a message."""
    text = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) and value.numel() > 1 else repr(value)
    return text if len(text) <= 60 else f"a {type(value).__name__}"
