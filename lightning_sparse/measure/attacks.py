"""Adversarial attacks in the L-inf ball: our own PGD, and torchattacks behind an adapter that makes it honest.

torchattacks (Kim 2020) is the provider of everything but PGD: its PGD goes on attacking images that it has already
broken, which is where most of the time goes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.isolation import device_of, untouched
from lightning_sparse.measure.checks import check_images
from lightning_sparse.measure.extras import need
from lightning_sparse.measure.projected_gradient import check_eps, check_steps, pgd

Attack = Callable[[nn.Module, Tensor, Tensor, float, int, int], Tensor]
"""``attack(classifier, images, labels, eps, steps, seed) -> adversarial images``."""

# Largest excess over eps that float32 rounding of `image + delta` can explain, with room to spare.
_TOLERANCE = 1e-6


def _honest(attack: Attack) -> Attack:
    """Check what goes into an attack and what comes out of it, and let it leave no trace."""

    @wraps(attack)
    def checked(classifier: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int) -> Tensor:
        check_images(images, labels)
        eps, steps = check_eps("eps", eps), check_steps(steps)
        with untouched(classifier, seed):
            device = device_of(classifier)
            # Copies, because tensors born under inference_mode cannot carry gradients.
            clean = images.to(device, torch.float32, copy=True)
            targets = labels.to(device, torch.int64, copy=True)
            adversarial = attack(classifier, clean.clone(), targets, eps, steps, seed).detach()
            excess = float((adversarial - clean).abs().max()) - eps
            low, high = float(adversarial.min()), float(adversarial.max())
        # Negated so that NaN fails too.
        if not (excess <= _TOLERANCE and low >= 0 and high <= 1):
            raise SparsityError(
                f"attack {attack.__name__!r} left its ball: {excess:g} beyond eps={eps:g}, pixels in [{low:g}, {high:g}]: "
                "its number would mean nothing"
            )
        return adversarial

    return checked


@_honest
def _fgsm(classifier: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int) -> Tensor:
    return _from_torchattacks("FGSM", classifier, images, labels, eps=eps)


@_honest
def _pgd_ce(classifier: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int) -> Tensor:
    return pgd(classifier, images, labels, eps=eps, steps=steps, loss="ce")


@_honest
def _pgd_margin(classifier: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int) -> Tensor:
    return pgd(classifier, images, labels, eps=eps, steps=steps, loss="margin")


@_honest
def _apgd_dlr(classifier: nn.Module, images: Tensor, labels: Tensor, eps: float, steps: int, seed: int) -> Tensor:
    with torch.no_grad():
        classes = classifier(images[:1].clone()).shape[1]
    if attack_name("apgd-dlr", classes) != "apgd-dlr":
        raise SparsityError(f"attack 'apgd-dlr' needs at least 4 classes, and there are {classes}: use 'pgd-margin'")
    settings = {"norm": "Linf", "steps": steps, "n_restarts": 1, "seed": seed, "loss": "dlr"}
    return _from_torchattacks("APGD", classifier, images, labels, eps=eps, **settings)


def _from_torchattacks(
    name: str, classifier: nn.Module, images: Tensor, labels: Tensor, *, eps: float, **settings: Any
) -> Tensor:
    torchattacks = need("torchattacks")
    # It prints when a model has no parameters to tell the device by; so the device is set here.
    with redirect_stdout(io.StringIO()):
        attack = getattr(torchattacks, name)(classifier, eps=eps, **settings)
        attack.set_device(images.device)
    adversarial: Tensor = attack(images, labels)
    return adversarial


ATTACKS: dict[str, Attack] = {"fgsm": _fgsm, "pgd": _pgd_ce, "pgd-margin": _pgd_margin, "apgd-dlr": _apgd_dlr}
"""All attacks by name. Each checks its inputs, stays in its ball, and leaves model and random states untouched.

``fgsm`` is one step (Goodfellow et al. 2015); ``pgd`` and ``pgd-margin`` are :func:`pgd` with either loss; ``apgd-dlr``
is Auto-PGD on the scale-free DLR loss (Croce & Hein 2020), for 4 classes or more.
"""


def attack_name(name: str, classes: int) -> str:
    """Say which attack runs where ``name`` is asked for: DLR needs 4 classes, the margin loss stands in below that.

    Example:
        >>> attack_name("apgd-dlr", classes=10), attack_name("apgd-dlr", classes=3)
        ('apgd-dlr', 'pgd-margin')
    """
    return "pgd-margin" if name == "apgd-dlr" and classes < 4 else name


def attack_detail(name: str, steps: int, seed: int) -> str:
    """Describe an attack of ``ATTACKS`` in words, for a record.

    Example:
        >>> attack_detail("pgd", steps=20, seed=0)
        'Linf, PGD on cross-entropy, 20 steps of 2.5*eps/20, random start, seed 0, broken images left out'
    """
    walk = f"{steps} steps of 2.5*eps/{steps}, random start, seed {seed}, broken images left out"
    return {
        "fgsm": "Linf, FGSM (torchattacks), one step of eps on cross-entropy",
        "pgd": f"Linf, PGD on cross-entropy, {walk}",
        "pgd-margin": f"Linf, PGD on the logit margin, {walk}",
        "apgd-dlr": f"Linf, APGD (torchattacks) on DLR, {steps} steps of adaptive size, 1 restart, seed {seed}",
    }.get(name, f"Linf, {name}, {steps} steps, seed {seed}")
