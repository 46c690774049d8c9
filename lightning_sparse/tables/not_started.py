"""Jobs that a sweep's last launch was asked for and never started, from the overrides that it logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_sparse.results.jobs import Job
from lightning_sparse.results.launches import not_started

NOT_STARTED = "not started"
IDENTITY = ("data", "model", "method", "sparsity_asked", "seed")


def never_started(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """Describe the jobs that the last launch never started, and that are not among ``jobs`` from an earlier launch.

    What their overrides do not say is taken from the sweep's ``jobs`` if these all agree on it.
    """
    existing = {_identity(job) for job in jobs}
    described = (_described(overrides, jobs) for overrides in not_started(folder))
    return [job for job in described if _identity(job) not in existing]


def _identity(job: Job) -> tuple[str, ...]:
    return tuple(str(getattr(job, name)) for name in IDENTITY)  # as text, because NaN != NaN


def _described(overrides: list[str], jobs: Sequence[Job]) -> Job:
    said = {
        name.lstrip("+"): value.strip("'\"") for name, _, value in (override.partition("=") for override in overrides)
    }
    agreed = _agreed("method", jobs, "")
    label = f"-{said['label']}" if said.get("label", "null") != "null" else ""
    method = "dense" if said.get("compression") == "none" and "sparsity" not in said else said.get("sparsity", agreed)
    if method == "dense" and said.get("compression", "none") == "none":
        asked = 0.0
    elif said.get("compression", "none") != "none":
        method = said["compression"] + label
        asked = 1.0 - _number(said.get("bits", ""))
        asked = (
            _agreed("sparsity_asked", [job for job in jobs if job.method == method], asked) if asked != asked else asked
        )
    else:
        of_method = [job for job in jobs if job.method == method]
        asked = _number(said.get("sparsity.final_sparsity", said.get("sparsity.sparsity", "")))
        asked = _agreed("sparsity_asked", of_method, asked) if asked != asked else asked
        method += label
    model = said.get("model", _agreed("model", jobs, ""))
    if "model" in said and said.get("adversarial", "none") != "none":
        model += f" ({said['adversarial']}-trained)"
    if "model" in said and said.get("weight_noise", "none") != "none":
        model += f" ({said['weight_noise']}-trained)"
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
        compressed=said.get("compression", "none") != "none",
    )


def _agreed(name: str, jobs: Sequence[Job], otherwise: Any) -> Any:
    found = {getattr(job, name) for job in jobs if job.status != "unreadable"}
    return found.pop() if len(found) == 1 else otherwise


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
