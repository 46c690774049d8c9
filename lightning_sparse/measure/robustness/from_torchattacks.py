"""The parts of AutoAttack, one at a time, by torchattacks' classes with the published settings.

Its class ``AutoAttack`` is never used: it runs 10 steps where the paper runs 100, and Square on another schedule.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError
from lightning_sparse.extras import need
from lightning_sparse.measure.robustness.balls import distance

SQUARE_NEEDS = 5
"""Pixels a side that Square needs in L2: its windows are a fifth of the image."""

_TARGETS = 9  # as in AutoAttack, however many classes there are


def published(
    name: str, classifier: nn.Module, images: Tensor, labels: Tensor, *, eps: float, norm: str, steps: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Run ``"apgd-ce"``, ``"apgd-dlr"``, ``"apgd-t"`` or ``"square"``, inside ``untouched``.

    ``images`` (n, C, H, W) are float32 in [0, 1] on the classifier's device; ``steps`` are gradient steps, for each target
    where there are targets, or queries for Square. Returns adversarial images, the clean one where the attack failed; and
    which are misclassified, (n,), bool.

    Raises:
        SparsityError: if there are too few classes for DLR, or the images are too small for Square's L2 windows.
    """
    attacks: dict[str, tuple[str, dict[str, Any]]] = {
        "apgd-ce": ("APGD", {"steps": steps, "loss": "ce", "eot_iter": 1, "rho": 0.75}),
        "apgd-dlr": ("APGD", {"steps": steps, "loss": "dlr", "eot_iter": 1, "rho": 0.75}),
        "apgd-t": ("APGDT", {"steps": steps, "eot_iter": 1, "rho": 0.75}),
        "square": ("Square", {"n_queries": steps, "p_init": 0.8, "loss": "margin", "resc_schedule": False}),
    }
    kind, settings = attacks[name]
    if name in ("apgd-dlr", "apgd-t"):
        classes = _class_count(classifier, images)
        if classes < 4:
            raise SparsityError(f"attack {name!r} needs at least 4 classes, and there are {classes}: use 'pgd-margin'")
        if name == "apgd-t":
            settings["n_classes"] = min(classes, _TARGETS + 1)
    if name == "square" and norm == "L2" and min(images.shape[2:]) < SQUARE_NEEDS:
        raise SparsityError(
            f"attack 'square' in L2 works on windows of a fifth of the image, and images of {tuple(images.shape[2:])} "
            "have none: use norm='Linf'"
        )
    first: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...], logits: Tensor) -> Tensor:
        if not first:
            first.append(logits.detach().argmax(dim=1))
        return logits.clone()  # Square writes into the logits it gets

    handle = classifier.register_forward_hook(remember)
    try:
        attack = _made(kind, classifier, images, norm=norm, eps=eps, seed=seed, **settings)
        adversarial: Tensor = attack(images, labels)
    finally:
        handle.remove()
    # All of them classify the clean images first, and return unchanged what they could not break.
    return adversarial, (first[0] != labels) | (adversarial != images).flatten(1).any(dim=1)


def nearest(
    classifier: nn.Module, images: Tensor, labels: Tensor, *, norm: str, steps: int, enough: float
) -> tuple[Tensor, Tensor]:
    """Look for the adversarial image nearest to each image: FAB towards each of the likeliest other classes.

    FAB uses no eps and, without random starts, draws nothing: one run answers for every eps. torchattacks does not return
    the distances, so the loop over targets is written here, around its walk towards one target.

    Inputs are as in :func:`published`; an image whose adversarial one is within ``enough`` is not taken to more targets.
    Returns the nearest ones found; and their distances, (n,), infinite where none was found, 0 for what is wrong already.
    """
    published_settings = {"alpha_max": 0.1, "eta": 1.05, "beta": 0.9, "multi_targeted": True}
    classes = min(_class_count(classifier, images), _TARGETS + 1)
    walk = {"norm": norm, "steps": steps, "eps": enough, "seed": 0, "n_classes": classes}
    attack = _made("FAB", classifier, images, **walk, **published_settings)
    with torch.no_grad():
        wrong = classifier(images).argmax(dim=1) != labels
    found, away = images.clone(), torch.where(wrong, 0.0, torch.inf).double()
    for likeliest in range(2, attack.n_target_classes + 2):
        active = (away > enough).nonzero().squeeze(1)
        if len(active) == 0:
            break
        attack.target_class = likeliest
        with torch.no_grad():
            candidates: Tensor = attack.attack_single_run_targeted(images[active], labels[active])
        far = distance(candidates, images[active], norm)
        nearer = (far > 0) & (far < away[active])  # it returns the clean image where it found none
        found[active[nearer]], away[active[nearer]] = candidates[nearer], far[nearer]
    return found, away


def _made(kind: str, classifier: nn.Module, images: Tensor, **settings: Any) -> Any:
    # torchattacks prints a warning if the model has no parameters that show its device; so the device is set here.
    with redirect_stdout(io.StringIO()):
        attack = getattr(need("torchattacks"), kind)(classifier, n_restarts=1, verbose=False, **settings)
        attack.set_device(images.device)
    return attack


def _class_count(classifier: nn.Module, images: Tensor) -> int:
    with torch.no_grad():
        return int(classifier(images[:1].clone()).shape[1])
