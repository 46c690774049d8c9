"""Projected gradient ascent that spends its steps on the images that still stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError, check_choice


def check_eps(name: str, eps: object) -> float:
    """Return ``eps`` as a float if it is in (0, 1], else raise.

    Example:
        >>> check_eps("eps", 8)
        Traceback (most recent call last):
        lightning_sparse.errors.SparsityError: eps=8 is not in (0, 1], the units of pixels: write 8 / 255
    """
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps <= 1:
        advice = f"{eps:g} / 255" if isinstance(eps, int | float) and 1 < eps <= 255 else "8 / 255"
        raise SparsityError(f"{name}={eps!r} is not in (0, 1], the units of pixels: write {advice}")
    return float(eps)


def check_steps(steps: object) -> int:
    """Return ``steps`` if it is an integer of at least 1, else raise.

    Example:
        >>> check_steps(20)
        20
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SparsityError(f"steps={steps!r} is not an integer of at least 1: write 20")
    return steps


def pgd(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 20,
    step_size: float | None = None,
    loss: Literal["ce", "margin"] = "ce",
    random_start: bool = True,
    keep_broken: bool = False,
) -> Tensor:
    """Attack by projected gradient ascent in the L-inf ball (Madry et al. 2018).

    An image counts as broken as soon as any iterate is misclassified; it then leaves the loop with that iterate, and
    the remaining steps are spent on the others. With ``keep_broken`` it equals ``torchattacks.PGD``.

    It draws its random start from torch's global generator and wants the model in eval mode: call it inside
    :func:`~lightning_sparse.isolation.untouched`, or use ``ATTACKS["pgd"]``, which does both.

    Args:
        classifier: pixels in [0, 1] to logits.
        images: (n, C, H, W), float32 in [0, 1], on the classifier's device.
        labels: (n,), integers in [0, classes).
        eps: radius of the ball in units of [0, 1], in (0, 1].
        steps: number of gradient steps.
        step_size: in units of [0, 1]; None is 2.5 * eps / steps, which scales with eps and reaches the ball's far side.
        loss: ``"ce"`` (cross-entropy) or ``"margin"`` (largest other logit minus the true one), whose gradient does
            not vanish when logits are large.
        random_start: start at a uniformly random point of the ball instead of at the image.
        keep_broken: go on attacking broken images and return the last iterate, as torchattacks does. More work for a
            weaker attack: for comparison only.

    Returns:
        Adversarial images, like ``images``, within eps of them and in [0, 1].

    Raises:
        SparsityError: if ``eps``, ``steps``, ``step_size`` or ``loss`` is not allowed.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
        >>> bool(((pgd(model, images, labels, eps=0.1) - images).abs() <= 0.1 + 1e-6).all())
        True
    """
    eps, steps = check_eps("eps", eps), check_steps(steps)
    objective = _LOSSES[check_choice("loss", loss, _LOSSES)]
    size = 2.5 * eps / steps if step_size is None else check_eps("step_size", step_size)

    result = images.detach().clone()
    if random_start:
        result = (result + torch.empty_like(result).uniform_(-eps, eps)).clamp(0, 1)
    # The images still attacked, by their place in the batch. `point` is theirs alone, so the work shrinks with them.
    active = torch.arange(len(images), device=images.device)
    clean, targets, point = images.detach(), labels, result.clone()
    for _ in range(steps):
        point.requires_grad_(True)
        logits: Tensor = classifier(point)
        standing = torch.ones_like(active, dtype=torch.bool) if keep_broken else logits.argmax(dim=1) == targets
        if not bool(standing.any()):
            result[active] = point.detach()
            return result
        (gradient,) = torch.autograd.grad(objective(logits[standing], targets[standing]), point)
        if not bool(standing.all()):
            result[active[~standing]] = point.detach()[~standing]
            active, clean, targets = active[standing], clean[standing], targets[standing]
            gradient = gradient[standing]
        point = point.detach()[standing] + size * gradient.sign()
        point = (clean + (point - clean).clamp(-eps, eps)).clamp(0, 1).detach()
    result[active] = point
    return result


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # Summed, so that an image's gradient does not depend on how many others share its batch.
    return F.cross_entropy(logits, labels, reduction="sum")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    index = labels.unsqueeze(1)
    others = logits.scatter(1, index, float("-inf")).amax(dim=1)
    return (others - logits.gather(1, index).squeeze(1)).sum()


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": _cross_entropy, "margin": _margin}
