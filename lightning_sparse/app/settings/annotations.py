"""Check a value by the annotation of the argument that gets it, where that names plain kinds alone."""

from __future__ import annotations

import math
import re
from typing import Any

from lightning_sparse.app.signatures import UNKNOWN, Argument
from lightning_sparse.errors import SparsityError

_PLAIN = {"int", "float", "bool", "str", "None", "Optional", "Union", "Tensor"}


def check_annotated(name: str, value: Any, argument: Argument) -> None:
    """Raise a SparsityError on text or a list where a number is wanted, and the like; aliases and classes are left alone.

    Example:
        >>> check_annotated("model.optimizer.momentum", "much", Argument("float", 0))
        Traceback (most recent call last):
        lightning_sparse.SparsityError: model.optimizer.momentum='much' is not a number: write model.optimizer.momentum=0
    """
    kinds = set(re.findall(r"\w+", argument.annotation))
    if not kinds or not kinds <= _PLAIN or value is None or _is_built(value):
        return
    numbers, isnt = kinds & {"int", "float"}, None
    if isinstance(value, list | dict) or (isinstance(value, str) and "str" not in kinds):
        isnt = "a number" if "float" in numbers else "an integer" if numbers else "text" if "str" in kinds else None
        isnt = isnt or "true or false"
    elif isinstance(value, bool) and "bool" not in kinds and numbers:
        isnt = "a number" if "float" in numbers else "an integer"
    elif isinstance(value, float) and (math.isnan(value) or (numbers == {"int"} and not value.is_integer())):
        isnt = "a number" if math.isnan(value) else "an integer"
    if isnt:
        default = argument.default if argument.default is not UNKNOWN else None
        example = {"a number": 0.9, "an integer": 1, "text": "text", "true or false": False} | (
            {} if default is None else {isnt: default}
        )
        shown = str(example[isnt]).lower() if isinstance(example[isnt], bool) else example[isnt]
        raise SparsityError(f"{name}={value!r} is not {isnt}: write {name}={shown}")


def _is_built(value: Any) -> bool:
    return isinstance(value, dict) and "_target_" in value
