"""Jobs that a sweep was asked for and never came to, from the overrides that its last launch wrote down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_sparse.results.jobs import Job

NOT_STARTED = "not started"
IDENTITY = ("data", "model", "method", "sparsity_asked", "seed")


def never_started(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """Describe the jobs that the last launch never came to, as far as their overrides say what they are.

    What an override does not say is taken from the sweep's jobs where they all agree on it.

    Args:
        folder: the sweep's folder.
        jobs: those that there are; a job that an earlier launch did is not missing.

    Returns:
        For each, what is known of it, with the status ``"not started"``.
    """
    from lightning_sparse.results.launches import not_started

    there = {_identity(job) for job in jobs}
    described = (_described(overrides, jobs) for overrides in not_started(folder))
    return [job for job in described if _identity(job) not in there]


def _identity(job: Job) -> tuple[str, ...]:
    return tuple(str(getattr(job, name)) for name in IDENTITY)  # as text, because NaN is no NaN's equal


def in_words(counts: dict[str, int]) -> str:
    """Say what the launches of a sweep did; empty if that was not logged.

    Example:
        >>> in_words({"launches": 2, "trained": 63, "resumed": 3, "measured": 0, "skipped": 80, "failed": 0})
        '2 launches: 63 jobs trained, 3 resumed, 80 skipped.'
    """
    launches = counts.get("launches", 0)
    if not launches:
        return ""
    names = {
        "trained": "trained",
        "resumed": "resumed",
        "measured": "only measured",
        "skipped": "skipped",
        "failed": "failed",
        "failed_before": "failed before and not tried again",
        "cut": "cut short or still running",
    }
    did = [f"{counts[name]} {says}" for name, says in names.items() if counts.get(name, 0) > 0]
    if did:
        first, _, rest = did[0].partition(" ")
        did[0] = f"{first} {'job' if first == '1' else 'jobs'} {rest}"
    return f"{launches} {'launch' if launches == 1 else 'launches'}: {', '.join(did) or 'nothing done yet'}."


def _described(overrides: list[str], jobs: Sequence[Job]) -> Job:
    said = {
        name.lstrip("+"): value.strip("'\"") for name, _, value in (override.partition("=") for override in overrides)
    }
    method = said.get("sparsity", _agreed("method", jobs, ""))
    if method == "dense":
        asked = 0.0
    else:
        of_method = [job for job in jobs if job.method == method]
        asked = _number(said.get("sparsity.final_sparsity", said.get("sparsity.sparsity", "")))
        asked = _agreed("sparsity_asked", of_method, asked) if asked != asked else asked
        method += f"-{said['label']}" if said.get("label", "null") != "null" else ""
    model = said.get("model", _agreed("model", jobs, ""))
    if "model" in said and said.get("adversarial", "none") != "none":
        model += f" ({said['adversarial']}-trained)"
    seed = _number(said.get("seed", ""))
    return Job(
        run="",
        method=method,
        data=said.get("data", _agreed("data", jobs, "")),
        model=model,
        seed=int(seed) if seed == seed else _agreed("seed", jobs, -1),
        sparsity_asked=asked,
        status=NOT_STARTED,
        error=f"the last launch did not come to it ({' '.join(overrides)})",
        seconds=float("nan"),
        version="",
    )


def _agreed(name: str, jobs: Sequence[Job], otherwise: Any) -> Any:
    found = {getattr(job, name) for job in jobs if job.status != "unreadable"}
    return found.pop() if len(found) == 1 else otherwise


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
