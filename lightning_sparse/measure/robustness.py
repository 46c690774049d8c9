"""Adversarial robustness as an honest worst case: per image, over all attacks and all smaller perturbations."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.isolation import device_of, untouched
from lightning_sparse.measure.attacks import ATTACKS, attack_detail, attack_name
from lightning_sparse.measure.classifier import Forward, as_classifier, batches, logits_of
from lightning_sparse.measure.intervals import wilson
from lightning_sparse.measure.projected_gradient import check_eps, check_steps
from lightning_sparse.records import Record


def measure_robustness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: Sequence[float],
    attacks: Sequence[str] = ("fgsm", "pgd", "apgd-dlr"),
    steps: int = 20,
    batch_size: int = 256,
    seed: int = 0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    forward: Forward | None = None,
    progress: bool = False,
) -> list[Record]:
    """Measure robust accuracy: the share of all images that are right on clean and under attack.

    An image that is wrong on clean is broken at every eps. An image broken by an attack at one eps is broken by it at
    every larger one, because the smaller ball lies inside the larger: each attack runs on its own survivors only, from
    the smallest eps up. ``"worst"`` counts the images that survive every attack; it is taken per image, so it can be
    lower than the lowest single attack.

    Args:
        model: any module; it is left as it was.
        images: (n, C, H, W), floats in [0, 1].
        labels: (n,), integers in [0, classes).
        eps: L-inf radii in units of [0, 1], each in (0, 1].
        attacks: names from :data:`~lightning_sparse.measure.attacks.ATTACKS`. Keep two losses among them: large logits
            alone make cross-entropy's gradient vanish, which looks like robustness. With fewer than 4 classes
            ``"apgd-dlr"`` is replaced by ``"pgd-margin"``, and the record says so.
        steps: gradient steps of the iterative attacks.
        batch_size: images per batch; 128 to 256 is fastest on a CPU.
        seed: seed of the random starts.
        mean: see :func:`~lightning_sparse.measure.classifier.as_classifier`.
        std: see there.
        forward: see there.
        progress: print a line to stderr after each attack.

    Returns:
        For each eps, ascending: one ``robust_accuracy`` record per attack and one with ``attack="worst"``, with Wilson
        intervals; ``n`` is the number of all images.

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> records = measure_robustness(model, images, labels, eps=[0.1, 1.0], attacks=["pgd", "pgd-margin"])
        >>> [record.chart for record in records]  # doctest: +NORMALIZE_WHITESPACE
        ['robust/pgd/eps=0.1', 'robust/pgd-margin/eps=0.1', 'robust/worst/eps=0.1',
         'robust/pgd/eps=1', 'robust/pgd-margin/eps=1', 'robust/worst/eps=1']
    """
    radii, asked, steps = check_radii(eps), check_attacks(attacks), check_steps(steps)
    classifier = as_classifier(model, mean=mean, std=std, forward=forward)
    records = []
    with untouched(classifier, seed):
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        targets = labels.cpu().long()
        correct = logits.argmax(dim=1) == targets
        replaced = {attack_name(name, logits.shape[1]): name for name in asked}
        surviving = {name: correct.clone() for name in replaced}
        for radius in radii:
            for name, wanted in replaced.items():
                _attack_survivors(name, classifier, images, labels, surviving[name], radius, steps, seed, batch_size)
                detail = attack_detail(name, steps, seed) + "; broken at a smaller eps stays broken"
                if name != wanted:
                    detail += f"; in place of {wanted}, which needs 4 classes, not {logits.shape[1]}"
                records.append(_record(surviving[name], name, radius, detail))
                if progress:
                    print(f"eps {radius:.4g}  {name:10}  robust {records[-1].value:.4f}", file=sys.stderr)
            worst = torch.stack(list(surviving.values())).all(dim=0)
            detail = f"Linf, per image worst of {', '.join(replaced)} at this and every smaller eps of the same call"
            records.append(_record(worst, "worst", radius, f"{detail}, {steps} steps, seed {seed}"))
    return records


def _attack_survivors(
    name: str,
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    surviving: Tensor,
    eps: float,
    steps: int,
    seed: int,
    batch_size: int,
) -> None:
    """Attack the images still marked in ``surviving`` (n,) and unmark, in place, those that break."""
    places = surviving.nonzero().squeeze(1)
    if len(places) == 0:
        return
    parts = (images[places.to(images.device)], labels[places.to(labels.device)], places)
    for part, targets, place in batches(batch_size, device_of(classifier), *parts):
        adversarial = ATTACKS[name](classifier, part, targets, eps, steps, seed)
        with torch.no_grad():
            surviving[place.cpu()] = (classifier(adversarial).argmax(dim=1) == targets).cpu()


def _record(surviving: Tensor, attack: str, eps: float, detail: str) -> Record:
    n, robust = len(surviving), int(surviving.sum())
    low, high = wilson(robust, n)
    return Record("robust_accuracy", robust / n, n, low, high, attack=attack, norm="Linf", eps=eps, detail=detail)


def check_radii(eps: Sequence[float]) -> list[float]:
    """Return the radii ascending and without doubles, or raise a SparsityError if one is not in (0, 1]."""
    if isinstance(eps, int | float | str) or len(eps) == 0:
        raise SparsityError(f"eps={eps!r} is not a list of radii: write eps=[2 / 255, 8 / 255]")
    return sorted({check_eps("eps", radius) for radius in eps})


def check_attacks(attacks: Sequence[str]) -> list[str]:
    """Return the names of attacks, or raise a SparsityError if one does not exist."""
    if isinstance(attacks, str) or len(attacks) == 0:
        raise SparsityError(f"attacks={attacks!r} is not a list of names: write attacks=['pgd', 'apgd-dlr']")
    return [check_choice("attacks", name, ATTACKS) for name in attacks]
