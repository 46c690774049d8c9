"""Hydra's own sweeper, without jobs that would repeat a training. Hydra takes sweepers from ``hydra_plugins`` alone."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override

_UNUSED = {
    **{f"{group}=none": (f"{group}.",) for group in ("activation", "augment", "steering", "weight_noise")},
    "compression=none": ("bits=", "compression."),
    "compression=half": ("bits=",),
}
"""By choice, how settings begin that it has no use for."""


class DistinctSweeper(BasicSweeper):
    """Every combination of a sweep's axes once: dense is one job for all levels and bits. Arguments as for Hydra's."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Make the overrides of each job."""
        return [distinct(batch) for batch in BasicSweeper.split_arguments(overrides, max_batch_size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing, because the app's ``SweepWatcher`` has composed all jobs before the first, and checked their settings."""


def distinct(jobs: list[list[str]]) -> list[list[str]]:
    """Leave out jobs that differ only in settings of a sparsity or an activation, or in bits, that they do not have.

    Example:
        >>> levels = [[f"sparsity={method}", f"sparsity.final_sparsity={level}"] for method in ("dense", "rigl") for level in (0.5, 0.9)]
        >>> for job in distinct(levels):
        ...     print(*job)
        sparsity=dense sparsity.final_sparsity=0.5
        sparsity=rigl sparsity.final_sparsity=0.5
        sparsity=rigl sparsity.final_sparsity=0.9
        >>> sizes = [[f"compression={name}", f"bits={bits}"] for name in ("none", "share") for bits in (0.1, 0.05)]
        >>> for job in distinct(sizes):
        ...     print(*job)
        compression=none
        compression=share bits=0.1
        compression=share bits=0.05
        >>> rules = [[f"activation={rule}", f"activation.density={share}"] for rule in ("none", "top_k") for share in (0.3, 0.1)]
        >>> len(distinct(rules))
        3
    """  # noqa: E501
    found: dict[tuple[str, ...], list[str]] = {}
    for asked in jobs:
        unused = tuple(name for choice in asked for name in _UNUSED.get(choice, ()))
        job = [part for part in asked if not part.lstrip("+").startswith(unused)]
        dense = "sparsity=dense" in job
        found.setdefault(tuple(part for part in job if not (dense and part.lstrip("+").startswith("sparsity."))), job)
    return list(found.values())
