"""Kinds of values that a setting may have: a check takes a setting's name and value, and raises a SparsityError."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

from lightning_sparse.errors import SparsityError, check_choice, check_choices, check_count, check_seed

Check = Callable[[str, Any], object]


def seed(name: str, value: Any) -> None:
    """A seed; null is 0."""
    check_seed(value, name)


def anything(name: str, value: Any) -> None:
    """Whatever it is: it is checked together with another setting."""


def or_null(check: Check) -> Check:
    """Also take null."""
    return lambda name, value: None if value is None else check(name, value)


def count(least: int = 1, *, write: int | None = None) -> Check:
    """An integer of at least ``least``."""
    return lambda name, value: check_count(name, value, least, write=write)


def choice(*allowed: str) -> Check:
    """One of these names."""
    return lambda name, value: check_choice(name, value, allowed)


def names(usual: Collection[str], all_of: str, *, empty: bool = False) -> Check:
    """A list of names from the collection at the dotted path ``all_of``, imported only if one is not among the ``usual``.

    Example:
        >>> names(["pgd"], "lightning_sparse.measure.ATTACKS")("attack.attacks", ["pgd"])
        >>> names(["pgd"], "lightning_sparse.measure.ATTACKS")("attack.attacks", "square")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: attack.attacks='square' is not a list of names: write attack.attacks=[square]
    """

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            example = value if isinstance(value, str) and value else next(iter(usual))
            raise SparsityError(f"{name}={value!r} is not a list of names: write {name}=[{example}]")
        if set(value) <= set(usual) and (value or empty):
            return
        module, _, constant = all_of.rpartition(".")
        check_choices(name, value, getattr(import_module(module), constant))

    return check


def numbers(*, positive: bool = False) -> Check:
    """A list of finite numbers, not empty.

    Example:
        >>> numbers(positive=True)("data.std", [0.0])
        Traceback (most recent call last):
        lightning_sparse.SparsityError: data.std=[0.0] is not a list of positive numbers: write data.std=[0.5]
    """

    def check(name: str, value: Any) -> None:
        fits = isinstance(value, list) and len(value) > 0
        if not fits or not all(_is_number(item) and (item > 0 or not positive) for item in value):
            what = "positive numbers" if positive else "finite numbers"
            raise SparsityError(f"{name}={value!r} is not a list of {what}: write {name}=[0.5]")

    return check


def counts(length: int | None, example: str) -> Check:
    """A list of integers of at least 1; so many, if ``length`` is given."""

    def check(name: str, value: Any) -> None:
        fits = isinstance(value, list) and len(value) == (len(value) or 1 if length is None else length)
        if not fits or not all(isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in value):
            many = "" if length is None else f"{length} "
            raise SparsityError(
                f"{name}={value!r} is not a list of {many}integers of at least 1: write {name}={example}"
            )

    return check


def text(example: str) -> Check:
    """Text, not empty, or a number, which is written as text."""

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
            raise SparsityError(f"{name}={value!r} is not a name: write {name}={example}")

    return check


def texts(example: str) -> Check:
    """A list of texts."""

    def check(name: str, value: Any) -> None:
        if not isinstance(value, list):
            raise SparsityError(f"{name}={value!r} is not a list: write {name}=[{value or example}]")
        for item in value:
            text(example)(name, item)

    return check


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
