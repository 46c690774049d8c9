"""Names of parameters as shell-style patterns, and back."""

from __future__ import annotations

import glob
import heapq
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase, translate

from lightning_sparse.errors import SparsityError, as_list


def matching(argument: str, patterns: Sequence[str], names: Mapping[str, str]) -> list[str]:
    """Return which parameters some patterns match.

    Args:
        argument: what to call the patterns in an error.
        patterns: shell-style patterns, each of which has to match a name.
        names: every name of a parameter, and the name to return for it: tied parameters have several.

    Raises:
        SparsityError: if a pattern matches nothing.

    Example:
        >>> matching("include", ["head.*"], {"embedding.weight": "embedding.weight", "head.weight": "embedding.weight"})
        ['embedding.weight']
    """
    matched: set[str] = set()
    for pattern in check_patterns(argument, patterns) or ():
        hits = [own for name, own in names.items() if fnmatchcase(name, pattern)]
        if not hits:
            close = get_close_matches(pattern, list(names), n=1, cutoff=0.3)
            guess = f"did you mean {close[0]!r}? " if close else ""
            raise SparsityError(
                f"{argument} pattern {pattern!r} matches no parameter: {guess}(parameters: {some(names.values())})"
            )
        matched.update(hits)
    return [name for name in dict.fromkeys(names.values()) if name in matched]


def check_patterns(argument: str, patterns: object) -> tuple[str, ...] | None:
    """Return a list of strings as a tuple, and None as it is, or raise a SparsityError.

    Example:
        >>> check_patterns("include", ["head.*"])
        ('head.*',)
        >>> check_patterns("include", "head.*")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: include='head.*' is not a list: write include=['head.*']
    """
    if patterns is None:
        return None
    found = as_list(tuple(patterns) if isinstance(patterns, Iterator) else patterns)
    if found is None or not all(isinstance(pattern, str) for pattern in found):
        example = patterns if isinstance(patterns, str) and patterns else "pattern"
        raise SparsityError(f"{argument}={patterns!r} is not a list: write {argument}=[{example!r}]")
    return tuple(found)


def some(names: Iterable[str], most: int = 12) -> str:
    """The first names, each once, and how many more there are."""
    once = list(dict.fromkeys(names))
    return ", ".join(once[:most]) + (f", and {len(once) - most} more" if len(once) > most else "")


def as_patterns(names: Collection[str], avoid: Collection[str] = ()) -> list[str]:
    """Return a few shell-style patterns that match all of ``names`` and none of ``avoid``.

    The pattern that matches most of what is left comes first; of equal ones, that with the fewest stars, then the shortest.

    Example:
        >>> as_patterns(["h.0.fc.weight", "h.1.fc.weight", "head.weight"], avoid=["h.0.norm.weight", "h.0.fc.bias"])
        ['*.fc.weight', 'head.weight']
        >>> as_patterns(["ema.0.weight", "ema.2.weight"], avoid=["net.0.weight", "net.2.weight"])
        ['ema.*']
    """
    matched: dict[str, set[str]] = {}
    for name in names:
        for pattern in _candidates(name):
            matched.setdefault(pattern, set()).add(name)
    whole, left, found = {glob.escape(name) for name in names}, set(names), []

    def rank(pattern: str) -> tuple[int, bool, int, int, str]:
        new = len(matched[pattern] & left)
        single = new == 1 and pattern not in whole  # a single parameter goes by its name
        return -new, single, pattern.count("*"), len(pattern), pattern

    queue = sorted(map(rank, matched))
    while left:
        *before, pattern = heapq.heappop(queue)
        now = rank(pattern)
        if now[0] and now != (*before, pattern):  # some of what it matches has been taken since
            heapq.heappush(queue, now)
        elif now[0] and (pattern in whole or not any(map(re.compile(translate(pattern)).match, avoid))):
            found.append(pattern)
            left -= matched[pattern]
    return found


def _candidates(name: str) -> Iterator[str]:
    """Patterns that match a name, from the name itself to all that begins, or ends, as it does."""
    parts = glob.escape(name).split(".")
    starred = [re.sub(r"\d+$", "*", part) for part in parts]  # layer numbers
    yield ".".join(parts)
    yield ".".join(starred)
    for at in range(1, len(parts)):
        yield ".".join([*parts[:at], "*"])
        yield ".".join([*starred[:at], "*"])
        yield ".".join(["*", *starred[at:]])
