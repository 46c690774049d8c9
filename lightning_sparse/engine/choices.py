"""Find what a choice in a recipe stands for, and name it for checkpoints."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.engine.function_arguments import check_takes
from lightning_sparse.errors import SparsityError, check_choice

# Attributes of functions that a name leaves out: the function's path already says what it reads.
_MARKS = ("needs_gradient", "of_network")
_OURS = re.compile(r"(?<![\w.])lightning_sparse(?:\.\w+)*\.(\w+?)_?(?!\w)")
# What makes a repr useless as a name: an address, a shortened array, a set, whose order varies.
_UNSURE = re.compile(r" at 0x|\.\.\.|\{[^{}:]+\}")
_LONGEST = 80


def find(argument: str, choice: object, named: Mapping[str, Any], takes: Sequence[str] = ()) -> Any:
    """Return what a choice stands for: the entry of that name in ``named``, or the choice itself if it can be called.

    A function is called with arguments of the names in ``takes``; if that is one, a class of such functions will do.

    Example:
        >>> find("grow", "largest", {"largest": max}), find("grow", min, {})
        (<built-in function max>, <built-in function min>)
    """
    if isinstance(choice, str):
        return named[check_choice(argument, choice, named)]
    if not callable(choice):
        raise SparsityError(f"{argument}={choice!r} is neither a name ({', '.join(sorted(named))}) nor a function")
    if takes:
        check_takes(argument, choice, *takes, made=len(takes) == 1)
    return choice


def name_of(argument: str, choice: object) -> str:
    """Name a choice for a checkpoint, so that a run resumed with another one is refused.

    A string is its own name. The name of a function is its path and what it holds: closed-over values, defaults, and its
    code if it is a lambda. The name of an object is its class and attributes, or its ``repr`` if its class defines one. A
    module that is held is named by its structure, not by its weights, which may be those in training. What cannot be told
    apart in this way, such as a lock, raises a SparsityError.

    Example:
        >>> def power(exponent):
        ...     return lambda layer: layer.weight.abs() ** exponent
        >>> name_of("drop", power(1)) == name_of("drop", power(1)), name_of("drop", power(1)) == name_of("drop", power(2))
        (True, False)
    """
    if isinstance(choice, str):
        return choice
    try:
        return without_our_paths(_text(choice, ()))
    except Exception as error:
        raise SparsityError(
            f"{argument} is a {type(choice).__qualname__} that holds what cannot be compared with a resumed run's ({error}): "
            "make it an object whose class has a __repr__ that says its settings"
        ) from error


def without_our_paths(name: str) -> str:
    """Remove paths within this library from a name, because files may move between versions.

    Example:
        >>> without_our_paths("lightning_sparse.criteria.taylor"), without_our_paths("mine.taylor(power=2)")
        ('taylor', 'mine.taylor(power=2)')
    """
    return _OURS.sub(r"\1", name)


Inner = Callable[[Any], str]


def _text(value: Any, outer: tuple[Any, ...]) -> str:
    """A value as text that is the same in every process."""
    if any(value is one for one in outer):
        return "..."  # it holds itself
    inner = partial(_text, outer=(*outer, value))
    if type(value) in _CONTAINERS:
        return _CONTAINERS[type(value)](value, inner)
    is_function = hasattr(value, "__qualname__") and hasattr(value, "__module__")
    otherwise = _function if is_function else _object
    return next((text for kind, text in _KINDS.items() if isinstance(value, kind)), otherwise)(value, inner)


def _bytes(tensor: Tensor) -> bytes:
    content: np.ndarray[Any, Any] = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return content.tobytes()


def _code(code: CodeType, inner: Inner) -> str:
    consts = [inner(const) for const in code.co_consts if not isinstance(const, CodeType)]
    nested = "".join(inner(const) for const in code.co_consts if isinstance(const, CodeType))
    return f"({code.co_code!r}, {code.co_names!r}, [{', '.join(consts)}]){nested}"


# Exactly these types: a subclass may hold more.
_CONTAINERS: dict[type, Callable[[Any, Inner], str]] = {
    list: lambda value, inner: f"[{', '.join(map(inner, value))}]",
    tuple: lambda value, inner: f"({', '.join(map(inner, value))}{',' if len(value) == 1 else ''})",
    set: lambda value, inner: f"{{{', '.join(sorted(map(inner, value)))}}}",
    frozenset: lambda value, inner: f"frozenset({{{', '.join(sorted(map(inner, value)))}}})",
    dict: lambda value, inner: f"{{{', '.join(f'{inner(name)}: {inner(item)}' for name, item in value.items())}}}",
}
_KINDS: dict[type, Callable[[Any, Inner], str]] = {
    Tensor: lambda value, inner: f"tensor({tuple(value.shape)}, {value.dtype}, {crc32(_bytes(value)):08x})",
    np.ndarray: lambda value, inner: f"array({value.shape}, {value.dtype}, {crc32(value.tobytes()):08x})",
    nn.Module: lambda value, inner: repr(value),
    type: lambda value, inner: f"{value.__module__}.{value.__qualname__}",
    ModuleType: lambda value, inner: str(value.__name__),
    CodeType: _code,
    partial: lambda value, inner: f"{inner(value.func)}{inner(value.args)}{inner(value.keywords)}",
    MethodType: lambda value, inner: f"{inner(value.__self__)}.{value.__name__}",
}


def _function(function: Any, inner: Inner) -> str:
    path = f"{function.__module__}.{function.__qualname__}"
    held = {name: item for name, item in getattr(function, "__dict__", {}).items() if name not in _MARKS}
    if isinstance(function, FunctionType):
        code, defaults = function.__code__, function.__defaults__ or ()
        if function.__name__ == "<lambda>":  # it has no name of its own, so its code tells it apart
            path += f":{crc32(inner(code).encode()):08x}"
        held |= dict(zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False))
        held |= function.__kwdefaults__ or {}
        held |= dict(zip(code.co_freevars, map(_content, function.__closure__ or ()), strict=True))
    return path + _held(held, inner)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _object(value: Any, inner: Inner) -> str:
    kind, said = type(value), repr(value)
    if _UNSURE.search(said):
        said = ""
    if said and "__repr__" in vars(kind):
        return said
    # Taken apart as pickle does it, which refuses what Python cannot look into (a lock, a file).
    _, arguments, *rest = value.__reduce_ex__(4)
    state, listed, keyed = (*rest, None, None, None)[:3]
    held = dict(state) if isinstance(state, dict) else {} if state is None else {"state": state}
    contents = [*(one for one in arguments if one is not kind), *(listed or ()), *(keyed or ())]
    held |= {"contents": contents} if contents else {}
    return f"{kind.__module__}.{kind.__qualname__}{said}{_held(held, inner)}"


def _held(held: Mapping[str, Any], inner: Inner) -> str:
    """What is held, in parentheses; if that is long, its checksum."""
    text = ", ".join(f"{name}={inner(item)}" for name, item in held.items())
    if len(text) > _LONGEST:
        text = f"{crc32(text.encode()):08x}"
    return f"({text})" if text else ""
