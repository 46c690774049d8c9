"""The two threat models: all images within eps of the clean one in the L-inf or in the L2 norm, and in [0, 1]."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError, check_choice

NORMS = ("Linf", "L2")
"""Norms in which a perturbation is measured: the largest change of a pixel, or the square root of the summed squares."""


def check_norm(norm: str) -> str:
    """Return ``norm`` if it is one of ``NORMS``, else raise.

    Example:
        >>> check_norm("L2")
        'L2'
    """
    return check_choice("norm", norm, NORMS)


def check_eps(name: str, eps: object, norm: str = "Linf") -> float:
    """Return ``eps`` as a float if it can be a radius in this norm, else raise.

    Args:
        name: the argument's name, for the message.
        eps: what the user gave; in (0, 1] for L-inf, positive and finite for L2.
        norm: ``"Linf"`` or ``"L2"``.

    Raises:
        SparsityError: if it is no such number.

    Example:
        >>> check_eps("eps", 8)
        Traceback (most recent call last):
        lightning_sparse.SparsityError: eps=8 is not in (0, 1], the units of pixels: write 8 / 255
    """
    number = isinstance(eps, int | float) and not isinstance(eps, bool)
    if norm == "L2":
        if not number or not 0 < eps < math.inf:  # type: ignore[operator]
            raise SparsityError(f"{name}={eps!r} is not a positive number, the L2 length of a change: write 0.5")
    elif not number or not 0 < eps <= 1:  # type: ignore[operator]
        advice = f"{eps:g} / 255" if number and 1 < eps <= 255 else "8 / 255"  # type: ignore[operator]
        raise SparsityError(f"{name}={eps!r} is not in (0, 1], the units of pixels: write {advice}")
    return float(eps)  # type: ignore[arg-type]


def whole_image(images: Tensor, norm: str) -> float:
    """Give the radius of the smallest ball that holds every image, around any image: 1, or the square root of C*H*W.

    Example:
        >>> whole_image(torch.zeros(5, 1, 8, 8), "L2")
        8.0
    """
    return 1.0 if norm == "Linf" else math.sqrt(images[0].numel())


def check_reach(eps: float, images: Tensor, norm: str) -> None:
    """Refuse a radius beyond which no two images lie.

    Example:
        >>> check_reach(9.0, torch.zeros(5, 1, 8, 8), "L2")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lightning_sparse.SparsityError: eps=9 is more than 8, and no two of these images are further apart in L2: write ...
    """
    most = whole_image(images, norm)
    if eps > most:
        raise SparsityError(
            f"eps={eps:g} is more than {most:g}, and no two of these images are further apart in {norm}: write a smaller "
            "one, for pixels in [0, 1]"
        )


def distance(a: Tensor, b: Tensor, norm: str) -> Tensor:
    """Compute how far apart two images are, for each pair: (n,), in double precision.

    Example:
        >>> a, b = torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, 4.0]]]])
        >>> distance(a, b, "Linf").item(), distance(a, b, "L2").item()
        (4.0, 5.0)
    """
    change = (a.double() - b.double()).flatten(1)
    return change.abs().amax(dim=1) if norm == "Linf" else change.square().sum(dim=1).sqrt()


def tolerance(eps: float, norm: str) -> float:
    """Excess over eps that rounding to float32 can explain, with room to spare; an L2 norm adds up many roundings."""
    return 1e-6 if norm == "Linf" else 1e-6 + 1e-5 * eps


def random_start(images: Tensor, eps: float, norm: str) -> Tensor:
    """Draw a point of each image's ball as torchattacks does: L-inf uniform; L2 a uniform direction and radius."""
    if norm == "Linf":
        return (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1)
    direction = torch.empty_like(images).normal_()
    radius = torch.empty_like(images[:, :1, :1, :1]).uniform_(0, 1)
    return (images + direction * (radius / _length(direction) * eps)).clamp(0, 1)


def uniform_point(images: Tensor, eps: float, norm: str) -> Tensor:
    """Draw a point of each image's ball uniformly by volume; under L2 nearly all of it lies close to the surface."""
    if norm == "Linf":
        return random_start(images, eps, norm)
    direction = torch.empty_like(images).normal_()
    radius = torch.empty_like(images[:, :1, :1, :1]).uniform_(0, 1) ** (1 / images[0].numel())
    return (images + direction * (radius / _length(direction) * eps)).clamp(0, 1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """Give the step of length 1 along which a gradient rises most: its sign, or itself divided by its L2 norm.

    A gradient of zero gives a step of zero. However small a gradient is, its step has length 1.

    Example:
        >>> steepest(torch.tensor([3e-30, 4e-30, 0.0, 0.0]).view(2, 1, 1, 2), "L2").flatten()
        tensor([0.6000, 0.8000, 0.0000, 0.0000])
    """
    if norm == "Linf":
        return gradient.sign()
    # Divided by its largest entry first: the squares of a small gradient would be zero in float32.
    largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1.0)
    return scaled / _length(scaled).clamp_min(1.0)


def project(point: Tensor, clean: Tensor, eps: float, norm: str) -> Tensor:
    """Give the nearest point of each image's ball, then clip to [0, 1]."""
    change = point - clean
    if norm == "Linf":
        return (clean + change.clamp(-eps, eps)).clamp(0, 1)
    return (clean + change * (eps / _length(change)).clamp(max=1)).clamp(0, 1)


def _length(change: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(change, dim=(1, 2, 3), keepdim=True)
    return length
