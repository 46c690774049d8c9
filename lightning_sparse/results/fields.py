"""Whether what a file says is of the kind that a dataclass wants, field by field."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import cache
from math import isfinite
from typing import Any


def wrong_kind(what: Any, of: type, *, finite: tuple[str, ...] = ()) -> str:
    """Say which field of a dataclass is missing in ``what``, or is of another kind; empty if it is all there.

    Fields that the dataclass does not have are those of a later version, and no fault.

    Args:
        what: read from a JSON file.
        of: the dataclass. Its fields are strings, numbers, None beside numbers, and tuples of strings.
        finite: fields whose numbers must be finite.

    Example:
        >>> from lightning_sparse.results.records import Record
        >>> wrong_kind({"metric": "gini", "value": 0.5, "n": 3}, Record), wrong_kind([], Record)
        ('', 'list, and no object')
        >>> wrong_kind({"metric": "gini", "value": "x", "n": 3}, Record), wrong_kind({"metric": "gini"}, Record)
        ("'value' is 'x'", "without 'value'")
    """
    if not isinstance(what, dict):
        return f"{type(what).__name__}, and no object"
    for name, (kind, needed) in _kinds(of).items():
        if name not in what:
            if needed:
                return f"without {name!r}"
        elif not _is(what[name], kind) or (name in finite and what[name] is not None and not isfinite(what[name])):
            return f"{name!r} is {what[name]!r:.60}"
    return ""


@cache
def _kinds(of: type) -> dict[str, tuple[str, bool]]:
    return {
        field.name: (str(field.type), field.default is MISSING and field.default_factory is MISSING)
        for field in fields(of)
    }


def _is(value: Any, kind: str) -> bool:
    if kind.endswith(" | None"):
        return value is None or _is(value, kind.removesuffix(" | None"))
    if kind == "str":
        return isinstance(value, str)
    if kind.startswith("tuple"):
        return isinstance(value, list) and all(isinstance(part, str) for part in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return kind not in ("int", "float")  # a path, which no file holds
    # What a table holds: an int of 64 bits, or what becomes a float.
    return (isinstance(value, float) and kind == "float") or (
        isinstance(value, int) and abs(value) < 2 ** (63 if kind == "int" else 1000)
    )
