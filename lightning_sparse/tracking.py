"""Everything that knows Weights & Biases: one run per job, one summary run per sweep, offline unless asked.

A job's run, from before training to after measurement::

    run = job_run(name="gradual-0.9-s0", project="digits", group="quick/gradual", config=config, folder=folder)
    failed = True
    try:
        Trainer(logger=lightning_logger(run) or False).fit(...)
        log_records(run, records)
        failed = False
    finally:
        finish(run, failed=failed)

With ``mode="disabled"`` the run is None, every function takes that None, and wandb need not be installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.records import Record

if TYPE_CHECKING:
    import pandas as pd
    import wandb
    from lightning.pytorch.loggers import WandbLogger
    from wandb import Run


MODES = ("disabled", "offline", "online")
AXIS = "sparsity"
# What is charted against sparsity: the groups of measurements.
GROUPS = ("clean", "robust", "trust", "saliency", "corruption", "shift", "curvature", "transfer", "difference", "cost")
CHARTED = ("clean/accuracy", "robust/worst/", "saliency/", "corruption/mean", "shift/", "curvature/", "cost/bits")


def job_run(
    *,
    name: str,
    project: str,
    group: str,
    folder: str | Path,
    tags: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    mode: str = "offline",
) -> Run | None:
    """Start the run of one job.

    Args:
        name: the job's name, as in its records' ``run``.
        project: W&B project.
        group: what the project's charts are grouped by: the sweep and the method, without the seed.
        folder: the run is written to ``<folder>/wandb``; runs that share it are compared by ``wandb leet <folder>/wandb``.
        tags: data set, model, method: what runs are searched by.
        config: the job's resolved settings and its identity (method, seed, ...); nested mappings are allowed.
        mode: ``"offline"`` (files only, no account), ``"online"`` or ``"disabled"``.

    Returns:
        The run, to be handed to the functions below, and to :func:`finish` in any case; None if disabled.

    Raises:
        SparsityError: if ``mode`` is not one of these, or wandb is not installed.

    Example:
        >>> job_run(name="dense-s0", project="digits", group="quick/dense", folder=".", mode="ofline")
        Traceback (most recent call last):
        lightning_sparse.errors.SparsityError: mode='ofline' does not exist: did you mean 'offline'? (allowed: disabled, offline, online)
    """  # noqa: E501
    run = _start(mode, folder, name=name, project=project, group=group, job_type="train", tags=tags, config=config)
    if run is not None:
        # WandbLogger declares its step only for runs that it starts itself.
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        _define_axis(run)
    return run


def lightning_logger(run: Run | None) -> WandbLogger | None:
    """Make a logger that writes a Trainer's metrics to ``run``; None for a run that is disabled.

    The logger is given the run and starts none of its own: it would take over whatever run the process has, and it
    sets ``WANDB_MODE`` for the whole process.
    """
    if run is None:
        return None
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(experiment=run, project=run.project, save_dir=run.settings.root_dir)


def log_records(run: Run | None, records: Iterable[Record]) -> None:
    """Log what was measured of one job as a single point on the sparsity axis, and into the run's summary.

    Args:
        run: the job's run; None does nothing.
        records: the job's records, all of one sparsity. NaN is left out; of two rows of one chart the later counts.
    """
    records = list(records)
    values = {record.chart: record.value for record in records}
    point = {chart: value for chart, value in values.items() if not isnan(value)}
    if run is None or not point:
        return
    point[AXIS] = records[-1].sparsity
    # One call: with an axis of one's own W&B drops values that come at another step than their axis.
    run.log(point)
    run.summary.update(point)


def finish(run: Run | None, *, failed: bool = False) -> None:
    """End a run, in a ``finally``: a run left open keeps its last values from the disk.

    Args:
        run: the run; None does nothing.
        failed: whether W&B shall show it as failed.
    """
    if run is not None:
        run.finish(exit_code=int(failed))


def summary_run(folder: str | Path, *, project: str, mode: str = "offline") -> None:
    """Log a whole sweep as one run, after its report is written: the form that needs no clicking in W&B.

    It holds every record and the summary as tables, line charts over density with one line per method, the means of every
    method as one point per sparsity, every figure of the report as an image, and ``records.csv`` as an artifact. Its
    group is the sweep's name, its job type ``summary``.

    Args:
        folder: the sweep's folder, where :func:`lightning_sparse.report.write_report` has been.
        project: W&B project, the same as the jobs'.
        mode: as for :func:`job_run`.

    Raises:
        SparsityError: as for :func:`job_run`, and if the folder holds no report.
    """
    if check_choice("mode", mode, MODES) == "disabled":
        return
    from lightning_sparse.report.collect import by_subject, collect
    from lightning_sparse.report.gaps import holes
    from lightning_sparse.report.table import over_seeds, summarise

    folder = Path(folder)
    sweep = collect(folder)
    if not (folder / "report.html").exists():
        raise SparsityError(f"folder={str(folder)!r} holds no report.html: call write_report(folder) first")
    run = _start(
        mode,
        folder,
        name=f"{sweep.name}-summary",
        project=project,
        group=sweep.name,
        job_type="summary",
        tags=[name for kind in ("data", "model", "method") for name in sorted(set(sweep.jobs[kind]))],
        config={"sweep": sweep.name},
    )
    assert run is not None  # only "disabled" starts none
    failed = True
    try:
        import wandb

        logged: dict[str, Any] = {
            "records": _table(sweep.frame),
            "table": _table(summarise(sweep.frame, sweep.jobs)),
        }
        averages = {title: over_seeds(part.frame) for title, part in by_subject(sweep).items()}
        for title, of_part in averages.items():
            logged |= _charts(of_part, title)
        for picture in sorted((folder / "figures").rglob("*.png")):
            logged[picture.relative_to(folder).with_suffix("").as_posix()] = wandb.Image(str(picture))
        run.log(logged)
        _define_axis(run)
        for point in _points(averages):
            run.log(point)
        run.summary.update({"jobs": len(sweep.jobs), "holes": len(holes(sweep.frame, sweep.jobs))})
        artifact = wandb.Artifact(f"{re.sub(r'[^A-Za-z0-9_.-]', '-', sweep.name)}-records", type="records")
        # "immutable": sent from where it lies, where "mutable" leaves a copy in the user's home.
        artifact.add_file(str(folder / "records.csv"), policy="immutable")
        run.log_artifact(artifact)
        failed = False
    finally:
        finish(run, failed=failed)


def _start(
    mode: str, folder: str | Path, *, tags: Iterable[str], config: Mapping[str, Any] | None, **identity: Any
) -> Run | None:
    if check_choice("mode", mode, MODES) == "disabled":
        return None
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise SparsityError(
            f'mode={mode!r} needs wandb, which is not installed: pip install "lightning-sparse[wandb]", or write '
            'mode="disabled"'
        ) from error
    settings = wandb.Settings(
        silent=True,
        console="off",
        # Results are shared more freely than the machines they were made on.
        host="",
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )
    Path(folder).mkdir(parents=True, exist_ok=True)
    # W&B refuses tags that are empty, doubled or longer than 64. "create_new" leaves a run of the caller's alone.
    try:
        return wandb.init(
            **identity,
            config=dict(config or {}),
            dir=str(folder),
            tags=list(dict.fromkeys(tag[:64] for tag in tags if tag)),
            mode="online" if mode == "online" else "offline",
            reinit="create_new",
            settings=settings,
        )
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        raise SparsityError(
            f"mode={mode!r} did not reach W&B ({error}): run `wandb login` first, or write mode='offline' and upload later "
            "with `wandb sync`"
        ) from error


def _define_axis(run: Run) -> None:
    run.define_metric(AXIS)
    for group in GROUPS:
        run.define_metric(f"{group}/*", step_metric=AXIS)


def _points(averages: Mapping[str, pd.DataFrame]) -> list[dict[str, float]]:
    """One point per sparsity, the means of every method: plain numbers, which `wandb leet` draws too."""
    points: dict[float, dict[str, float]] = {}
    for title, lines in averages.items():
        for line in lines.dropna(subset=["mean"]).to_dict("records"):
            if line["chart"].startswith(CHARTED):
                name = "/".join(part for part in (line["chart"], title, line["method"]) if part)
                points.setdefault(line["sparsity_asked"], {})[name] = line["mean"]
    return [{AXIS: sparsity} | point for sparsity, point in sorted(points.items())]


def _table(frame: pd.DataFrame) -> wandb.Table:
    import wandb

    cells = frame.astype(object).where(frame.notna(), None)
    rows: list[Iterable[Any]] = list(cells.to_numpy().tolist())
    return wandb.Table(columns=[str(name) for name in frame.columns], data=rows)


def _charts(averages: pd.DataFrame, title: str) -> dict[str, Any]:
    """Line charts against density, one line per method; dense is a level line."""
    import wandb

    charts = {}
    for chart, lines in averages.dropna(subset=["mean"]).groupby("chart"):
        if not str(chart).startswith(CHARTED):
            continue
        sparse = lines[lines["method"] != "dense"].sort_values("sparsity_asked")
        series = {
            str(method): (list(1 - line["sparsity_asked"]), list(line["mean"]))
            for method, line in sparse.groupby("method")
        }
        for level in lines.loc[lines["method"] == "dense", "mean"]:
            across = sorted({1 - sparsity for sparsity in sparse["sparsity_asked"]} | {1.0})
            series["dense"] = (across, [level] * len(across))
        charts["/".join(part for part in ("charts", title, str(chart)) if part)] = wandb.plot.line_series(
            xs=[x for x, _ in series.values()],
            ys=[y for _, y in series.values()],
            keys=list(series),
            title=f"{chart}, mean over seeds" + (f" ({title})" if title else ""),
            xname="density",
        )
    return charts
