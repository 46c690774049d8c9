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
    """Name every check that failed in any of these verdicts, in the order of the alphabet.

    Example:
        >>> failed_checks(["passed", "failed: noise, zero gradients", "", "failed: noise"])
        ('noise', 'zero gradients')
    """
    failed = (verdict.removeprefix("failed: ") for verdict in verdicts if has_failed(verdict))
    return tuple(sorted({check for checks in failed for check in checks.split(", ")}))
