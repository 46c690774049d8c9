"""The verdict of the checks on a number, which records hold as words: only this module writes and reads those words."""

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
    """Whether any check failed; an empty verdict (no check was made) has not failed."""
    return verdict.startswith("failed")


def failed_checks(verdicts: Iterable[str]) -> tuple[str, ...]:
    """Name every check that failed in any of these verdicts, in order of appearance.

    Example:
        >>> failed_checks(["passed", "failed: single step, noise", "", "failed: noise"])
        ('single step', 'noise')
    """
    failed = (verdict.removeprefix("failed: ") for verdict in verdicts if has_failed(verdict))
    return tuple(dict.fromkeys(check for checks in failed for check in checks.split(", ")))
