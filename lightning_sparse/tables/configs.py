"""What the jobs of a sweep were configured with, in short: their overrides, and the settings that are not all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_sparse.results.jobs import Job

SHOWN_ANYWAY = {"seed", "label", "sparsity.final_sparsity", "sparsity.sparsity"}  # beside the settings, in every line
TRACEBACK_AT_MOST = 12_000  # characters: its end says what happened
LONG = 60  # characters of a value


def overrides(job: Job) -> str:
    """What was written on the command line for a job; empty if its folder does not tell."""
    found = _yaml(job.folder / ".hydra" / "overrides.yaml")
    return " ".join(str(override) for override in found) if isinstance(found, list) else ""


def differing(jobs: Iterable[Job]) -> dict[Path, dict[str, str]]:
    """Find the settings that are not the same in all jobs of a sweep.

    Args:
        jobs: those that were started.

    Returns:
        By folder of a job, dotted names of those settings with their values; a setting that a job does not have is left out.
        A job without ``.hydra/config.yaml`` is not in it.
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
    """The settings that some jobs share.

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
        # The loader in C takes a tenth of the time, and a sweep has hundreds of jobs.
        return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError):  # not there, or torn by a kill
        return None


def flat(config: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten nested mappings; an empty one leaves nothing.

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
