"""The two threat models: all images within eps of the clean one in the L-inf or in the L2 norm, and in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError, as_number, check_choice

NORMS = ("Linf", "L2")
"""Norms in which a perturbation is measured: the largest change of a pixel, or the square root of the summed squares."""


def check_norm(norm: str) -> str:
    """Return ``norm`` if it is one of ``NORMS``, else raise."""
    return check_choice("norm", norm, NORMS)


def check_eps(name: str, eps: object, norm: str = "Linf") -> float:
    """Return ``eps`` as a float if it can be a radius: in (0, 1] for L-inf, positive and finite for L2; else raise.

    Configurations have no fractions but as text, so ``"8/255"`` is taken too.

    Example:
        >>> check_eps("eps", "8/255") == check_eps("eps", 8 / 255)
        True
        >>> check_eps("eps", 8)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: eps=8 is not in (0, 1], the units of pixels: write 8 / 255
    """
    check_norm(norm)
    eps = as_number(eps)
    number = isinstance(eps, int | float) and not isinstance(eps, bool)
    if norm == "L2":
        if not number or not 0 < eps < math.inf:  # type: ignore[operator]
            raise SparsityError(f"{name}={eps!r} is not a positive number, the L2 length of a change: write 0.5")
    elif not number or not 0 < eps <= 1:  # type: ignore[operator]
        advice = f"{eps:g} / 255" if number and 1 < eps <= 255 else "8 / 255"  # type: ignore[operator]
        raise SparsityError(f"{name}={eps!r} is not in (0, 1], the units of pixels: write {advice}")
    return float(eps)  # type: ignore[arg-type]


def whole_image(images: Tensor, norm: str) -> float:
    """Give the radius at which a ball around any image holds every image: 1 for L-inf, the square root of C*H*W for L2."""
    return 1.0 if norm == "Linf" else math.sqrt(images[0].numel())


def check_reach(eps: float, images: Tensor, norm: str) -> None:
    """Refuse a radius larger than the distance between any two images."""
    most = whole_image(images, norm)
    if eps > most:
        raise SparsityError(
            f"eps={eps:g} is more than {most:g}, and no two images of this size with pixels in [0, 1] are further apart in "
            f"{norm}: write a smaller eps"
        )


def distance(a: Tensor, b: Tensor, norm: str) -> Tensor:
    """Compute the distance of each pair of images: (n,), in double precision."""
    change = (a.double() - b.double()).flatten(1)
    return change.abs().amax(dim=1) if norm == "Linf" else change.square().sum(dim=1).sqrt()


def tolerance(eps: float, norm: str) -> float:
    """Give the excess over eps that rounding to float32 can explain; it is larger in L2, which sums many rounded numbers."""
    return 1e-6 if norm == "Linf" else 1e-6 + 1e-5 * eps


def random_start(images: Tensor, eps: float, norm: str, power: float = 1.0) -> Tensor:
    """Draw a point of each image's ball as torchattacks does: uniform in L-inf; in L2 a uniform direction and radius.

    The L2 radius, as a share of eps, is raised to ``power``.
    """
    if norm == "Linf":
        return (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    direction = torch.empty_like(images).normal_()
    radius = torch.empty_like(images[:, :1, :1, :1]).uniform_(0, 1) ** power
    return (images + direction * (radius / _length(direction) * eps)).clamp(0, 1)


def uniform_point(images: Tensor, eps: float, norm: str) -> Tensor:
    """Draw a point of each image's ball uniformly by volume; in L2 nearly all of the volume is close to the surface."""
    return random_start(images, eps, norm, power=1 / images[0].numel())


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Give the steepest step of length 1: the sign of the gradient, or the gradient divided by its L2 norm.

    A gradient of zero gives a step of zero; any other gives a step of length 1, however small it is.
    """
    if norm == "Linf":
        return gradient.sign()
    # It is divided by its largest entry first, because the squares of a small gradient would be zero in float32.
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1.0)
    return scaled / _length(scaled).clamp_min(1.0)


def project(point: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """Move each point to the nearest one of its image's ball, then clip to [0, 1]."""
    change = point - clean
    if norm == "Linf":
        return (clean + change.clamp(-eps, eps)).clamp(0, 1)
    return (clean + shortened(change, eps)).clamp(0, 1)


def shortened(change: Tensor, most: float | Tensor) -> Tensor:
    """Scale each change (n, C, H, W) to an L2 length of ``most`` where it is longer."""
    return change * (most / _length(change)).clamp(max=1)


def _length(change: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return length
