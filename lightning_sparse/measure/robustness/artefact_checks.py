"""Checks that a robust accuracy is not an artefact of the measurement, made on the images or texts that the attacks left.

Each fails where it finds more than its threshold, see :mod:`lightning_sparse.measure.robustness.trust`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.anatomy.isolation import device_of
from lightning_sparse.anatomy.selecting import hooks_that_select, selecting, straight_through, without_selection
from lightning_sparse.measure.classifier import batches
from lightning_sparse.measure.input_gradient import logits_and_leaf
from lightning_sparse.measure.robustness.attacked_model import AttackedModel
from lightning_sparse.measure.robustness.threat import Threat
from lightning_sparse.measure.robustness.tiers import Tier
from lightning_sparse.measure.robustness.trust import THRESHOLDS
from lightning_sparse.results.records import Record
from lightning_sparse.statistics.intervals import wilson

NOISE_DRAWS = 3
MORE_STEPS = 5
SMOOTHING_DRAWS = 8
_LARGEST_SAMPLE = 100
_COMPARED_IMAGES = 128  # by their logits, for determinism


def sample(attacked: AttackedModel, places: Tensor, least: int, most: int) -> Tensor:
    """Draw some of ``places`` with the seed of ``attacked``: a tenth of the number of images, clipped to [least, most]."""
    count = min(most, max(least, len(attacked.images) // 10))
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(attacked.seed))
    return places[order[:count].sort().values]


def single_step(attacked: AttackedModel, survivors: Tensor, eps: float) -> Record:
    """FGSM must not break what the cascade could not: one step is the weaker attack."""
    broken = int(attacked.broken_by("fgsm", survivors, eps=eps, steps=1).sum())
    return _counted(attacked, "single_step", broken, survivors, survivors, eps, "FGSM", THRESHOLDS.single_step)


def noise(attacked: AttackedModel, survivors: Tensor, eps: float) -> Record:
    """Random points of the ball must not break what the cascade could not."""
    broken = int(attacked.broken_by("noise", survivors, eps=eps, steps=NOISE_DRAWS).sum())
    how = f"{NOISE_DRAWS} random draws"
    return _counted(attacked, "noise", broken, survivors, survivors, eps, how, attacked.threat.noise_limit)


def losses_agree(attacked: AttackedModel, names: list[str], standing: list[int], eps: float) -> Record:
    """Later attacks must not break much that the first could not. ``standing`` is the count left after each attack."""
    n, broken = len(attacked.images), standing[0] - standing[-1]
    if len(names) == 1:
        detail = f"{names[0]} is the only attack; steps converge looks at the margin loss"
        return _row(attacked, "losses_agree", float("nan"), 0, detail, THRESHOLDS.losses_agree, eps=eps)
    # Some losses are simply better, so a few more break on honest networks too: the lower end counts.
    surely = wilson(broken, n)[0]
    later = ", ".join(names[1:])
    detail = (
        f"{later} broke {broken} of {standing[0]} that {names[0]} had left, as a share of all {n} {attacked.what}; the lower "
        f"end of its 95 % interval, {surely:.4g}, is what counts"
    )
    limit = THRESHOLDS.losses_agree
    row = _row(attacked, "losses_agree", surely, standing[0], detail, limit, broken=broken, of=n, eps=eps)
    return replace(row, value=broken / n)


def steps_converge(attacked: AttackedModel, survivors: Tensor, eps: float, tier: Tier) -> Record:
    """Many more steps, on a loss that does not depend on the scale of the logits, must not break more."""
    some, more = sample(attacked, survivors, tier.fewest, _LARGEST_SAMPLE), MORE_STEPS * tier.steps
    broken = int(attacked.broken_by("pgd-margin", some, eps=eps, steps=more).sum())
    how = f"PGD on the margin with {more} steps"
    return _counted(attacked, "steps_converge", broken, some, survivors, eps, how, THRESHOLDS.steps_converge)


class _Smoothed(nn.Module):
    """A classifier whose logits are its own, and whose gradients are means over points half of eps around the input."""

    def __init__(self, classifier: nn.Module, eps: float, threat: Threat) -> None:
        super().__init__()
        self.classifier, self.reach, self.threat = classifier, eps / 2, threat

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits (n, classes) of pixels (n, C, H, W) or tokens (n, length)."""
        with torch.no_grad():
            exact: Tensor = self.classifier(inputs)
        if not torch.is_grad_enabled():
            return exact
        draws = [self.threat.around(self.classifier, inputs, self.reach) for _ in range(SMOOTHING_DRAWS)]
        mean = torch.stack(draws).mean(dim=0)
        return exact + (mean - mean.detach())


class _Unselected(nn.Module):
    """A classifier whose gradients are those of the same weights without the hooks that select."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, inputs: Tensor) -> Tensor:
        """Give the logits (n, classes) of pixels (n, C, H, W) or tokens (n, length)."""
        with torch.no_grad():
            exact: Tensor = self.classifier(inputs)
        if not torch.is_grad_enabled():
            return exact
        with without_selection(self.classifier):
            dense: Tensor = self.classifier(inputs)
        return exact + (dense - dense.detach())


def gradients_pass(attacked: AttackedModel, survivors: Tensor, eps: float, tier: Tier) -> Record:
    """Where activations are selected, attacks must not break more once their gradients see what was dropped.

    A selection jumps, and its backward pass sees the winners alone: a loser whose rise would change the class has no
    gradient. So PGD on the margin goes again over ``survivors``, first straight through the selection, then with gradients
    that are means over noise, which is how Tramer et al. 2020 (arXiv 2002.08347) broke k-winners-take-all, then with those of
    the same weights without any selection.
    """
    if not selecting(attacked.classifier):
        detail = "not applicable: nothing in the model selects activations"
        return _row(attacked, "straight_through", float("nan"), 0, detail, THRESHOLDS.straight_through, eps=eps)
    walks: dict[str, Any] = {"eps": eps, "steps": tier.steps, "restarts": tier.restarts}
    with straight_through(attacked.classifier):
        broken = attacked.broken_by("pgd-margin", survivors, **walks)
    how = f"PGD on the margin, straight through the selection ({int(broken.sum())}),"
    others: dict[str, nn.Module] = {
        f"with gradients averaged over {SMOOTHING_DRAWS} draws of noise": _Smoothed(
            attacked.classifier, eps, attacked.threat
        )
    }
    if hooks_that_select(attacked.classifier):
        others["with those of the same weights that select nothing"] = _Unselected(attacked.classifier)
    for name, other in others.items():
        more = replace(attacked, classifier=other).broken_by("pgd-margin", survivors[~broken], **walks)
        broken[~broken] = more
        how += f" then {name} ({int(more.sum())}),"
    found = int(broken.sum())
    return _counted(attacked, "straight_through", found, survivors, survivors, eps, how, THRESHOLDS.straight_through)


def black_box(attacked: AttackedModel, survivors: Tensor, eps: float, tier: Tier) -> Record:
    """An attack without gradients must not break what those with gradients could not.

    It takes a sample of the survivors; all of them where activations are selected, because there gradients fail.
    """
    everything = bool(selecting(attacked.classifier))
    some = survivors if everything else sample(attacked, survivors, tier.fewest, tier.black_box_images)
    broken = int(attacked.broken_by("square", some, eps=eps, steps=tier.queries // 50).sum())
    how = f"Square with {tier.queries} queries, at the eps whose robust accuracy is nearest half of clean,"
    return _counted(attacked, "black_box", broken, some, survivors, eps, how, THRESHOLDS.black_box)


def zero_gradients(attacked: AttackedModel, right: Tensor) -> Record:
    """Few images that are ``right`` on clean may have a gradient of exactly zero, which leaves attacks no direction."""
    zero = 0
    for _, images, labels in attacked.batches(right):
        logits, leaf = logits_and_leaf(attacked.classifier, images, attacked.threat.words)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), leaf)
        zero += int((gradient == 0).flatten(1).all(dim=1).sum())
    share = zero / len(right) if len(right) else float("nan")
    detail = f"gradient of cross-entropy exactly 0 at {zero} of the {len(right)} {attacked.what} right on clean"
    return _row(
        attacked, "zero_gradients", share, len(right), detail, THRESHOLDS.zero_gradients, broken=zero, of=len(right)
    )


def deterministic(attacked: AttackedModel) -> Record:
    """The same image must have the same logits: a second time, in another order, and among other images."""
    classifier = attacked.classifier
    count = min(_COMPARED_IMAGES, len(attacked.images))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(attacked.seed))

    def logits(places: Tensor, size: int) -> Tensor:
        images = attacked.images[places.to(attacked.images.device)]
        with torch.no_grad():
            return torch.cat([classifier(part).cpu() for (part,) in batches(size, device_of(classifier), images)])

    first, again = logits(torch.arange(count), count), logits(torch.arange(count), count)
    mixed = torch.empty_like(first)
    mixed[order] = logits(order, count // 3 + 1)
    scale = max(1.0, float(first.abs().max()))
    value = max(float((other - first).abs().max()) for other in (again, mixed)) / scale
    detail = (
        f"largest difference of a logit of {count} {attacked.what}, run twice and among others (permuted, in batches of "
        f"{count // 3 + 1}), as a share of the largest logit"
    )
    training = [name or type(module).__name__ for name, module in classifier.named_modules() if module.training]
    if training:
        detail += f"; fails for being in training mode after eval(): {', '.join(training)}"
    return _row(
        attacked, "deterministic", value, count, detail, THRESHOLDS.deterministic, of=count, failed=bool(training)
    )


def to_zero(attacked: AttackedModel, survivors: Tensor, tier: Tier) -> Record:
    """Where any image (any word) is allowed, the attacks must win: no more than guessing can be left."""
    left = some = sample(attacked, survivors, tier.fewest, _LARGEST_SAMPLE)
    eps, n = attacked.threat.everything(attacked.images), len(attacked.images)
    for name in tier.attacks:
        left = left[~attacked.broken_by(name, left, eps=eps, steps=tier.steps, restarts=tier.restarts)]
    share = len(left) / len(some) * len(survivors) / n if len(some) else 0.0
    chance = max(1 / attacked.classes, float(attacked.labels.bincount().max()) / n)
    detail = (
        f"at eps {eps:g}, where anything is allowed, {', '.join(tier.attacks)} left {len(left)} of a sample of {len(some)} "
        f"of the {len(survivors)} survivors of the largest eps, scaled to all {n} {attacked.what}; guessing the "
        "commonest class"
    )
    if len(some) and chance == 1.0:  # no accuracy is above it
        detail = f"not enough {attacked.what}: all {n} are of one class, which guessing always finds; {detail}"
        return Record("trust_to_zero", share, len(some), norm=attacked.norm, detail=detail)
    return _row(attacked, "to_zero", share, len(some), detail, chance)


def unmade(attacked: AttackedModel, name: str, why: str, eps: float | None) -> Record:
    """The row of a check that means nothing for what is attacked."""
    return _row(attacked, name, math.nan, 0, why, math.nan, eps=eps)


def _counted(
    attacked: AttackedModel, name: str, broken: int, some: Tensor, survivors: Tensor, eps: float, how: str, limit: float
) -> Record:
    """Make the row of a check that broke some of the survivors, or of a sample of them, scaled up to all."""
    n = len(attacked.images)
    value = broken / len(some) * len(survivors) / n if len(some) else 0.0
    seen = "the" if len(some) == len(survivors) else f"a sample of {len(some)} of the"
    detail = f"{how} broke {broken} of {seen} {len(survivors)} survivors, as a share of all {n} {attacked.what}"
    return _row(attacked, name, value, len(some), detail, limit, broken=broken, of=n, eps=eps)


def _row(
    attacked: AttackedModel,
    name: str,
    value: float,
    n: int,
    detail: str,
    limit: float,
    *,
    broken: int | None = None,
    of: int | None = None,
    eps: float | None = None,
    failed: bool = False,
) -> Record:
    """Make a row that fails above ``limit``; where ``broken`` counts images, only from ``THRESHOLDS.images`` on.

    ``of`` is the number of images that the value is a share of, or says something about. With fewer than
    ``THRESHOLDS.images`` a check could not have failed, whatever it found: it has not passed, there are not enough images.
    """
    row = Record(f"trust_{name}", value, n, norm=attacked.norm, eps=eps)
    if math.isnan(value):  # nothing to look at
        return replace(row, detail=f"not made: {detail}")
    could_fail = failed or of is None or of >= THRESHOLDS.images or (broken is None and value > limit)
    if not could_fail:
        least = f"it had {of}, and fails from {THRESHOLDS.images} on"
        return replace(row, detail=f"not enough {attacked.what}: {least}; {detail}")
    rule = f"fails above {limit:.4g}"
    if broken is not None:
        rule += f", from {THRESHOLDS.images} {attacked.what} on"
    if failed or (value > limit and (broken is None or broken >= THRESHOLDS.images)):
        return replace(row, trust="failed", detail=f"FAILED: {detail}; {rule}")
    return replace(row, trust="passed", detail=f"passed: {detail}; {rule}")
