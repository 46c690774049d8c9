"""Adversarial attacks in the L-inf and L2 balls, each checked: our own PGD, and the others from torchattacks (Kim 2020).

The PGD of torchattacks goes on attacking images that it has already broken, which takes most of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.errors import SparsityError, check_count, check_seed
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.classifier import as_classifier
from lightning_sparse.measure.robustness.balls import check_eps, check_reach, distance, tolerance, uniform_point
from lightning_sparse.measure.robustness.from_torchattacks import nearest, published
from lightning_sparse.measure.robustness.pgd import check_start, pgd

QUERIES_PER_STEP = 50
"""Square's queries for each step of the other attacks: 100 steps correspond to the published 5000 queries."""


class _Setting(NamedTuple):
    eps: float
    norm: str
    steps: int
    restarts: int
    seed: int
    start: Tensor | None


_Method = Callable[[nn.Module, Tensor, Tensor, _Setting], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Attack:
    """One of :data:`ATTACKS`: it checks its inputs and its result, and leaves the model and random states as they were.

    A call returns adversarial images, like ``images``, and which of them the classifier gets wrong, (n,), bool. An attack
    ignores the settings that it has no use for: FGSM always takes one step.
    """

    name: str
    method: _Method

    def __call__(
        self,
        classifier: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        eps: float,
        norm: str = "Linf",
        steps: int = 20,
        restarts: int = 1,
        seed: int = 0,
        start: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attack the images."""
        seed = check_seed(seed)
        check_images(images, labels)
        check_start(start, images)
        classifier = as_classifier(classifier)
        radius = check_eps("eps", eps, norm)
        check_count("steps", steps, write=20)
        check_count("restarts", restarts)
        check_reach(radius, images, norm)
        with untouched(classifier, seed):
            device = device_of(classifier)
            # Copies, because tensors born under inference_mode cannot carry gradients.
            clean = images.to(device, torch.float32, copy=True)
            targets = labels.to(device, torch.int64, copy=True)
            setting = _Setting(radius, norm, steps, restarts, seed, start)
            adversarial, broken = self.method(classifier, clean.clone(), targets, setting)
            adversarial = adversarial.detach()
            excess = float(distance(adversarial, clean, norm).max()) - radius
            low, high = float(adversarial.min()), float(adversarial.max())
        # Negated so that NaN fails too.
        if not (excess <= tolerance(radius, norm) and low >= 0 and high <= 1):
            raise SparsityError(
                f"attack {self.name!r} left its ball: {excess:g} beyond eps={eps:g} in {norm}, pixels in [{low:g}, "
                f"{high:g}]: the result would mean nothing"
            )
        return adversarial, broken


def _fgsm(classifier: nn.Module, images: Tensor, labels: Tensor, at: _Setting) -> tuple[Tensor, Tensor]:
    return pgd(classifier, images, labels, eps=at.eps, norm=at.norm, steps=1, step_size=at.eps, random_start=False)


def _pgd(
    loss: Literal["ce", "margin"], classifier: nn.Module, images: Tensor, labels: Tensor, at: _Setting
) -> tuple[Tensor, Tensor]:
    walks: dict[str, Any] = {"steps": at.steps, "restarts": at.restarts, "start": at.start}
    return pgd(classifier, images, labels, eps=at.eps, norm=at.norm, loss=loss, **walks)


def _published(name: str, classifier: nn.Module, images: Tensor, labels: Tensor, at: _Setting) -> tuple[Tensor, Tensor]:
    steps = at.steps * QUERIES_PER_STEP if name == "square" else at.steps
    return published(name, classifier, images, labels, eps=at.eps, norm=at.norm, steps=steps, seed=at.seed)


def _fab(classifier: nn.Module, images: Tensor, labels: Tensor, at: _Setting) -> tuple[Tensor, Tensor]:
    found, away = nearest(classifier, images, labels, norm=at.norm, steps=at.steps, enough=at.eps)
    broken = away <= at.eps
    return torch.where(broken.view(-1, 1, 1, 1), found, images), broken


def _noise(classifier: nn.Module, images: Tensor, labels: Tensor, at: _Setting) -> tuple[Tensor, Tensor]:
    result, broken = images.clone(), torch.zeros_like(labels, dtype=torch.bool)
    for _ in range(at.steps):
        active = (~broken).nonzero().squeeze(1)
        if len(active) == 0:
            break
        point = uniform_point(images[active], at.eps, at.norm)
        with torch.no_grad():
            wrong = classifier(point).argmax(dim=1) != labels[active]
        result[active], broken[active] = point, wrong
    return result, broken


_METHODS: dict[str, _Method] = {
    "fgsm": _fgsm,
    "pgd": partial(_pgd, "ce"),
    "pgd-margin": partial(_pgd, "margin"),
    **{name: partial(_published, name) for name in ("apgd-ce", "apgd-dlr", "apgd-t")},
    "fab-t": _fab,
    "square": partial(_published, "square"),
    "noise": _noise,
}

ATTACKS: dict[str, Attack] = {name: Attack(name, method) for name, method in _METHODS.items()}
"""All attacks by name. Each checks its inputs, stays in its ball, and leaves model and random states untouched.

``fgsm`` is one step of eps (Goodfellow et al. 2015); ``pgd`` and ``pgd-margin`` are :func:`pgd` with either loss;
``apgd-ce`` and ``apgd-dlr`` are Auto-PGD on cross-entropy and on the scale-free DLR loss, ``apgd-t`` the same on targeted
DLR towards each of the 9 likeliest other classes (Croce & Hein 2020a; DLR needs 4 classes or more); ``fab-t`` looks for
the nearest adversarial image in those directions (Croce & Hein 2020b); ``square`` sees logits only (Andriushchenko et al.
2020), 50 queries for each step; ``noise`` draws ``steps`` uniform points of the ball. Only ``pgd`` and ``pgd-margin`` use
``restarts`` and ``start``.
"""


def attack_name(name: str, classes: int) -> str:
    """Give the attack that runs when ``name`` is asked for: PGD on the margin instead of DLR, which needs 4 classes."""
    return "pgd-margin" if name in ("apgd-dlr", "apgd-t") and classes < 4 else name


def attack_detail(name: str, *, norm: str, steps: int, restarts: int, seed: int, classes: int) -> str:
    """Describe an attack of ``ATTACKS`` in words, for a record."""
    starts = f"{restarts} random start{'s' if restarts > 1 else ''}"
    walk = f"{steps} steps of 2.5*eps/{steps}, {starts}, seed {seed}, broken images left out"
    adaptive = f"steps of adaptive size, 1 restart, seed {seed}"
    targets = f"{min(9, classes - 1)} targets x {steps}"
    words = {
        "fgsm": "FGSM, one step of eps on cross-entropy from the clean image",
        "pgd": f"PGD on cross-entropy, {walk}",
        "pgd-margin": f"PGD on the logit margin, {walk}",
        "apgd-ce": f"APGD (torchattacks) on cross-entropy, {steps} {adaptive}",
        "apgd-dlr": f"APGD (torchattacks) on DLR, {steps} {adaptive}",
        "apgd-t": f"APGD (torchattacks) on targeted DLR, {targets} {adaptive}",
        "fab-t": f"FAB (torchattacks) targeted, {targets} steps, alpha_max 0.1, eta 1.05, beta 0.9, from the clean image",
        "square": f"Square (torchattacks), {steps * QUERIES_PER_STEP} queries, p 0.8, fixed schedule, margin, seed {seed}",
        "noise": f"{steps} uniform draws from the ball, seed {seed}",
    }
    return f"{norm}, {words[name]}"
