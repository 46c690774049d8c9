"""What the jobs of a sweep were configured with: their overrides, and the settings in which they differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.results.jobs import Job
from lightning_sparse.tables.averages import LINE
from lightning_sparse.tables.not_started import NOT_STARTED

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep

SHOWN_ANYWAY = {"seed", "label", "bits", "sparsity.final_sparsity", "sparsity.sparsity"}  # in columns of their own
TRACEBACK_AT_MOST = 12_000  # characters: its end says what happened
LONG = 60  # characters of a value


def job_details(sweep: Sweep) -> list[dict[Any, Any]]:
    """The fields of every started job, with ``overrides``, the ``settings`` that differ in the sweep, and ``traceback``."""
    settings = differing(sweep.started)
    return [
        {
            **line,
            "overrides": overrides(job),
            "settings": settings.get(job.folder, {}),
            "traceback": traceback_of(job) if job.status == "failed" else "",
        }
        for job, line in zip(sweep.members, sweep.jobs.to_dict("records"), strict=True)
        if job.status != NOT_STARTED
    ]


def jobs_of(line: dict[Any, Any], details: list[dict[Any, Any]]) -> dict[str, Any]:
    """The ``jobs`` of one line of the table, each with its ``own`` settings, and the ``settings`` that all of them share."""
    jobs = [
        job for job in details if all(str(job[name]) == str(line[name]) for name in LINE)
    ]  # text, because NaN != NaN
    shared = common([job["settings"] for job in jobs])
    own = [{name: value for name, value in job["settings"].items() if name not in shared} for job in jobs]
    return {"jobs": [job | {"own": of_job} for job, of_job in zip(jobs, own, strict=True)], "settings": shared}


def overrides(job: Job) -> str:
    """The command-line overrides of a job; empty if its folder does not have them."""
    found = _yaml(job.folder / ".hydra" / "overrides.yaml")
    return " ".join(str(override) for override in found) if isinstance(found, list) else ""


def differing(jobs: Iterable[Job]) -> dict[Path, dict[str, str]]:
    """Find the settings that are not the same in all the started jobs of a sweep: dotted names and values, by job folder.

    A setting that a job does not have is left out, and so is a job without ``.hydra/config.yaml``.
    """
    settings = {}
    for job in jobs:
        config = _yaml(job.folder / ".hydra" / "config.yaml")
        if isinstance(config, dict):
            settings[job.folder] = {name: _text(value) for name, value in flat(config).items()}
    names = {name for of_job in settings.values() for name in of_job} - SHOWN_ANYWAY
    uneven = {name for name in names if len({of_job.get(name) for of_job in settings.values()}) > 1}
    return {
        folder: {name: value for name, value in of_job.items() if name in uneven} for folder, of_job in settings.items()
    }


def common(settings: list[dict[str, str]]) -> dict[str, str]:
    """The settings that all of these jobs share.

    Example:
        >>> common([{"model.lr": "0.1", "end": "0.5"}, {"model.lr": "0.1", "end": "0.7"}])
        {'model.lr': '0.1'}
    """
    first, *others = settings or [{}]
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def traceback_of(job: Job) -> str:
    """The traceback that a failed job left, or its end; empty if there is none."""
    try:
        return (job.folder / "traceback.txt").read_text(encoding="utf-8", errors="replace")[-TRACEBACK_AT_MOST:]
    except OSError:
        return ""


def _yaml(path: Path) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        # The C loader is ten times faster, and a sweep has hundreds of jobs.
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):  # missing, or torn by a kill
        return None


def flat(config: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten nested mappings; empty ones disappear.

    Example:
        >>> flat({"seed": 0, "data": {"name": "digits", "split": {"test": 0.2}}})
        {'seed': 0, 'data.name': 'digits', 'data.split.test': 0.2}
    """
    plain: dict[str, Any] = {}
    for name, value in config.items():
        within = flat(value) if isinstance(value, Mapping) else None
        plain |= {name: value} if within is None else {f"{name}.{key}": item for key, item in within.items()}
    return plain


def _text(value: Any) -> str:
    text = "null" if value is None else str(value)
    return text if len(text) <= LONG else f"{text[: LONG - 1]}…"
