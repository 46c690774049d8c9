"""What eps may be in each norm, of images and of texts, and whether the norm is one of what is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from lightning_sparse.anatomy.tokens import are_tokens
from lightning_sparse.errors import SparsityError, as_list, as_number, check_choice
from lightning_sparse.measure.advice import with_setting
from lightning_sparse.measure.robustness.balls import check_eps, check_reach
from lightning_sparse.results.norms import OF_IMAGES, OF_TEXTS


def check_radii(eps: Sequence[float], norm: str = "Linf", name: str = "eps") -> list[float]:
    """Return the radii ascending and without duplicates, or raise a SparsityError if one cannot be a radius."""
    check_choice("norm", norm, [*OF_IMAGES, *OF_TEXTS])
    listed = as_list(eps)
    if not listed:
        example = "[2 / 255, 8 / 255]" if norm == "Linf" else "[0.25, 0.5]"
        raise SparsityError(f"{name}={eps!r} is not a list of radii: write {name}={example}")
    return sorted({check_radius(name, radius, norm) for radius in listed})


def check_radius(name: str, eps: object, norm: str) -> float:
    """As :func:`~lightning_sparse.measure.robustness.balls.check_eps`, also in the norms of texts.

    Example:
        >>> check_radius("eps", 3, "synonyms")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: eps=3 is not in (0, 1], the share of the text's words replaced: write 0.25
    """
    if norm not in OF_TEXTS:
        return check_eps(name, eps, norm)
    eps = as_number(eps)
    number = isinstance(eps, int | float) and not isinstance(eps, bool) and 0 < eps < math.inf
    if not number or (norm == "synonyms" and eps > 1):  # type: ignore[operator]
        wanted = "in (0, 1]" if norm == "synonyms" else "a positive number"
        raise SparsityError(f"{name}={eps!r} is not {wanted}, the {OF_TEXTS[norm]}: write 0.25")
    return float(eps)  # type: ignore[arg-type]


def check_inputs(inputs: Tensor, norm: str, eps: float) -> None:
    """Refuse images in a norm of texts, texts in one of images, and an eps beyond the distance of any two images.

    Example:
        >>> import torch
        >>> check_inputs(torch.tensor([[5, 2]]), "Linf", 0.1)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: norm='Linf' is of images, and data holds tokens of shape (1, 2): write norm=...
    """
    text = are_tokens(inputs)
    if text != (norm in OF_TEXTS):
        this, other = ("images", "tokens") if text else ("texts", "images")
        instead = "'embedding'" if norm == "L2" else "'synonyms'" if text else "'Linf'"
        write = with_setting("attack", "norm", instead) or f"norm={'embedding' if text else 'Linf'!r}"
        raise SparsityError(
            f"norm={norm!r} is of {this}, and data holds {other} of shape {tuple(inputs.shape)}: write {write}, with eps to "
            "fit"
        )
    if not text:
        check_reach(eps, inputs, norm)
