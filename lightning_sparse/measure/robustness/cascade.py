"""Attack after attack from the smallest eps up, each on what nothing has broken yet; then the checks of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from lightning_sparse.measure.robustness import trust_checks
from lightning_sparse.measure.robustness.attacks import attack_detail, attack_name
from lightning_sparse.measure.robustness.known import Known
from lightning_sparse.measure.robustness.sample_count import Samples
from lightning_sparse.measure.robustness.tiers import Tier
from lightning_sparse.measure.robustness.victim import CONTINUED, Victim
from lightning_sparse.measure.rows import share_row
from lightning_sparse.results.records import Record


def attack_names(asked: Sequence[str], classes: int) -> dict[str, str]:
    """Map the attacks that run, each once, to the one asked for: with few classes another stands in for DLR.

    Example:
        >>> attack_names(["pgd", "apgd-dlr", "apgd-t"], classes=3)
        {'pgd': 'pgd', 'pgd-margin': 'apgd-dlr'}
    """
    names: dict[str, str] = {}
    for name in asked:
        names.setdefault(attack_name(name, classes), name)
    return names


def cascade(
    victim: Victim,
    correct: Tensor,
    radii: Sequence[float],
    tier: Tier,
    names: dict[str, str],
    samples: Samples,
    progress: bool,
    known: Known,
) -> tuple[list[Record], Tensor, list[list[int]]]:
    """Run every attack at every eps.

    Args:
        victim: what is attacked.
        correct: (n,), bool, right on clean.
        radii: eps, ascending.
        tier: steps and restarts.
        names: attacks that run, and what each was asked for as.
        samples: the running count.
        progress: show a bar.
        known: what is known at other eps.

    Returns:
        Rows; which images are left at each eps (n, radii), bool; and how many are left after each attack at each eps.
    """
    standing = correct.clone()
    survives: list[Tensor] = []
    counts: list[list[int]] = []
    rows: list[Record] = []
    n, order = len(correct), " > ".join(names)
    with tqdm(total=len(radii) * len(names), desc="attacks", disable=not progress, leave=False) as bar:
        for radius in radii:
            counts.append([])
            for stood in known.standing(radius):
                standing &= stood
            for name, wanted in names.items():
                bar.set_postfix_str(f"{name} at {radius:.4g}, {int(standing.sum())} of {n} left")
                places = standing.nonzero().squeeze(1)
                walks = {"steps": tier.steps, "restarts": tier.restarts}
                broken = victim.broken_by(name, places, eps=radius, onward=name in CONTINUED, **walks)
                standing[places[broken]] = False
                detail = attack_detail(
                    name,
                    norm=victim.norm,
                    steps=tier.steps,
                    restarts=tier.restarts,
                    seed=victim.seed,
                    classes=victim.classes,
                )
                detail += f"; what survives it and all before it in {order}, at this and every smaller eps of this call"
                if name in CONTINUED:
                    detail += "; at a larger eps the first start is where the walk at the smaller one ended"
                if name != wanted:
                    detail += f"; in place of {wanted}, which needs 4 classes, not {victim.classes}"
                if name == "fab-t":
                    detail += "; run once, at the smallest eps: the distances that it finds answer for every eps"
                counts[-1].append(int(standing.sum()))
                rows.append(_row(victim, name, radius, counts[-1][-1], n, samples.since(), detail))
                bar.update()
            survives.append(standing.clone())
            detail = (
                f"{victim.norm}, per image worst of {order} at this and every smaller eps of this call, {tier.steps} steps, "
                f"seed {victim.seed}; the last attack's row again, so it cost nothing of its own"
            )
            detail += known.in_words(radius, standing)
            rows.append(_row(victim, "worst", radius, counts[-1][-1], n, 0, detail))
    return rows, torch.stack(survives, dim=1), counts


def checked(
    victim: Victim,
    correct: Tensor,
    radii: Sequence[float],
    survives: Tensor,
    counts: list[list[int]],
    tier: Tier,
    samples: Samples,
    progress: bool,
    known: Known,
) -> list[Record]:
    """Make every check of :mod:`~lightning_sparse.measure.robustness.trust_checks` that was not made before.

    Square runs at the eps whose robust accuracy is nearest half of clean: again only if that is one of ``radii``.

    Args:
        victim: what was attacked.
        correct: (n,), bool, right on clean.
        radii: eps, ascending.
        survives: (n, radii), bool, what the cascade left.
        counts: how many are left after each attack at each eps.
        tier: what the cascade ran.
        samples: the running count.
        progress: show a bar.
        known: what is known at other eps.

    Returns:
        One ``trust_`` row for each check, at each eps where it is of one eps.
    """
    rows = []
    left = [column.nonzero().squeeze(1) for column in survives.T]
    here, half = dict(zip(radii, left, strict=True)), int(correct.sum()) / 2
    stand = {eps: int(column.sum()) for eps, column in known.survives.items()}
    stand |= {eps: len(survivors) for eps, survivors in here.items()}
    middle = min(sorted(stand), key=lambda eps: abs(stand[eps] - half))
    made = {(row.metric, row.eps) for row in known.rows}
    with tqdm(total=4 * len(radii) + 4, desc="checks", disable=not progress, leave=False) as bar:

        def add(row: Record) -> None:
            rows.append(replace(row, samples=samples.since()))
            bar.update()

        for radius, survivors, count in zip(radii, left, counts, strict=True):
            add(trust_checks.single_step(victim, survivors, radius))
            add(trust_checks.noise(victim, survivors, radius))
            add(trust_checks.losses_agree(victim, list(tier.attacks), count, radius))
            add(trust_checks.steps_converge(victim, survivors, radius, tier))
        if middle in here and ("trust_black_box", middle) not in made:
            add(trust_checks.black_box(victim, here[middle], middle, tier))
        if ("trust_to_zero", None) not in made:
            add(trust_checks.zero_gradients(victim, correct.nonzero().squeeze(1)))
            add(trust_checks.deterministic(victim))
            add(trust_checks.to_zero(victim, left[-1], tier))
    return rows


def _row(victim: Victim, attack: str, eps: float, robust: int, n: int, samples: int, detail: str) -> Record:
    setting: dict[str, Any] = {"attack": attack, "norm": victim.norm, "eps": eps, "samples": samples, "detail": detail}
    return share_row("robust_accuracy", robust, n, **setting)
