"""Check a value by the annotation of the argument that gets it, where that names plain kinds alone."""

from __future__ import annotations

import math
import re
from typing import Any

from lightning_sparse.app.signatures import UNKNOWN, Argument
from lightning_sparse.errors import SparsityError

_WORDS = {
    "float": ("a number", 0.9),
    "int": ("an integer", 1),
    "str": ("text", "text"),
    "bool": ("true or false", False),
}
_PLAIN = {*_WORDS, "None", "Optional", "Union", "Tensor"}


def check_annotated(name: str, value: Any, argument: Argument) -> None:
    """Raise a SparsityError on text or a list where a number is wanted, and the like; aliases and classes are left alone.

    Example:
        >>> check_annotated("model.optimizer.momentum", "much", Argument("float", 0))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: model.optimizer.momentum='much' is not a number: write model.optimizer.momentum=0
    """
    kinds = set(re.findall(r"\w+", argument.annotation))
    words = [said for kind, said in _WORDS.items() if kind in kinds]
    is_built = isinstance(value, dict) and "_target_" in value
    if not words or not kinds <= _PLAIN or value is None or is_built or _fits(value, kinds):
        return
    what, example = words[0]
    example = example if argument.default in (UNKNOWN, None) else argument.default
    shown = str(example).lower() if isinstance(example, bool) else example
    raise SparsityError(f"{name}={value!r} is not {what}: write {name}={shown}")


def _fits(value: Any, kinds: set[str]) -> bool:
    numbers = kinds & {"int", "float"}
    if isinstance(value, str):
        return "str" in kinds
    if isinstance(value, bool):
        return "bool" in kinds or not numbers
    if isinstance(value, float):
        return not math.isnan(value) and (numbers != {"int"} or value.is_integer())
    return not isinstance(value, list | dict)
