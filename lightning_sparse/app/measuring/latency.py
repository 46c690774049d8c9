"""How long a trained network takes beside the dense one, as it is and in the forms it is exported in, and their bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lightning_sparse import measure
from lightning_sparse.app.measuring.export_forms import FORMS, Exported, bytes_of
from lightning_sparse.app.measuring.kind import Kind, Settings
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import counts, or_null
from lightning_sparse.errors import SparsityError, check_count
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Measured, Record

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightning_sparse.engine.masks import Masks

FEW = 16  # images that an export is tried and checked on where nothing is timed


def _sizes(name: str, value: Any) -> None:
    counts(None, "[1,128]")(name, value)
    for size in value:
        check_count(name, size, 1, most=2**16)


def _seconds(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise SparsityError(f"{name}={value!r} is not a number in (0, 3600]: write {name}=2.0")


def _settings(config: Settings) -> Settings | None:
    """The group ``latency`` if it asks for times, and the forms to export, in whatever order they were asked for."""
    group, forms = config.get("latency", {}), sorted(set(config.get("export") or []))
    timed = group if group.get("batch_sizes") else {}
    return {**timed, "export": forms} if timed or forms else None


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    shortly = {"batch_sizes": [1], "seconds": 1e-3} if settings.get("batch_sizes") else {}
    with TemporaryDirectory() as folder:
        _measured(model, None, few[0], dict(settings) | shortly, Path(folder))


def _measure(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
    (key,) = missing
    images, _ = trained.test({})
    dense = trained.dense().to(trained.device) if trained.dense else None
    yield key, _measured(trained.model, trained.masks, images, settings, job.folder, dense)


def _measured(
    model: nn.Module,
    masks: Masks | None,
    images: Tensor,
    settings: Settings,
    folder: Path,
    dense: nn.Module | None = None,
) -> Measured:
    from lightning_sparse.measure.description.latency import copy_of

    example = images[: max(settings.get("batch_sizes") or [FEW])]
    exported = {name: FORMS[name](model, masks, example, folder) for name in settings["export"]}
    sizes = (
        {"model": Exported(bytes_of(model), says="as trained: every weight and buffer")} | exported if exported else {}
    )
    rows = [Record(f"cost_size_{name}", form.bytes, 0, detail=form.says) for name, form in sizes.items()]
    if settings.get("batch_sizes"):
        modules = {name: form.module for name, form in exported.items() if form.module is not None}
        batches, seconds = settings["batch_sizes"], settings["seconds"]
        baseline = copy_of(model) if dense is None else dense
        found = measure.measure_latency({"model": model, **modules}, example, batches, baseline, seconds=seconds)
        beside = jobs_at_once()
        rows += [replace(row, detail=f"{row.detail}; {beside}") if beside else row for row in found.records]
    return Measured(rows)


def jobs_at_once() -> str:
    """How many jobs of this sweep run on this machine at the same time, as far as the launcher says; empty outside Hydra."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ""
    launcher = HydraConfig.get().launcher
    if str(launcher.get("_target_")).endswith("BasicLauncher"):
        return "one job at a time"
    if "n_jobs" not in launcher:
        return "how many jobs ran on this machine is not known"
    asked, cores = launcher.n_jobs or 1, os.cpu_count() or 1
    return f"up to {asked if asked > 0 else max(1, cores + 1 + asked)} jobs at once on this machine"


LATENCY = Kind(
    "latency",
    settings=_settings,
    values={"batch_sizes": or_null(_sizes), "seconds": _seconds},
    switch="batch_sizes",
    try_on=_try,
    measure=_measure,
)
