"""The checks behind a verdict, run on what the attacks have left. See :mod:`lightning_sparse.measure.robustness.trust`."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.robustness.balls import whole_image
from lightning_sparse.measure.robustness.from_torchattacks import SQUARE_NEEDS
from lightning_sparse.measure.robustness.tiers import Tier
from lightning_sparse.measure.robustness.trust import THRESHOLDS
from lightning_sparse.measure.robustness.victim import Victim
from lightning_sparse.results.records import Record
from lightning_sparse.statistics.intervals import wilson

NOISE_DRAWS = 3
MORE_STEPS = 5
_MOST = 100  # images of a sample
_TWICE = 128  # images whose logits are compared


def sample(victim: Victim, places: Tensor, least: int, most: int) -> Tensor:
    """Choose some of ``places`` at random, from the victim's seed: a tenth of all images, in ``least`` to ``most``."""
    count = min(most, max(least, len(victim.images) // 10))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(victim.seed))
    return places[order[:count].sort().values]


def single_step(victim: Victim, survivors: Tensor, eps: float) -> Record:
    """FGSM may not break what the cascade could not: one step is the weaker attack."""
    broken = int(victim.broken_by("fgsm", survivors, eps=eps, steps=1).sum())
    return _counted(victim, "single_step", broken, survivors, survivors, eps, "FGSM", THRESHOLDS.single_step)


def noise(victim: Victim, survivors: Tensor, eps: float) -> Record:
    """Random points of the ball may not break what the cascade could not."""
    broken = int(victim.broken_by("noise", survivors, eps=eps, steps=NOISE_DRAWS).sum())
    how = f"{NOISE_DRAWS} uniform draws"
    return _counted(victim, "noise", broken, survivors, survivors, eps, how, THRESHOLDS.noise)


def losses_agree(victim: Victim, names: list[str], standing: list[int], eps: float) -> Record:
    """Compare losses: what the later attacks break where the first failed. ``standing`` is the count after each attack."""
    n, broken = len(victim.images), standing[0] - standing[-1]
    if len(names) == 1:
        detail = f"not made: {names[0]} is the only attack; steps converge looks at the margin loss"
        return Record("trust_losses_agree", float("nan"), 0, norm=victim.norm, eps=eps, detail=detail)
    # Honest networks disagree a little too, because some losses are simply better: what counts is a sure difference.
    surely, limit = wilson(broken, n)[0], THRESHOLDS.losses_agree
    later = ", ".join(names[1:])
    detail = (
        f"{later} broke {broken} of {standing[0]} that {names[0]} had left, as a share of all {n} images; the lower end "
        f"of its 95 % interval, {surely:.4g}, is what counts"
    )
    row = _row(victim, "losses_agree", surely, standing[0], detail, limit, broken=broken, eps=eps)
    return replace(row, value=broken / n)


def steps_converge(victim: Victim, survivors: Tensor, eps: float, tier: Tier) -> Record:
    """Many more steps, on a loss of no scale, may not break more."""
    some, more = sample(victim, survivors, tier.fewest, _MOST), MORE_STEPS * tier.steps
    broken = int(victim.broken_by("pgd-margin", some, eps=eps, steps=more).sum())
    how = f"PGD on the margin with {more} steps"
    return _counted(victim, "steps_converge", broken, some, survivors, eps, how, THRESHOLDS.steps_converge)


def black_box(victim: Victim, survivors: Tensor, eps: float, tier: Tier) -> Record:
    """An attack that sees no gradients may not break what those with gradients could not."""
    if victim.norm == "L2" and min(victim.images.shape[2:]) < SQUARE_NEEDS:
        detail = f"not made: Square in L2 needs images of at least {SQUARE_NEEDS} pixels a side"
        return Record("trust_black_box", float("nan"), 0, norm=victim.norm, eps=eps, detail=detail)
    some = sample(victim, survivors, tier.fewest, tier.black_box_images)
    broken = int(victim.broken_by("square", some, eps=eps, steps=tier.queries // 50).sum())
    how = f"Square with {tier.queries} queries, at the eps whose robust accuracy is nearest half of clean,"
    return _counted(victim, "black_box", broken, some, survivors, eps, how, THRESHOLDS.black_box)


def zero_gradients(victim: Victim, right: Tensor) -> Record:
    """Where cross-entropy has no gradient at all, attacks that follow it stand still."""
    zero = 0
    for images, labels in batches(
        victim.batch_size,
        device_of(victim.classifier),
        victim.images[right.to(victim.images.device)],
        victim.labels[right],
    ):
        images.requires_grad_(True)
        (gradient,) = torch.autograd.grad(F.cross_entropy(victim.classifier(images), labels, reduction="sum"), images)
        zero += int((gradient == 0).flatten(1).all(dim=1).sum())
    share = zero / len(right) if len(right) else float("nan")
    detail = f"gradient of cross-entropy exactly 0 at {zero} of the {len(right)} images right on clean"
    return _row(victim, "zero_gradients", share, len(right), detail, THRESHOLDS.zero_gradients, broken=zero)


def deterministic(victim: Victim) -> Record:
    """The same image has the same logits: again, in another order, and among other images."""
    classifier = victim.classifier
    count = min(_TWICE, len(victim.images))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(victim.seed))

    def logits(places: Tensor, size: int) -> Tensor:
        images = victim.images[places.to(victim.images.device)]
        with torch.no_grad():
            return torch.cat([classifier(part).cpu() for (part,) in batches(size, device_of(classifier), images)])

    first, again = logits(torch.arange(count), count), logits(torch.arange(count), count)
    mixed = torch.empty_like(first)
    mixed[order] = logits(order, count // 3 + 1)
    scale = max(1.0, float(first.abs().max()))
    value = max(float((other - first).abs().max()) for other in (again, mixed)) / scale
    detail = (
        f"largest difference of a logit of {count} images, run twice and in other company (permuted, in batches of "
        f"{count // 3 + 1}), as a share of the largest logit"
    )
    training = [name or type(module).__name__ for name, module in classifier.named_modules() if module.training]
    if training:
        detail += f"; fails for being in training mode after eval(): {', '.join(training)}"
    return _row(victim, "deterministic", value, count, detail, THRESHOLDS.deterministic, failed=bool(training))


def to_zero(victim: Victim, survivors: Tensor, tier: Tier) -> Record:
    """Where any image is allowed, the attacks must win: only guessing can be left."""
    some, eps, n = (
        sample(victim, survivors, tier.fewest, _MOST),
        whole_image(victim.images, victim.norm),
        len(victim.images),
    )
    left = some
    for name in tier.attacks:
        left = left[~victim.broken_by(name, left, eps=eps, steps=tier.steps, restarts=tier.restarts)]
    share = len(left) / len(some) * len(survivors) / n if len(some) else 0.0
    chance = max(1 / victim.classes, float(victim.labels.bincount().max()) / n)
    detail = (
        f"at eps {eps:g}, where any image is allowed, {', '.join(tier.attacks)} left {len(left)} of a sample of {len(some)} "
        f"of the {len(survivors)} survivors of the largest eps, scaled to all {n} images; guessing the commonest class"
    )
    return _row(victim, "to_zero", share, len(some), detail, chance)


def _counted(
    victim: Victim, name: str, broken: int, looked_at: Tensor, survivors: Tensor, eps: float, how: str, limit: float
) -> Record:
    n = len(victim.images)
    value = broken / len(looked_at) * len(survivors) / n if len(looked_at) else 0.0
    seen = "the" if len(looked_at) == len(survivors) else f"a sample of {len(looked_at)} of the"
    detail = f"{how} broke {broken} of {seen} {len(survivors)} survivors, as a share of all {n} images"
    return _row(victim, name, value, len(looked_at), detail, limit, broken=broken, eps=eps)


def _row(
    victim: Victim,
    name: str,
    value: float,
    n: int,
    detail: str,
    limit: float,
    *,
    broken: int | None = None,
    eps: float | None = None,
    failed: bool = False,
) -> Record:
    """A row that fails above ``limit``, but not for a single image where ``broken`` counts them."""
    rule = f"fails above {limit:.4g}"
    if broken is not None:
        rule += f", from {THRESHOLDS.images} images on"
    if value != value:  # nothing to look at
        return Record(f"trust_{name}", value, n, norm=victim.norm, eps=eps, detail=f"not made: {detail}")
    few = broken is not None and broken < THRESHOLDS.images
    failed = failed or (value > limit and not few)
    return Record(
        f"trust_{name}",
        value,
        n,
        norm=victim.norm,
        eps=eps,
        trust="failed" if failed else "passed",
        detail=f"{'FAILED' if failed else 'passed'}: {detail}; {rule}",
    )
