"""Hydra's own sweeper, without jobs that would repeat a training. Hydra takes sweepers from ``hydra_plugins`` alone."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override


class DistinctSweeper(BasicSweeper):
    """Every combination of a sweep's axes once: dense is one job for all levels. Arguments as for Hydra's sweeper."""

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        """Make the overrides of each job."""
        return [distinct(batch) for batch in BasicSweeper.split_arguments(overrides, max_batch_size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Nothing, because the app's ``SweepWatcher`` has composed all jobs before the first, and checked their settings."""


def distinct(jobs: list[list[str]]) -> list[list[str]]:
    """Leave out dense jobs that differ only in settings of the sparsity that they do not have.

    Example:
        >>> levels = [[f"sparsity={method}", f"sparsity.final_sparsity={level}"] for method in ("dense", "rigl") for level in (0.5, 0.9)]
        >>> for job in distinct(levels):
        ...     print(*job)
        sparsity=dense sparsity.final_sparsity=0.5
        sparsity=rigl sparsity.final_sparsity=0.5
        sparsity=rigl sparsity.final_sparsity=0.9
    """  # noqa: E501
    found: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        dense = "sparsity=dense" in job
        found.setdefault(tuple(part for part in job if not (dense and part.lstrip("+").startswith("sparsity."))), job)
    return list(found.values())
