"""The verdict of checks on a number: passed, or which of them failed. Records hold it as words, made and read here alone."""

from __future__ import annotations

from collections.abc import Iterable


def verdict_of(failed: Iterable[str]) -> str:
    """Say which checks failed, or that all passed.

    Example:
        >>> verdict_of(["noise", "zero gradients"]), verdict_of([])
        ('failed: noise, zero gradients', 'passed')
    """
    names = ", ".join(dict.fromkeys(failed))
    return f"failed: {names}" if names else "passed"


def has_failed(verdict: str) -> bool:
    """Whether a verdict is not to be trusted; no verdict (an empty one) has not failed."""
    return verdict.startswith("failed")


def failed_checks(verdicts: Iterable[str]) -> tuple[str, ...]:
    """Name every check that failed in any of these verdicts, as they come.

    Example:
        >>> failed_checks(["passed", "failed: single step, noise", "", "failed: noise"])
        ('single step', 'noise')
    """
    failed = (verdict.removeprefix("failed: ") for verdict in verdicts if has_failed(verdict))
    return tuple(dict.fromkeys(check for checks in failed for check in checks.split(", ")))
