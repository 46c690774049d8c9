"""Layers with a sparsity of their own, and a floor under the others: an allocation with exceptions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor

from lightning_sparse.engine.allocation import Counts, Tensors, apportion, by_dimensions, by_size, globally, one_way
from lightning_sparse.engine.granularity import WEIGHTS, Granularity, whole_units
from lightning_sparse.engine.selection import counts_true
from lightning_sparse.errors import SparsityError, check_choice, check_share

# The weights by which the layers without a rule share what is left; None means one ranking of them all.
BASES: dict[str, Callable[[Tensors], dict[str, int]] | None] = {
    "global": None,
    "uniform": by_size,
    "erk": by_dimensions,
}


@dataclass(frozen=True)
class LayerRules:
    """An allocation in which some layers have a sparsity of their own, and the others share what is left.

    The total stays exact. While the network's sparsity S is below its highest value, a layer with a rule has its own
    sparsity times S over that value, so that a gradual schedule prunes it gradually too: to within two connections on the
    way, and exactly in the end.

    ``LayerRules("uniform", first=0.0)`` is RigL's uniform allocation (Evci et al. 2020, arXiv 1911.11134), and
    ``LayerRules(first=0.0, last=0.8)`` what Gale et al. 2019 (arXiv 1902.09574) found to help ResNet-50.

    Args:
        base: how the layers without a rule share what is left: ``"global"``, ``"uniform"`` or ``"erk"``.
        sparsity: final sparsity, in [0, 1), of the layers whose parameter names match a shell-style pattern.
        first: the same for the first of the parameters that are made sparse; 0.0 leaves it dense.
        last: the same for the last.
        floor: smallest density, in [0, 1], of a layer without a rule. One connection lives in any case.

    Raises:
        SparsityError: if a number is out of range.

    Example:
        A network of 1000 connections at 80 %: the head keeps half of its own, and the others 150 of their 900.

        >>> import torch
        >>> masks = {name: torch.ones(n, 10, dtype=torch.bool) for name, n in {"a": 60, "b": 30, "head": 10}.items()}
        >>> rules = LayerRules("uniform", sparsity={"head*": 0.5})
        >>> rules({}, masks, 200)
        {'a': 100, 'b': 50, 'head': 50}
        >>> rules.towards(0.8)({}, masks, 600)
        {'a': 350, 'b': 175, 'head': 75}
    """

    base: str = "global"
    sparsity: Mapping[str, float] = field(default_factory=dict)
    first: float | None = None
    last: float | None = None
    floor: float = 0.0
    _highest: float | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("base", self.base, BASES)
        if not isinstance(self.sparsity, Mapping):
            raise SparsityError(
                f"sparsity={self.sparsity!r} is not a mapping from patterns to numbers: write one such as {{'head.*': 0.5}}"
            )
        object.__setattr__(self, "sparsity", dict(self.sparsity))  # prints plainly, whatever a YAML reader made of it
        for pattern, own in self.sparsity.items():
            if not isinstance(pattern, str):
                raise SparsityError(
                    f"sparsity holds {pattern!r}, which is no pattern: write one such as {{'head.*': 0.5}}"
                )
            check_share(f"sparsity[{pattern!r}]", own, one_allowed=False)
        for name, end in (("first", self.first), ("last", self.last)):
            if end is not None:
                check_share(name, end, one_allowed=False)
        check_share("floor", self.floor)

    def towards(self, highest: float) -> LayerRules:
        """Return the same rules, scaled while the network is less sparse than ``highest``, its highest sparsity in [0, 1)."""
        rules = copy.copy(self)
        object.__setattr__(rules, "_highest", highest)
        return rules

    def check(
        self,
        parameters: Mapping[str, Tensor],
        sparsities: Sequence[float],
        granularity: Granularity = WEIGHTS,
        redistribute: bool = False,
    ) -> None:
        """Refuse before training rules that cannot be met at some of the ``sparsities``.

        Raises:
            SparsityError: if a pattern matches no parameter, two rules disagree on a layer, every layer has a rule, the
                layers without one cannot take what is left, or turnover would move connections between layers.
        """
        if redistribute:
            raise SparsityError(
                f"redistribute=True moves connections between layers, and {self!r} says how many each has: write "
                "redistribute=False, or allocation='uniform'"
            )
        sizes = {name: weight.numel() for name, weight in parameters.items()}
        units = {name: granularity.size(weight.shape) for name, weight in parameters.items()}
        total, rules = sum(sizes.values()), self.towards(max(sparsities))
        if len(rules._own(list(sizes))) == len(sizes):
            raise SparsityError(
                f"{self!r} has a rule for every layer, and none is left to make up the total: leave one out"
            )
        for value in sorted(set(sparsities), reverse=True):
            if round(value * total):  # otherwise every connection lives, and no rule applies
                rules._shares(sizes, total - round(value * total), units)

    def __call__(self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
        """Say how many connections live in each layer, as every allocation does."""
        ruled, others = self._counts(scores, masks, living, dict.fromkeys(masks, 1))
        counts = one_way(ruled, {n: masks[n] for n in ruled}) | one_way(others, {n: masks[n] for n in others})
        return {name: counts[name] for name in masks}

    def in_units(self, scores: Tensors, masks: Tensors, living: int, units: Counts) -> dict[str, int]:
        """The same where ``units[name]`` connections of a layer live or die as one, each with the score of its unit.

        Each layer's number is rounded to whole units, at least one, so the total is no longer exact; under one ranking of
        the network it is as close as whole units allow.
        """
        ruled, others = self._counts(scores, masks, living, units)
        whole = {name: whole_units(count, units[name]) * units[name] for name, count in (ruled | others).items()}
        present = counts_true(masks)
        if living < sum(present.values()):  # do not let rounding alone grow a layer: there may be no grow scores
            whole = {name: min(count, present[name]) for name, count in whole.items()}
        return {name: whole[name] for name in masks}

    def _counts(
        self, scores: Tensors, masks: Tensors, living: int, units: Counts
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Counts of the layers with a rule, in whole units, and of the others, which may not be."""
        sizes = by_size(masks)
        ruled, least, left = self._shares(sizes, living, units)
        others, share_by = {name: masks[name] for name in least}, BASES[self.base]
        if share_by is not None:
            return ruled, apportion(left, share_by(others), {name: sizes[name] for name in least}, least)
        present = counts_true(others)
        after = globally(scores, others, present, left - sum(present.values()), least)
        return ruled, counts_true(after)

    def _shares(self, sizes: Counts, living: int, units: Counts) -> tuple[dict[str, int], dict[str, int], int]:
        """Counts of the layers with a rule, least counts of the others, and how many connections are left for these."""
        total = sum(sizes.values())
        dead, target = total - living, round((self._highest or 0.0) * total)
        part, whole = (min(dead, target), target) if target else (1, 1)
        # Rounding the running sum makes what is left for the others move in one direction, as the sparsity does.
        ruled, asked, given = {}, 0, 0
        for name, own in self._own(list(sizes)).items():
            asked += round(own * sizes[name])
            dies, given = asked * part // whole - given, asked * part // whole
            ruled[name] = whole_units(sizes[name] - dies, units[name]) * units[name]
        others = [name for name in sizes if name not in ruled]
        least = {name: max(1, -(-round(self.floor * sizes[name]) // units[name])) * units[name] for name in others}
        low, high, left = sum(least.values()), sum(sizes[name] for name in others), living - sum(ruled.values())
        slack = sum(units[name] // 2 for name in ruled)  # how far rounding to units can move their sum
        if not low - slack <= left <= high + slack:
            kept = sum(ruled.values())
            least_dead, most_dead = max(0, total - kept - high), total - kept - low
            floor = f" (floor={self.floor})" if self.floor else ""
            raise SparsityError(
                f"{self!r} cannot be met at sparsity {dead / total:.6g}: of {living} living connections, {kept} are in "
                f"layers with a rule, which leaves {left} for {len(others)} others, and these have {high} and keep at least "
                f"{low}{floor}: ask for a sparsity from {-(-least_dead * 10**6 // total) / 1e6} to "
                f"{most_dead * 10**6 // total / 1e6}, or change the rules"
            )
        return ruled, least, min(max(left, low), high)

    def _own(self, names: Sequence[str]) -> dict[str, float]:
        """The final sparsity of each layer that has a rule."""
        rules = [(f"sparsity[{pattern!r}]", _matching(pattern, names), own) for pattern, own in self.sparsity.items()]
        ends = (("first", names[:1], self.first), ("last", names[-1:], self.last))
        rules += [(which, list(end), own) for which, end, own in ends if own is not None]
        found: dict[str, tuple[str, float]] = {}
        for which, theirs, own in rules:
            for name in theirs:
                before, other = found.setdefault(name, (which, own))
                if other != own:
                    raise SparsityError(
                        f"{name!r} has two rules, {before}={other} and {which}={own}: leave one of them out"
                    )
        return {name: found[name][1] for name in names if name in found}


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        close = get_close_matches(pattern, names, n=1, cutoff=0.3)
        guess = f"did you mean {close[0]!r}? " if close else ""
        raise SparsityError(
            f"sparsity[{pattern!r}] matches no parameter that is made sparse: {guess}(parameters: {', '.join(names)})"
        )
    return found
