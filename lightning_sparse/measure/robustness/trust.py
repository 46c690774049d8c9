"""Whether a robust accuracy is real or an illusion of masked gradients: the thresholds of the checks, and the verdict.

After Athalye et al. 2018, Carlini et al. 2019 and the flags of AutoAttack (Croce & Hein 2020). A network whose gradients
lead nowhere (vanished, shattered, random) resists attacks that follow them without being more robust.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_sparse.results.records import Record
from lightning_sparse.results.verdicts import has_failed, verdict_of


@dataclass(frozen=True)
class Thresholds:
    """How much a check may find before it fails; shares are of all images, in [0, 1].

    Attributes:
        single_step: broken by one step of FGSM after all attacks have failed.
        noise: broken by uniform noise after all attacks have failed.
        losses_agree: broken by the later losses where the first one has failed: the lower end of the 95 % interval.
        steps_converge: broken by 5 times the steps.
        black_box: broken by an attack without gradients; AutoAttack's own value.
        straight_through: broken by attacks whose gradients pass through what a selection of activations dropped, or are
            averaged over noise, or those of the same weights without selection, after all attacks have failed.
        zero_gradients: right images whose input gradient is exactly zero, as a share of the right ones.
        deterministic: difference of the same image's logits, as a share of the largest absolute logit (at least 1).
        images: a check that counts images fails only if there are at least this many.
        noise_of_words: broken by random synonyms after all attacks have failed. A greedy run is a heuristic: on honest
            networks random words broke up to 1 % more, on those that give their class alone and no scores 3 % and more.
    """

    single_step: float = 0.01
    noise: float = 0.002
    losses_agree: float = 0.02
    steps_converge: float = 0.01
    black_box: float = 0.002
    straight_through: float = 0.002
    zero_gradients: float = 0.01
    deterministic: float = 1e-4
    images: int = 2
    noise_of_words: float = 0.02


THRESHOLDS = Thresholds()

OF_THE_MODEL = ("trust_black_box", "trust_zero_gradients", "trust_deterministic", "trust_to_zero")
"""Checks that decide about every eps; the others decide about the eps of their row."""


def verdict(checks: Sequence[Record], eps: float | None = None) -> str:
    """Say whether a robust accuracy can be believed.

    Args:
        checks: rows of the checks, each with ``trust`` ``"passed"``, ``"failed"``, or empty where it could not be made.
        eps: the eps of the number; None for a number about the whole curve, for which every check counts.

    Returns:
        ``"passed"``, or ``"failed: "`` and the names of the checks that failed; empty if no check was made.

    Example:
        >>> rows = [
        ...     Record("trust_noise", 0.1, 100, eps=0.1, trust="failed"),
        ...     Record("trust_to_zero", 0.0, 9, trust="passed"),
        ... ]
        >>> verdict(rows, 0.1), verdict(rows, 0.2), verdict([], 0.1)
        ('failed: noise', 'passed', '')
    """
    decisive = [row for row in checks if eps is None or row.eps == eps or row.metric in OF_THE_MODEL]
    if not any(row.trust for row in decisive):
        return ""
    failed = (row.metric.removeprefix("trust_").replace("_", " ") for row in decisive if has_failed(row.trust))
    return verdict_of(failed)
