"""The exception of this library, and checks that raise it."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from numbers import Integral
from typing import Any


class SparsityError(ValueError):
    """Something asked for cannot be done.

    The message says which argument is wrong, what was given, what is allowed and what to write instead. It is raised before
    the training wherever the mistake can be seen that early.
    """

    __module__ = "lightning_sparse"  # so that a traceback shows its public name


class OutOfReachError(SparsityError):
    """A size in bits that a technique cannot reach: no mistake of a sweep over sizes, but one of its findings."""


def check_share(name: str, value: object, *, one_allowed: bool = True) -> float:
    """Return ``value`` as a float if it is a number in [0, 1], or [0, 1) without ``one_allowed``, else raise a SparsityError.

    Example:
        >>> check_share("final_sparsity", 0.9)
        0.9
        >>> check_share("final_sparsity", 90)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: final_sparsity=90 is not a share in [0, 1]: write 0.9 for 90 percent
    """
    top = "1]" if one_allowed else "1)"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparsityError(f"{name}={value!r} is not a number: write a share in [0, {top}, such as 0.9")
    if not 0.0 <= value <= 1.0 or (value == 1.0 and not one_allowed):
        hint = f"write {value / 100:g} for {value:g} percent" if 1 < value < 100 else "write a number such as 0.9"
        raise SparsityError(f"{name}={value!r} is not a share in [0, {top}: {hint}")
    return float(value)


def check_count(
    name: str, value: object, least: int | None = 1, *, most: int | None = None, write: object = None
) -> int:
    """Return ``value`` if it is an integer in [least, most], else raise a SparsityError; True and 2.0 are not integers.

    None for ``least`` or ``most`` sets no limit. The message says to write ``write``, by default the limit
    that was passed, or ``least``.

    Example:
        >>> check_count("steps", 20)
        20
        >>> check_count("steps", 0, write=20)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: steps=0 is not an integer of at least 1: write 20
    """
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        limits = f" in [{least}, {most}]" if most is not None else "" if least is None else f" of at least {least}"
        if write is None and not isinstance(value, int) and isinstance(value, Integral) and low <= int(value) <= high:
            write = int(value)  # of numpy, which a checkpoint or a JSON file could not hold
        elif write is None:
            write = most if isinstance(value, int | float) and value > high else least
        raise SparsityError(f"{name}={value!r} is not an integer{limits}: write {write}")
    return value


def check_seed(value: object, name: str = "seed") -> int:
    """Return ``value`` if it is an integer from 0 to 2**32 - 1, and 0 for None, else raise a SparsityError.

    None is how many projects' configurations say "no seed"; a random one would make no run repeatable.

    Example:
        >>> check_seed(3), check_seed(None)
        (3, 0)
        >>> check_seed(-1)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: seed=-1 is not an integer in [0, 4294967295]: write 0
    """
    return 0 if value is None else check_count(name, value, 0, most=2**32 - 1)


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` if it is True or False, else raise a SparsityError: ``"no"`` and ``None`` are neither.

    Example:
        >>> check_flag("controls", "no")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: controls='no' is neither true nor false: write controls=False or controls=True
    """
    if not isinstance(value, bool):
        raise SparsityError(f"{name}={value!r} is neither true nor false: write {name}=False or {name}=True")
    return value


def as_number(value: Any) -> Any:
    """The number that a fraction such as ``"8/255"`` writes, as configurations have it; anything else as it is.

    Example:
        >>> as_number("8/255") == as_number("8 / 255") == 8 / 255, as_number("eight"), as_number("1/0")
        (True, 'eight', '1/0')
    """
    written = re.fullmatch(r"\s*(\d+\.?\d*)\s*/\s*(\d+\.?\d*)\s*", value) if isinstance(value, str) else None
    return float(written[1]) / float(written[2]) if written and float(written[2]) else value


def check_choice(name: str, value: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``allowed``, else raise a SparsityError that lists them and suggests one.

    Example:
        >>> check_choice("allocation", "globl", ["global", "uniform"])
        Traceback (most recent call last):
        lightning_sparse.SparsityError: allocation='globl' does not exist: did you mean 'global'? (allowed: global, uniform)
    """
    options = sorted(allowed)
    if not isinstance(value, str) or value not in options:
        close = get_close_matches(str(value), options, n=1)
        guess = f"did you mean {close[0]!r}?" if close else "choose one of those that exist"
        raise SparsityError(f"{name}={value!r} does not exist: {guess} (allowed: {', '.join(options)})")
    return value


def check_choices(name: str, values: Sequence[str], allowed: Iterable[str]) -> list[str]:
    """Return the names in a list, each once, if it is not empty and all are in ``allowed``, else raise a SparsityError.

    Example:
        >>> check_choices("attacks", "pgd", ["pgd", "square"])
        Traceback (most recent call last):
        lightning_sparse.SparsityError: attacks='pgd' is not a list of names: write attacks=['pgd']
    """
    options, listed = list(allowed), as_list(values)
    if not listed:
        example = values if isinstance(values, str) and values in options else options[0]
        raise SparsityError(f"{name}={values!r} is not a list of names: write {name}=[{example!r}]")
    return list(dict.fromkeys(check_choice(name, value, options) for value in listed))


def as_list(values: object) -> list[Any] | None:
    """Return what a list, a tuple, an array of one dimension or the like holds; None for text, a mapping and a single thing.

    Example:
        >>> as_list((1, 2)), as_list("ab")
        ([1, 2], None)
    """
    if isinstance(values, Collection) and not isinstance(values, str | bytes | Mapping):
        with suppress(TypeError):  # an array of no dimension
            return list(values)
    return None


def in_short(error: Exception, most: int = 300) -> str:
    """The words of an error, on one line.

    Example:
        >>> in_short(ValueError("too    long"))
        'too long'
    """
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= most else f"{words[:most]}..."
