"""Which methods are not sparse training: dense and the controls, also with a sweep's name behind theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

OF_BITS = "bits, share of dense float32"  # what levels say where all are of bits
CONTROL_NAMES = ("static", "small_dense")  # a random mask; a dense network with as many weights


def base(method: str) -> str:
    """The method's own name, without the sweep's name that a comparison of several sweeps adds.

    Example:
        >>> base("gradual_pruning (quick)"), base("dense")
        ('gradual_pruning', 'dense')
    """
    return method.partition(" (")[0]


def level_name(method: str, sparsity_asked: float, compressed: bool = False) -> str:
    """Name the networks of one line; of ``compressed`` ones by their bits.

    Example:
        >>> level_name("gradual_pruning", 0.9), level_name("dense", 0.0), level_name("share", 0.95, compressed=True)
        ('gradual_pruning 0.9', 'dense', 'share at 5 %')
    """
    if is_dense(method):
        return method
    return f"{method} at {bits_text(sparsity_asked)}" if compressed else f"{method} {sparsity_asked:g}"


def level_words(sparsity_asked: float, compressed: bool = False) -> str:
    """Say what a level is one of.

    Example:
        >>> level_words(0.95), level_words(0.95, compressed=True)
        ('sparsity 0.95', '5 % of the bits')
    """
    return f"{bits_text(sparsity_asked)} of the bits" if compressed else f"sparsity {sparsity_asked:g}"


def bits_text(level: float) -> str:
    """The bits of a level of compression, in percent of the dense network in float32.

    Example:
        >>> bits_text(0.9875), bits_text(0.0)
        ('1.25 %', '100 %')
    """
    return f"{100 * (1 - level):.3g} %"


def is_dense(method: str) -> bool:
    """Whether these are the dense networks of a sweep."""
    return base(method) == "dense"


def is_control(method: str) -> bool:
    """Whether these are networks that methods are compared with besides dense ones."""
    return base(method) in CONTROL_NAMES


def dense_of(method: str, lines: pd.DataFrame) -> str:
    """The dense networks of a method's own sweep, which it is compared with.

    ``lines`` are jobs or records; if they come from several sweeps, each ``run`` begins with its sweep's name and a slash.
    """
    sweeps = lines["run"].str.rpartition("/")[0]
    own = set(lines.loc[sweeps.isin(set(sweeps[lines["method"] == method])), "method"])
    return next((name for name in sorted(own) if is_dense(name)), "dense")
