"""One W&B run for a whole sweep."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_sparse.errors import check_choice
from lightning_sparse.results.jobs import key_of
from lightning_sparse.tracking.charts import charted, charts, slashed
from lightning_sparse.tracking.runs import BITS, MODES, SPARSITY, define_axis, finish, on_axis, run_id, start

if TYPE_CHECKING:
    import pandas as pd
    import wandb
    from wandb import Run

    from lightning_sparse.results.arrays import Arrays
    from lightning_sparse.results.jobs import Job
    from lightning_sparse.tables.collect import Sweep

NUMBERS = ("records.csv", "table.csv")
Points = dict[float, dict[str, Any]]


def summary_run(
    sweep: Sweep,
    *,
    project: str,
    mode: str = "offline",
    tags: Iterable[str] = (),
    entity: str | None = None,
    notes: str | None = None,
) -> None:
    """Log a whole sweep as one run, after its report is written.

    It holds all records and the summary as tables, the charts of :func:`~lightning_sparse.tracking.charts.charts`, the
    figures of the report, and ``records.csv``, ``table.csv`` and ``report.html`` as an artifact. One point per level has
    the means of every method, and the same images at every level, for the slider of an image panel. Its group is the
    sweep's name, its job type ``summary``. Its id is the same in every launch, so that the last upload counts. Offline,
    nothing is written if no number has changed.

    Args:
        sweep: as :func:`~lightning_sparse.tables.collect.collect` reads it; its report is in its folder.
        project: W&B project, the same as the jobs'.
        mode: as for :func:`~lightning_sparse.tracking.job_run`, and so are the errors.
        tags: beside those of its jobs.
        entity: as for the jobs.
        notes: as for the jobs.
    """
    if check_choice("mode", mode, MODES) == "disabled":
        return
    folder = sweep.folder
    name = run_id("summary", sweep.name, key_of(str(folder.resolve())))
    if mode == "offline" and _told_before(folder, name):
        return
    kinds = ({getattr(job, kind) for job in sweep.started} for kind in ("data", "model", "method"))
    run = start(
        mode,
        folder,
        id=name,
        name=f"{sweep.name}-summary",
        project=project,
        group=sweep.name,
        job_type="summary",
        tags=[*(tag for kind in kinds for tag in sorted(kind)), *tags],
        entity=entity,
        notes=notes,
        config={"sweep": sweep.name},
    )
    assert run is not None  # only "disabled" starts none
    failed = True
    try:
        with _staging_beside(run):
            _log(run, sweep)
        failed = False
    finally:
        finish(run, failed=failed)


def _told_before(folder: Path, name: str) -> bool:
    """Whether the newest offline run of this id has the same numbers."""
    # Their names begin with the time.
    earlier = max(folder.glob(f"wandb/offline-run-*-{name}*/artifacts"), default=None)
    try:
        return earlier is not None and all(cmp(folder / file, earlier / file, shallow=False) for file in NUMBERS)
    except OSError:
        return False


def _log(run: Run, sweep: Sweep) -> None:
    import wandb

    from lightning_sparse.tables.collect import by_subject
    from lightning_sparse.tables.gaps import holes
    from lightning_sparse.tables.levels import rounded
    from lightning_sparse.tables.table import summarise
    from lightning_sparse.tracking.artifacts import keep

    table = summarise(sweep)
    logged: dict[str, Any] = {
        "records": _table(sweep.frame),
        "table": _table(table.assign(sparsity=table["sparsity"].map(rounded))),  # table.csv has the exact sparsity
    }
    points: Points = defaultdict(dict)
    for title, part in by_subject(sweep).items():
        logged |= charts(part.averages, title, by_bits=sweep.by_bits)
        _means(points, part.averages, title)
        _images(points, part, title)
    for picture in sorted((sweep.folder / "figures").rglob("*.png")):
        logged[picture.relative_to(sweep.folder).with_suffix("").as_posix()] = wandb.Image(str(picture))
    run.log(logged)
    define_axis(run, BITS if sweep.by_bits else SPARSITY)
    for sparsity, point in sorted(points.items()):
        run.log(on_axis(sparsity, sweep.by_bits) | point)
    run.summary.update({"jobs": len(sweep.started), "holes": len(holes(sweep))})
    keep(run, "report", [sweep.folder / name for name in (*NUMBERS, "report.html")])


def _means(points: Points, averages: pd.DataFrame, title: str) -> None:
    """Add the means of every method as plain numbers, which `wandb leet` can draw."""
    for line in charted(averages).dropna(subset=["mean"]).to_dict("records"):
        points[line["sparsity_asked"]][slashed(line["chart"], title, line["method"])] = line["mean"]


def _images(points: Points, sweep: Sweep, title: str) -> None:
    """Add the same images at every level of a method, dense first, from the first seed."""
    from lightning_sparse.results.arrays import attributions
    from lightning_sparse.tracking.pictures import adversarial_pictures, images, map_pictures

    first = min(job.seed for job in sweep.started)
    jobs = sorted((job for job in sweep.started if job.seed == first), key=lambda job: job.sparsity_asked)
    for method in sorted({job.method for job in jobs} - {"dense"}) or ["dense"]:
        levels = [job for job in jobs if job.method in ("dense", method)]
        for sparsity, saved in _of_same_images(levels, "transfer"):
            points[sparsity][slashed("adversarial", title, method)] = images(adversarial_pictures(saved))
        explained = _of_same_images(levels, "saliency")
        for attribution in attributions(explained[0][1]) if explained else []:
            have = [(sparsity, saved) for sparsity, saved in explained if attribution in saved]
            count = len(have[0][1]["labels"])
            tops = [max(float(saved[attribution][i].max()) for _, saved in have) for i in range(count)]
            for sparsity, saved in have:
                shown = images(map_pictures(saved, attribution, tops))
                points[sparsity][slashed("maps", title, method, attribution)] = shown


def _of_same_images(jobs: list[Job], kind: str) -> list[tuple[float, Arrays]]:
    """Sparsity and arrays of the jobs that were measured on the same images as the sparsest."""
    from lightning_sparse.tracking.pictures import chosen

    loaded = [(job.sparsity_asked, chosen(job, kind)) for job in jobs]
    loaded = [(sparsity, saved) for sparsity, saved in loaded if saved]
    return [level for level in loaded if np.array_equal(level[1]["images"], loaded[-1][1]["images"])]


@contextmanager
def _staging_beside(run: Run) -> Iterator[None]:
    """Make W&B put its copies of tables beside the run, and not in the user's home, unless the user has chosen a folder."""
    if "WANDB_DATA_DIR" in os.environ:
        yield
        return
    os.environ["WANDB_DATA_DIR"] = str(Path(run.dir).resolve().parent)
    try:
        yield
    finally:
        del os.environ["WANDB_DATA_DIR"]


def _table(frame: pd.DataFrame) -> wandb.Table:
    import wandb

    cells = frame.astype(object).where(frame.notna(), None)
    rows: list[Iterable[Any]] = list(cells.to_numpy().tolist())
    return wandb.Table(columns=[str(name) for name in frame.columns], data=rows)
