"""Layers with a sparsity of their own, and a floor under the others: an allocation with exceptions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase

from torch import Tensor

from lightning_sparse.engine.allocation import (
    apportion,
    by_dimensions,
    by_size,
    globally,
    one_way,
)
from lightning_sparse.engine.granularity import WEIGHTS, Granularity, whole_units
from lightning_sparse.engine.selection import count_true
from lightning_sparse.errors import SparsityError, check_choice, check_share

# What the layers without a rule share by; None is the one ranking of all of them.
BASES: dict[str, Callable[[Mapping[str, Tensor]], dict[str, float]] | None] = {
    "global": None,
    "uniform": by_size,
    "erk": by_dimensions,
}


@dataclass(frozen=True)
class LayerRules:
    """An allocation in which some layers have a sparsity of their own, and the others share what is left.

    The total stays exact. While the sparsity S of the network is on its way to its highest value, a layer with a rule has
    its own times S over that value, so that a gradual schedule prunes it gradually too: to within two connections on the
    way, and exactly in the end.

    ``LayerRules("uniform", first=0.0)`` is RigL's uniform allocation (Evci et al. 2020, arXiv 1911.11134), and
    ``LayerRules(first=0.0, last=0.8)`` what Gale et al. 2019 (arXiv 1902.09574) found to help ResNet-50.

    Args:
        base: how the layers without a rule share what is left: ``"global"``, ``"uniform"`` or ``"erk"``.
        sparsity: shell-style patterns on parameter names, with the sparsity of those layers in the end, in [0, 1).
        first: the same for the first of the parameters that are made sparse; 0.0 leaves it dense.
        last: the same for the last.
        floor: smallest density, in [0, 1], that a layer without a rule may fall to, as a share of its own connections. One
            connection lives in any case.

    Raises:
        SparsityError: if a number is out of range.

    Example:
        A network of 1000 connections at 80 %: the head keeps half of its own, so that the others have 150 left of 900.

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
                f"sparsity={self.sparsity!r} is no mapping: write {{'head.*': 0.5}}, pattern by pattern"
            )
        object.__setattr__(self, "sparsity", dict(self.sparsity))  # plain to print, whatever a YAML reader made of it
        for pattern, own in self.sparsity.items():
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
        """Refuse rules that cannot be met, before training.

        Args:
            parameters: what is made sparse, by name, in order.
            sparsities: every value that the sparsity goes to or starts from.
            granularity: what lives or dies as one.
            redistribute: whether turnover moves connections between layers.

        Raises:
            SparsityError: if a pattern matches nothing, two rules disagree on a layer, every layer has one, the layers
                without one cannot take what is left, or turnover would move what the rules hold.
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
            if round(value * total):  # else everything lives, and no rule is asked
                rules._shares(sizes, total - round(value * total), units)

    def __call__(self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int) -> dict[str, int]:
        """Say how many connections live in each layer, as every allocation does."""
        ruled, others = self._counts(scores, masks, living, dict.fromkeys(masks, 1))
        counts = one_way(ruled, {n: masks[n] for n in ruled}) | one_way(others, {n: masks[n] for n in others})
        return {name: counts[name] for name in masks}

    def in_units(
        self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int, units: Mapping[str, int]
    ) -> dict[str, int]:
        """The same where connections live or die in units.

        The number of each layer is rounded to whole units, at least one, so that the total is no longer exact; under one
        ranking of the network it is as near as whole units come.

        Args:
            scores: as ever, but every connection has the score of its unit.
            masks: as ever.
            living: how many connections shall live in all.
            units: how many connections of each layer are one unit.
        """
        ruled, others = self._counts(scores, masks, living, units)
        whole = {name: whole_units(count, units[name]) * units[name] for name, count in (ruled | others).items()}
        present = {name: count_true(mask) for name, mask in masks.items()}
        if living < sum(present.values()):  # rounding alone lets no layer grow here: there may be no grow scores
            whole = {name: min(count, present[name]) for name, count in whole.items()}
        return {name: whole[name] for name in masks}

    def _counts(
        self, scores: Mapping[str, Tensor], masks: Mapping[str, Tensor], living: int, units: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Counts of the layers with a rule, and of the others; of these in whole units only if the base gives them so."""
        sizes = {name: mask.numel() for name, mask in masks.items()}
        ruled, least, left = self._shares(sizes, living, units)
        others, share_by = {name: masks[name] for name in least}, BASES[self.base]
        if share_by is not None:
            return ruled, apportion(left, share_by(others), {name: sizes[name] for name in least}, least)
        present = {name: count_true(mask) for name, mask in others.items()}
        after = globally(scores, others, present, left - sum(present.values()), least)
        return ruled, {name: count_true(mask) for name, mask in after.items()}

    def _shares(
        self, sizes: Mapping[str, int], living: int, units: Mapping[str, int]
    ) -> tuple[dict[str, int], dict[str, int], int]:
        """Counts of the layers with a rule, least counts of the others, and how many are left for those."""
        total = sum(sizes.values())
        dead, target = total - living, round((self._highest or 0.0) * total)
        part, whole = (min(dead, target), target) if target else (1, 1)
        # Rounded as a running sum, so that what is left moves in one direction, as the sparsity does.
        ruled, asked, given = {}, 0, 0
        for name, own in self._own(list(sizes)).items():
            asked += round(own * sizes[name])
            dies, given = asked * part // whole - given, asked * part // whole
            ruled[name] = whole_units(sizes[name] - dies, units[name]) * units[name]
        others = [name for name in sizes if name not in ruled]
        least = {name: max(1, -(-round(self.floor * sizes[name]) // units[name])) * units[name] for name in others}
        low, high, left = sum(least.values()), sum(sizes[name] for name in others), living - sum(ruled.values())
        slack = sum(units[name] // 2 for name in ruled)  # what rounding to units can take from them or give to them
        if not low - slack <= left <= high + slack:
            kept = sum(ruled.values())
            least_dead, most_dead = max(0, total - kept - high), total - kept - low
            floor = f" (floor={self.floor})" if self.floor else ""
            raise SparsityError(
                f"{self!r} cannot be met at sparsity {dead / total:.6g}: of {living} connections that live, {kept} are in "
                f"layers with a rule, which leaves {left} for {len(others)} others, and these hold {high} and keep at least "
                f"{low}{floor}: ask for a sparsity from {-(-least_dead * 10**6 // total) / 1e6} to "
                f"{most_dead * 10**6 // total / 1e6}, or change the rules"
            )
        return ruled, least, min(max(left, low), high)

    def _own(self, names: Sequence[str]) -> dict[str, float]:
        """The sparsity in the end of each layer that has a rule."""
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
            f"sparsity[{pattern!r}] matches nothing that is made sparse: {guess}(parameters: {', '.join(names)})"
        )
    return found
