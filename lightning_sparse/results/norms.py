"""The norms in which a perturbation is measured, and the unit of its size, eps, in words."""

from __future__ import annotations

from collections.abc import Iterable

OF_IMAGES = {"Linf": "pixels in [0, 1]", "L2": "pixels in [0, 1]"}
OF_TEXTS = {
    "embedding": "share of the text's length in embedding space",
    "synonyms": "share of the text's words replaced",
}


def eps_in(norms: Iterable[str]) -> str:
    """Say what eps is measured in.

    Example:
        >>> eps_in(["Linf", "L2"]), eps_in(["synonyms"])
        ('pixels in [0, 1]', "share of the text's words replaced")
    """
    units = OF_IMAGES | OF_TEXTS
    return " or ".join(dict.fromkeys(units[norm] for norm in sorted(norms) if norm in units))
