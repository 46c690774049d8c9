"""Three tiers of attacks, from seconds to hours."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_sparse.errors import check_choice


@dataclass(frozen=True)
class Tier:
    """What one tier runs.

    Attributes:
        attacks: names from :data:`~lightning_sparse.measure.ATTACKS`, in the order in which they run.
        steps: gradient steps of each attack, for each target where there are targets.
        restarts: random starts of ``pgd`` and ``pgd-margin``; the others have one.
        checks: whether the number is checked for being an illusion (:mod:`lightning_sparse.measure.robustness.trust`).
        queries: of the black-box check, for each image.
        black_box_images: the most surviving images that the black-box check attacks.
        fewest: surviving images that a check on a sample takes at least; a tenth of all images if that is more.
    """

    attacks: tuple[str, ...]
    steps: int
    restarts: int = 1
    checks: bool = True
    queries: int = 500
    black_box_images: int = 50
    fewest: int = 40


TIERS: dict[str, Tier] = {
    "monitor": Tier(("pgd",), steps=10, checks=False),
    "sweep": Tier(("pgd", "apgd-dlr"), steps=20, restarts=2),
    "reference": Tier(("apgd-ce", "apgd-t", "fab-t"), steps=100, queries=5000, black_box_images=200, fewest=10),
}
"""The tiers by name: seconds while training, minutes at each level of a sweep, hours for a final table.

``reference`` is AutoAttack (Croce & Hein 2020, the published 100 steps) without Square, which takes 9/10 of the time and
hardly ever breaks what the others leave: it runs on a sample of the survivors, as a check for masked gradients.
"""


def check_tier(tier: str, name: str = "tier") -> Tier:
    """Return the tier of that name, or raise a SparsityError if there is none."""
    return TIERS[check_choice(name, tier, TIERS)]
