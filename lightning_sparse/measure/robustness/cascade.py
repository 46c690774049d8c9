"""One attack after another from the smallest eps up, each on the images that still stand; then checks of what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_sparse.measure.robustness import artefact_checks
from lightning_sparse.measure.robustness.attacked_model import CONTINUED, AttackedModel
from lightning_sparse.measure.robustness.known import Known
from lightning_sparse.measure.robustness.sample_count import Samples
from lightning_sparse.measure.robustness.threat import Threat, Walk
from lightning_sparse.measure.robustness.tiers import Tier
from lightning_sparse.measure.rows import share_row
from lightning_sparse.results.records import Record


def attack_names(asked: Sequence[str], classes: int, threat: type[Threat]) -> dict[str, str]:
    """Map each attack that runs to the first one asked for that it stands for, see :meth:`Threat.in_place_of`.

    Example:
        >>> from lightning_sparse.measure.robustness.of_pixels import OfPixels
        >>> attack_names(["pgd", "apgd-dlr", "apgd-t"], 3, OfPixels)
        {'pgd': 'pgd', 'pgd-margin': 'apgd-dlr'}
    """
    names: dict[str, str] = {}
    for name in asked:
        names.setdefault(threat.in_place_of(name, classes)[0], name)
    return names


def cascade(
    attacked: AttackedModel,
    correct: Tensor,
    radii: Sequence[float],
    tier: Tier,
    names: dict[str, str],
    samples: Samples,
    progress: bool,
    known: Known,
) -> tuple[list[Record], Tensor, list[list[int]]]:
    """Run the attacks, from :func:`attack_names`, at every eps of the ascending ``radii``.

    ``correct`` (n,), bool, says which images (or texts) are right on clean. Returns the rows; which are left at each eps
    (n, radii), bool; and how many are left after each attack, for each eps.
    """
    standing = correct.clone()
    survives: list[Tensor] = []
    counts: list[list[int]] = []
    rows: list[Record] = []
    n, order = len(correct), " > ".join(names)
    walks = {"steps": tier.steps, "restarts": tier.restarts}
    with tqdm(total=len(radii) * len(names), desc="attacks", disable=not progress, leave=False) as bar:
        for radius in radii:
            counts.append([])
            for stood in known.standing(radius):
                standing &= stood
            for name, wanted in names.items():
                bar.set_postfix_str(f"{name} at {radius:.4g}, {int(standing.sum())} of {n} left")
                places = standing.nonzero().squeeze(1)
                broken = attacked.broken_by(name, places, eps=radius, onward=name in CONTINUED, **walks)
                standing[places[broken]] = False
                walk = Walk(radius, tier.steps, tier.restarts, attacked.seed, None)
                detail = attacked.threat.in_words(name, walk, attacked.classes)
                detail += f"; what survives it and all before it in {order}, at this and every smaller eps of this call"
                if name in CONTINUED:
                    detail += "; at a larger eps the first start is where the walk at the smaller one ended"
                if name != wanted:
                    why = attacked.threat.in_place_of(wanted, attacked.classes)[1]
                    detail += f"; in place of {wanted}, which {why}"
                if name in attacked.threat.once:
                    detail += "; run once, at the smallest eps: the distances that it finds answer for every eps"
                counts[-1].append(int(standing.sum()))
                rows.append(_row(attacked, name, radius, counts[-1][-1], n, samples.since(), detail))
                bar.update()
            survives.append(standing.clone())
            steps = "" if "steps_converge" in attacked.threat.unmade else f"{tier.steps} steps, "
            detail = (
                f"{attacked.norm}, of each of the {attacked.what} the worst of {order} at this and every smaller eps of this "
                f"call, {steps}seed {attacked.seed}; the last attack's row again, at no cost of its own"
            )
            detail += known.in_words(radius, standing)
            rows.append(_row(attacked, "worst", radius, counts[-1][-1], n, 0, detail))
    return rows, torch.stack(survives, dim=1), counts


def checked(
    attacked: AttackedModel,
    correct: Tensor,
    radii: Sequence[float],
    survives: Tensor,
    counts: list[list[int]],
    tier: Tier,
    samples: Samples,
    progress: bool,
    known: Known,
) -> list[Record]:
    """Make every check of :mod:`~lightning_sparse.measure.robustness.artefact_checks` that was not made before.

    Square runs at the eps whose robust accuracy is nearest half of clean: again only if that is one of ``radii``.
    ``survives`` and ``counts`` are what :func:`cascade` returned. Returns one ``trust_`` row for each check and eps, or one
    in all for a check of the whole model.
    """
    rows = []
    left = [column.nonzero().squeeze(1) for column in survives.T]
    here, half = dict(zip(radii, left, strict=True)), int(correct.sum()) / 2
    stand = {eps: int(column.sum()) for eps, column in known.survives.items()}
    stand |= {eps: len(survivors) for eps, survivors in here.items()}
    middle = min(sorted(stand), key=lambda eps: abs(stand[eps] - half))
    made = {(row.metric, row.eps) for row in known.rows}
    with tqdm(total=5 * len(radii) + 4, desc="checks", disable=not progress, leave=False) as bar:

        def add(name: str, eps: float | None, check: Callable[..., Record], *of: Any) -> None:
            why = attacked.threat.unmade.get(name)
            row = artefact_checks.unmade(attacked, name, why, eps) if why else check(attacked, *of)
            rows.append(replace(row, samples=samples.since()))
            bar.update()

        for eps, survivors, count in zip(radii, left, counts, strict=True):
            add("single_step", eps, artefact_checks.single_step, survivors, eps)
            add("noise", eps, artefact_checks.noise, survivors, eps)
            add("losses_agree", eps, artefact_checks.losses_agree, list(tier.attacks), count, eps)
            add("steps_converge", eps, artefact_checks.steps_converge, survivors, eps, tier)
            add("straight_through", eps, artefact_checks.gradients_pass, survivors, eps, tier)
        if middle in here and ("trust_black_box", middle) not in made:
            add("black_box", middle, artefact_checks.black_box, here[middle], middle, tier)
        if ("trust_to_zero", None) not in made:
            add("zero_gradients", None, artefact_checks.zero_gradients, correct.nonzero().squeeze(1))
            add("deterministic", None, artefact_checks.deterministic)
            add("to_zero", None, artefact_checks.to_zero, left[-1], tier)
    return rows


def _row(attacked: AttackedModel, attack: str, eps: float, robust: int, n: int, samples: int, detail: str) -> Record:
    setting: dict[str, Any] = {
        "attack": attack,
        "norm": attacked.norm,
        "eps": eps,
        "samples": samples,
        "detail": detail,
    }
    return share_row("robust_accuracy", robust, n, **setting)
