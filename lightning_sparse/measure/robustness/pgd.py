"""Projected gradient ascent that takes steps only for the images that still stand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError, check_choice, check_count
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.robustness.balls import check_eps, project, steepest
from lightning_sparse.measure.robustness.balls import random_start as draw_start


def pgd(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "Linf",
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    loss: Literal["ce", "margin"] = "ce",
    random_start: bool = True,
    start: Tensor | None = None,
    keep_broken: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attack by projected gradient ascent in the L-inf or L2 ball (Madry et al. 2018).

    An image is broken as soon as any iterate is misclassified: it leaves the loop with that iterate and is never looked at
    again. What still stands after the last step is looked at once more, and then attacked from the next random start. With
    ``keep_broken`` it equals ``torchattacks.PGD`` and ``torchattacks.PGDL2``.

    It draws random starts from torch's global generator and needs the model in eval mode: call it inside
    :func:`~lightning_sparse.untouched`, or use ``ATTACKS["pgd"]``, which takes care of both.

    Args:
        classifier: pixels in [0, 1] to logits.
        images: (n, C, H, W), float32 in [0, 1], on the classifier's device.
        labels: (n,), integers in [0, classes).
        eps: radius of the ball: in (0, 1] for L-inf, in units of [0, 1]; positive for L2.
        norm: ``"Linf"``, with steps along the sign of the gradient, or ``"L2"``, along the gradient divided by its norm.
        steps: gradient steps of each start.
        step_size: in the units of eps; None is 2.5 * eps / steps, which scales with eps and reaches the ball's far side.
        restarts: number of starts, at least 1.
        loss: ``"ce"`` (cross-entropy) or ``"margin"`` (largest other logit minus the true one), whose gradient does
            not vanish when logits are large.
        random_start: start at a random point of the ball instead of at the image.
        start: like ``images``: where the first walk begins instead, projected into the ball, such as the end of a walk in a
            smaller ball.
        keep_broken: go on attacking broken images and return the last iterate, as torchattacks does: slower and weaker,
            for comparison only.

    Returns:
        Adversarial images, like ``images``, within eps of them and in [0, 1]; and which of them the classifier gets
        wrong, (n,), bool.

    Raises:
        SparsityError: if ``eps``, ``norm``, ``steps``, ``step_size``, ``restarts`` or ``loss`` is not allowed.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
        >>> adversarial, broken = pgd(model, images, labels, eps=0.1)
        >>> bool(((adversarial - images).abs() <= 0.1 + 1e-6).all())
        True
        >>> torch.equal(model(adversarial).argmax(1) != labels, broken)
        True
    """
    eps, steps = check_eps("eps", eps, norm), check_count("steps", steps, write=20)
    restarts = check_count("restarts", restarts)
    check_choice("loss", loss, _LOSSES)
    size = 2.5 * eps / steps if step_size is None else check_eps("step_size", step_size, norm)

    check_start(start, images)
    if isinstance(classifier, type) or not callable(classifier):
        raise SparsityError(f"classifier={classifier!r} cannot be called: give as_classifier(model)")
    if not isinstance(images, Tensor) or len(images):
        check_images(images, labels)
    clean = images.detach()

    def begin(walk: int, at: Tensor) -> Tensor:
        if walk == 0 and start is not None:
            return project(start[at].detach(), clean[at], eps, norm)
        return draw_start(clean[at], eps, norm) if random_start else clean[at]

    return ascend(
        lambda point, at: classifier(point),
        labels,
        clean,
        begin=begin,
        onward=lambda point, gradient, at: project(point + size * steepest(gradient, norm), clean[at], eps, norm),
        loss=loss,
        steps=steps,
        restarts=restarts,
        keep_broken=keep_broken,
    )


def ascend(
    logits_at: Callable[[Tensor, Tensor], Tensor],
    labels: Tensor,
    here: Tensor,
    *,
    begin: Callable[[int, Tensor], Tensor],
    onward: Callable[[Tensor, Tensor, Tensor], Tensor],
    loss: str,
    steps: int,
    restarts: int,
    keep_broken: bool = False,
) -> tuple[Tensor, Tensor]:
    """The loop of :func:`pgd`, in any space. Below, ``at`` (k,) says which of all inputs the k points are of.

    Args:
        logits_at: gives the logits (k, classes) of points and ``at``.
        labels: (n,), the true classes.
        here: (n, ...), the points that are attacked.
        begin: gives the points where walk number 0, 1, ... starts, of ``at``.
        onward: takes points, their gradients and ``at``, and gives the next points.
        loss: ``"ce"`` or ``"margin"``.
        steps: of each walk.
        restarts: number of walks.
        keep_broken: see :func:`pgd`.

    Returns:
        The last point of each, (n, ...), and whether it is misclassified, (n,), bool.
    """
    result, broken = here.clone(), torch.zeros_like(labels, dtype=torch.bool)
    for walk in range(restarts):
        # The inputs still attacked, by their place in the batch. `point` holds only theirs, so each step costs less.
        active = (~broken).nonzero().squeeze(1)
        if len(active) == 0:
            break
        point, targets = begin(walk, active), labels[active]
        for _ in range(steps):
            point.requires_grad_(True)
            logits = logits_at(point, active)
            standing = torch.ones_like(active, dtype=torch.bool) if keep_broken else logits.argmax(dim=1) == targets
            kept = standing.nonzero().squeeze(1)  # all that a GPU is waited for in a step, unless an input breaks in it
            if len(kept) == 0:
                break
            (gradient,) = torch.autograd.grad(_LOSSES[loss](logits[kept], targets[kept]), point)
            point = point.detach()
            if len(kept) < len(active):
                gone = active[~standing]
                result[gone], broken[gone] = point[~standing], True
                active, targets, gradient, point = active[kept], targets[kept], gradient[kept], point[kept]
            point = onward(point, gradient, active).detach()
        else:
            with torch.no_grad():
                standing = logits_at(point, active).argmax(dim=1) == targets
        result[active], broken[active] = point.detach(), ~standing
    return result, broken


def check_start(start: object, images: Tensor) -> None:
    """Refuse anything but None or a tensor like the images."""
    if start is None:
        return
    shapes = (tuple(getattr(start, "shape", ())), tuple(getattr(images, "shape", ())))
    if not isinstance(start, Tensor) or shapes[0] != shapes[1] or not start.is_floating_point() or start.is_sparse:
        raise SparsityError(
            f"start={type(start).__name__} {shapes[0]} is not like the images {shapes[1]}: leave it out"
        )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # Summed, so that an image's gradient does not depend on how many others share its batch.
    return F.cross_entropy(logits, labels, reduction="sum")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    index = labels.unsqueeze(1)
    others = logits.scatter(1, index, float("-inf")).amax(dim=1)
    return (others - logits.gather(1, index).squeeze(1)).sum()


_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": _cross_entropy, "margin": _margin}
