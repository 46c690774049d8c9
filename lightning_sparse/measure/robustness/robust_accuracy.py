"""Adversarial robustness as a worst case: for each image or text, over all attacks and all smaller perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.errors import SparsityError, check_choices, check_count, check_seed
from lightning_sparse.measure.advice import with_setting
from lightning_sparse.measure.classifier import as_classifier, check_gradient, logits_of
from lightning_sparse.measure.images_and_labels import Data, images_and_labels
from lightning_sparse.measure.robustness.attacked_model import AttackedModel
from lightning_sparse.measure.robustness.cascade import attack_names, cascade, checked
from lightning_sparse.measure.robustness.known import read_known
from lightning_sparse.measure.robustness.of_pixels import OfPixels, of_pixels
from lightning_sparse.measure.robustness.of_synonyms import OfSynonyms, of_synonyms
from lightning_sparse.measure.robustness.of_vectors import OfVectors, of_vectors
from lightning_sparse.measure.robustness.radii import check_inputs, check_radii
from lightning_sparse.measure.robustness.sample_count import counted
from lightning_sparse.measure.robustness.threat import WITHOUT_GRADIENT, Threat
from lightning_sparse.measure.robustness.tiers import Tier, check_tier
from lightning_sparse.measure.robustness.trust import OF_THE_MODEL, verdict
from lightning_sparse.measure.rows import mean_row
from lightning_sparse.measure.smaller_batches import smaller_batches
from lightning_sparse.results.records import Measured, Record

THREATS: dict[str, type[Threat]] = {
    "Linf": OfPixels,
    "L2": OfPixels,
    "embedding": OfVectors,
    "synonyms": OfSynonyms,
}


@smaller_batches
def measure_robustness(
    model: nn.Module,
    data: Data,
    *,
    eps: Sequence[float],
    norm: str = "Linf",
    tier: str = "sweep",
    attacks: Sequence[str] | None = None,
    steps: int | None = None,
    restarts: int | None = None,
    batch_size: int = 256,
    seed: int = 0,
    progress: bool = False,
    known: Measured | None = None,
    synonyms: Mapping[int, Sequence[int]] | None = None,
) -> Measured:
    """Measure robust accuracy: the share of all images (or texts) that are right on clean and under every attack.

    From the smallest eps up, and at each eps in their order, each attack gets only the images that are right on clean and
    not broken yet: what breaks in a ball is broken in every larger one. So an attack's row says what is left after it and
    all before it, and the last attack's row is the worst case.

    Args:
        model: pixels in [0, 1] to logits, see :func:`~lightning_sparse.measure.as_classifier`; it is left as it was.
        data: ``(images, labels)`` of shapes (n, C, H, W), floats in [0, 1], and (n,), integers in [0, classes); or a loader
            of such batches. In the norms of texts tokens (n, length), integers, 0 at the end of a text and 1 for an unknown
            word.
        eps: radii: in (0, 1] for L-inf, in units of [0, 1]; positive for L2 and ``"embedding"``; in (0, 1] for
            ``"synonyms"``.
        norm: of images ``"Linf"`` or ``"L2"``. Of texts ``"embedding"``: their words' vectors are moved, together by an L2
            length of eps times their mean length times the square root of the number of words (after Miyato et al. 2017); or
            ``"synonyms"``: at most a share eps of the words is replaced by synonyms, greedily (PWWS, Ren et al. 2019).
        tier: ``"monitor"``, ``"sweep"`` or ``"reference"``, see :data:`~lightning_sparse.measure.TIERS`.
        attacks: names from :data:`~lightning_sparse.measure.ATTACKS` in place of the tier's. Include two losses: large
            logits alone make cross-entropy's gradient vanish, which looks like robustness. With fewer than 4 classes
            ``"pgd-margin"`` replaces attacks on DLR, and the record says so. In ``"embedding"`` there are ``"fgsm"``,
            ``"pgd"``, ``"pgd-margin"`` and ``"noise"``; in ``"synonyms"`` ``"pwws"``, ``"greedy-margin"`` (the same, by the
            logit margin) and ``"noise"``. They likewise stand in for a tier's others.
        steps: gradient steps in place of the tier's.
        restarts: random starts of PGD in place of the tier's.
        batch_size: images per batch; 128 to 256 is fastest on a CPU.
        seed: of the random starts and samples.
        progress: show a bar on stderr.
        known: what this function returned for the same model, images and settings at other eps. Nothing is attacked again
            at those, and their rows stay as they are. At a new eps, what broke at a smaller known one counts as broken
            without an attack, and PGD starts anew. Checks of the model are not repeated, except Square where a new eps is
            the one whose robust accuracy is nearest half of clean.
        synonyms: for ``norm="synonyms"``: for the number of a word those of its synonyms, such as
            :meth:`TextData.synonyms() <lightning_sparse.data.TextData.synonyms>`.

    Returns:
        Records: for each eps, ascending, a ``robust_accuracy`` of each attack and one of ``attack="worst"``, with Wilson
        intervals; ``robust_curve_area``, the area under the worst case over eps from 0 (clean) to the largest, divided by
        the largest, with a normal interval; ``robust_eps_half``, the eps at which the worst case falls to half of clean,
        interpolated, NaN if it does not; in ``"synonyms"``, ``robust_unknown_words`` and ``robust_replaceable_words``, shares
        of all words; and the ``trust_`` rows of the checks. ``trust`` of each number is their verdict
        on it. ``samples`` adds up to all images that went through the model. Arrays: ``labels`` (n,), ``correct`` (n,),
        bool, right on clean; ``survives`` (n, len(eps)), bool; ``eps`` (len(eps),).

    Raises:
        SparsityError: if an argument, the images, the labels or the model's outputs are not what they should be.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        >>> data = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> measured = measure_robustness(model, data, eps=[0.1, 1.0], tier="monitor")
        >>> [record.chart for record in measured.records]  # doctest: +NORMALIZE_WHITESPACE
        ['robust/pgd/eps=0.1', 'robust/worst/eps=0.1', 'robust/pgd/eps=1', 'robust/worst/eps=1',
         'robust/curve_area/worst', 'robust/eps_half/worst']
    """
    seed = check_seed(seed)
    radii, chosen = check_radii(eps, norm), _tier(tier, norm, attacks)
    chosen = replace(
        chosen,
        steps=chosen.steps if steps is None else check_count("steps", steps, write=20),
        restarts=chosen.restarts if restarts is None else check_count("restarts", restarts),
    )
    if synonyms is not None and norm != "synonyms":
        raise SparsityError(f"synonyms= are of norm='synonyms', and norm={norm!r}: leave one out")
    if known is not None and not isinstance(known, Measured):
        raise SparsityError(f"known={type(known).__name__} is not what measure_robustness returned: leave it out")
    images, labels = images_and_labels(data)
    classifier = as_classifier(model)
    with untouched(classifier, seed), counted(classifier) as samples:
        logits = logits_of(classifier, images, labels, batch_size=batch_size)
        check_inputs(images, norm, radii[-1])
        threat = _threat(norm, classifier, images, synonyms)
        _check_gradient(classifier, images, chosen, threat)
        targets = labels.cpu().long()
        correct = logits.argmax(dim=1) == targets
        clean_pass = samples.since()
        names = attack_names(chosen.attacks, logits.shape[1], type(threat))
        chosen = replace(chosen, attacks=tuple(names))
        attacked = AttackedModel(classifier, images, targets, logits.shape[1], threat, seed, batch_size)
        before = read_known(known, targets)
        new = [radius for radius in radii if radius not in before.survives]
        rows: list[Record] = []
        made: list[Record] = []
        stand = dict(before.survives)
        if new:
            rows, survives, standing = cascade(attacked, correct, new, chosen, names, samples, progress, before)
            stand |= zip(new, survives.T, strict=True)
            if chosen.checks:
                made = checked(attacked, correct, new, survives, standing, chosen, samples, progress, before)
    kept = [row for row in before.rows if row.eps in radii or row.metric in OF_THE_MODEL]
    checks = [*(row for row in kept if row.metric.startswith("trust_")), *made]
    rows = [replace(row, trust=verdict(checks, row.eps)) for row in rows]
    rows += [row for row in kept if row.metric == "robust_accuracy"]
    survives = torch.stack([stand[radius] for radius in radii], dim=1)
    area, half = _curve(correct.numpy(), survives.numpy(), radii, norm)
    curve = [replace(area, trust=verdict(checks), samples=clean_pass), replace(half, trust=verdict(checks))]
    arrays = {
        "labels": targets.numpy(),
        "correct": correct.numpy(),
        "survives": survives.numpy(),
        "eps": np.array(radii),
    }
    return Measured([*sorted(rows, key=lambda row: row.eps or 0.0), *curve, *threat.rows(images), *checks], arrays)


def _tier(tier: str, norm: str, attacks: Sequence[str] | None) -> Tier:
    chosen = check_tier(tier)
    if attacks is None:
        return chosen
    return replace(chosen, attacks=tuple(check_choices("attacks", attacks, THREATS[norm].attacks)))


def _threat(norm: str, classifier: nn.Module, inputs: Tensor, synonyms: object) -> Threat:
    if norm == "synonyms":
        return of_synonyms(norm, classifier, inputs, synonyms)
    return of_vectors(norm, classifier, inputs) if norm == "embedding" else of_pixels(norm, inputs)


def _curve(correct: np.ndarray, survives: np.ndarray, radii: list[float], norm: str) -> tuple[Record, Record]:
    """Make the two rows about the whole curve of the worst case; ``correct`` (n,) and ``survives`` (n, radii), bool."""
    grid = np.array([0.0, *radii])
    # With known=, an earlier call may have missed in a ball what a later one found in a smaller ball.
    nested = np.logical_and.accumulate(np.column_stack([correct, survives]), axis=1)
    missed = int((survives & ~nested[:, 1:]).sum())
    curves = nested.astype(float)
    # One area per image: their mean is the area under the mean curve, and their spread its interval.
    areas = ((curves[:, 1:] + curves[:, :-1]) / 2 * np.diff(grid)).sum(axis=1) / grid[-1]
    n, mean = len(curves), curves.mean(axis=0)
    over = f"worst-case robust accuracy at eps 0 (clean), {', '.join(f'{radius:.4g}' for radius in radii)}"
    if missed:
        over += f" (less {missed} that stood at an eps in one call and broke at a smaller one in another)"
    area = mean_row(
        "robust_curve_area",
        areas,
        attack="worst",
        norm=norm,
        detail=f"trapezoid under {over}, divided by {radii[-1]:.4g}; its samples are the clean pass",
    )
    below = np.flatnonzero(mean <= mean[0] / 2)
    crossing = float("nan")
    what = f"eps at which {over} falls to half of clean, by linear interpolation"
    if mean[0] == 0:
        what += "; undefined: nothing is right on clean"
    elif len(below) == 0:
        what += f"; undefined: {mean[-1]:.4g} is left at the largest eps, more than half of {mean[0]:.4g}"
    else:
        right = int(below[0])
        share = (mean[right - 1] - mean[0] / 2) / (mean[right - 1] - mean[right])
        crossing = float(grid[right - 1] + share * (grid[right] - grid[right - 1]))
    return area, Record("robust_eps_half", crossing, n, attack="worst", norm=norm, detail=what)


def try_attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str,
    tier: str = "monitor",
    attacks: Sequence[str] | None = None,
) -> None:
    """Raise a SparsityError if a model cannot be attacked in this way, by trying it on a few images or texts."""
    chosen = _tier(tier, norm, attacks)
    classifier = as_classifier(model)
    with untouched(classifier):
        check_inputs(images, norm, eps)
        logits_of(classifier, images, labels)
        _check_gradient(classifier, images, chosen, _threat(norm, classifier, images, {}))


def _check_gradient(classifier: nn.Module, images: Tensor, tier: Tier, threat: Threat) -> None:
    if (set(tier.attacks) <= WITHOUT_GRADIENT and not tier.checks) or "zero_gradients" in threat.unmade:
        return
    blind = "square" if threat.words is None else "noise"
    attacks, monitor = with_setting("attack", "attacks", f"['{blind}']"), with_setting("attack", "tier", "'monitor'")
    check_gradient(
        classifier, images, f"write {attacks} with {monitor} for an attack without gradients, or " if attacks else ""
    )
