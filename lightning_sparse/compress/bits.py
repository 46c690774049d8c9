"""Find the argument of a step by the size that the network is to have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_sparse.compress.draft import Draft
from lightning_sparse.compress.network_code import DENSE_BITS, encode_draft, ideal_bits
from lightning_sparse.compress.steps.prune import Prune
from lightning_sparse.compress.steps.step import Step
from lightning_sparse.errors import OutOfReachError, SparsityError

_LOOKS = 14  # at a range of numbers: to one part in 16,000
_ROUNDS = 4  # in which the ideal code is corrected by real bytes
_NEAR = 0.99  # of the size asked for: near enough


def found_at(bits: float, step: Step, later: Sequence[Step], draft: Draft, numbers: int) -> Step:
    """The step with the largest argument at which the network takes no more than ``bits`` of the dense one, untrained.

    The ideal code, which is quick and nearly monotonous, is bisected; real bytes then say how far it was off.

    Raises:
        OutOfReachError: if even the smallest takes more; it names what that takes.
    """
    budget = target = bits * DENSE_BITS * numbers
    settings, best = step.settings(draft), None
    tried: dict[Any, tuple[float, float]] = {}
    for _ in range(_ROUNDS):
        value = _largest(settings, lambda v, most=target: _ideal(step.at(v), later, draft) <= most)
        if value not in tried:
            try:
                made = _made(step.at(value), later, draft)
            except SparsityError:  # too small a share for any rank
                if best is not None:
                    break
                least = _least(step, settings, draft)
                takes = 8 * len(encode_draft(_made(least, later, draft), numbers)[0]) / (DENSE_BITS * numbers)
                if takes > bits:
                    raise _out_of_reach(bits, step, takes) from None
                return least
            tried[value] = ideal_bits(made), 8 * len(encode_draft(made, numbers)[0])
        ideal, real = tried[value]
        if real <= budget and (best is None or real > tried[best][1]):
            best = value
        if _NEAR * budget <= real <= budget:
            break
        target = budget * ideal / real
    if best is None:
        smallest = min(real for _, real in tried.values()) / (DENSE_BITS * numbers)
        raise _out_of_reach(bits, step, smallest)
    found: Step = step.at(best)
    return found


def check_reachable(bits: float, steps: Sequence[Step], draft: Draft, numbers: int) -> None:
    """Raise before a training where even the smallest setting of the free step takes too much, as far as first weights tell.

    Args:
        bits: the share of the dense network that is asked for.
        steps: all of them, one free.
        draft: the untrained network, which the steps before the free one change.
        numbers: floating-point numbers of the dense network.

    Raises:
        OutOfReachError: if the smallest takes more than 1.1 of ``bits``: trained weights may take a little less.
    """
    for place, step in enumerate(steps):
        later = steps[place + 1 :]
        if step.free:
            try:
                made = _made(step.at(step.settings(draft)[0]), later, draft)
            except SparsityError:  # too small a share for any rank: sizes go by ranks, which first weights have too
                found_at(bits, step, later, draft, numbers)
                return
            smallest = 8 * len(encode_draft(made, numbers)[0]) / (DENSE_BITS * numbers)
            if smallest > 1.1 * bits:
                raise _out_of_reach(bits, step, smallest)
            return
        if isinstance(step, Prune) and step.method is not None:  # what it leaves is known when it has trained
            return
        step.apply(draft)


def _out_of_reach(bits: float, step: Step, smallest: float) -> OutOfReachError:
    return OutOfReachError(
        f"bits={bits} cannot be reached by {type(step).__name__}: the smallest found takes {smallest:.4f} of the dense "
        f"network; write bits={_rounded_up(smallest)}, or add a step such as Prune(0.9)"
    )


def _largest(settings: Sequence[Any] | tuple[float, float], fits: Any) -> Any:
    """The last setting that fits, or the first if none does."""
    if isinstance(settings, tuple):
        smallest, largest = settings
        if fits(largest):
            return largest
        for _ in range(_LOOKS):
            middle = (smallest + largest) / 2
            smallest, largest = (middle, largest) if fits(middle) else (smallest, middle)
        return smallest
    below, above = 0, len(settings)
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if fits(settings[middle]) else (below, middle)
    return settings[below]


def _least(step: Step, settings: Any, draft: Draft) -> Step:
    """The step with the smallest share at which every layer has a rank."""
    refused, taken = settings
    for _ in range(_LOOKS):
        middle = (refused + taken) / 2
        try:
            _made(step.at(middle), (), draft)
            taken = middle
        except SparsityError:
            refused = middle
    least: Step = step.at(taken)
    return least


def _made(step: Step, later: Sequence[Step], draft: Draft) -> Draft:
    made = draft.copy()
    for each in (step, *later):
        each.apply(made)
    return made


def _ideal(step: Step, later: Sequence[Step], draft: Draft) -> float:
    try:
        return ideal_bits(_made(step, later, draft))
    except SparsityError:  # too small a share for any rank
        return 0.0


def _rounded_up(share: float) -> float:
    return float(f"{1.01 * share:.2g}") if float(f"{1.01 * share:.2g}") >= share else float(f"{1.06 * share:.2g}")
