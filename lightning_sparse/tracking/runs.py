"""Start, name, describe and end W&B runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.extras import need
from lightning_sparse.results.jobs import key_of
from lightning_sparse.results.quantities import QUANTITIES
from lightning_sparse.tables.configs import flat

if TYPE_CHECKING:
    from lightning.pytorch.loggers import WandbLogger
    from wandb import Run

MODES = ("disabled", "offline", "online")
SPARSITY, BITS = "sparsity", "bits"  # axes: the share of the connections that is dead, and of the dense float32 bits
STEP = "trainer/global_step"
# Charted against one of them: the groups of measurements, and images.
GROUPS = (*dict.fromkeys(described.group for described in QUANTITIES), "adversarial", "maps")
# Charted over the training, although they are in those groups.
CURVES = ("robust/monitor/*", "vog/rank_stability")
ID_LENGTH = 64


def job_run(
    *,
    name: str,
    project: str,
    group: str,
    folder: str | Path,
    tags: Iterable[str] = (),
    config: Mapping[str, Any] | None = None,
    compressed: bool = False,
    mode: str = "offline",
    entity: str | None = None,
    notes: str | None = None,
) -> Run | None:
    """Start or resume the run of one job.

    Its id is made from the names of the sweep and the job. A later launch that resumes the training, or measures more,
    writes another offline folder with the same id, and ``wandb sync`` appends it to the first.

    Args:
        name: the job's name, as in its records' ``run``.
        project: W&B project.
        group: what the project's charts are grouped by: the sweep and the method, without the seed.
        folder: the sweep's; the run is written to ``<folder>/wandb``, and ``wandb leet <folder>/wandb`` compares the runs
            there.
        tags: data set, model and method, to search runs by.
        config: the job's resolved settings and its identity (method, seed, ...). Nested mappings become flat keys with
            dots, so that the table of runs has a column for each.
        compressed: whether its level is one of bits, and its measurements are charted against these.
        mode: ``"offline"`` (files only, no account), ``"online"`` or ``"disabled"``.
        entity: the team or user whose project it is; None is W&B's default.
        notes: a description of the run.

    Returns:
        The run, which must be ended with :func:`finish`; None if disabled.

    Raises:
        SparsityError: if ``mode`` is not one of these, or wandb is not installed.

    Example:
        >>> job_run(name="dense-s0", project="digits", group="quick/dense", folder=".", mode="ofline")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: mode='ofline' does not exist: did you mean 'offline'? (allowed: disabled, offline, online)
    """  # noqa: E501
    sweep = Path(folder).resolve()
    run = start(
        mode,
        folder,
        id=run_id(name, sweep.name, key_of(str(sweep))),
        resume="allow",
        name=name,
        project=project,
        group=group,
        job_type="train",
        tags=tags,
        entity=entity,
        notes=notes,
        config=flat(config or {}),
    )
    if run is not None:
        # WandbLogger does this only for runs that it starts itself.
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)
        for curve in CURVES:  # before the groups: of two patterns W&B takes the first
            run.define_metric(curve, step_metric=STEP)
        define_axis(run, BITS if compressed else SPARSITY)
        run.define_metric(SPARSITY, step_metric=STEP)  # it is a curve of the training too
    return run


def lightning_logger(run: Run | None) -> WandbLogger | None:
    """Make a logger that writes a Trainer's metrics to ``run``; None if it is disabled.

    A logger that starts its own run would take over any run of the process, and set ``WANDB_MODE`` for all of it.
    """
    if run is None:
        return None
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(experiment=run, project=run.project, save_dir=run.settings.root_dir)


def finish(run: Run | None, *, failed: bool = False) -> None:
    """End a run, if it is not None; call it in a ``finally``, because the last values of a run left open are not written."""
    if run is not None:
        run.finish(exit_code=int(failed))


def start(mode: str, folder: str | Path, *, tags: Iterable[str], **about: Any) -> Run | None:
    """Start a run that records nothing about the machine; ``about`` goes to ``wandb.init``."""
    if check_choice("mode", mode, MODES) == "disabled":
        return None
    wandb = need("wandb")
    settings = wandb.Settings(
        silent=True,
        console="off",
        # Results may be shared; details of the machine should not be.
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
    # W&B refuses tags that are empty, repeated or longer than 64. "create_new" leaves the caller's own run alone.
    try:
        run: Run = wandb.init(
            **about,
            dir=str(folder),
            tags=list(dict.fromkeys(tag[:64] for tag in tags if tag)),
            mode=mode,
            reinit="create_new",
            settings=settings,
        )
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        raise SparsityError(
            f"mode={mode!r} did not reach W&B ({error}): run `wandb login` first, or write mode='offline' and upload later "
            "with `wandb sync`"
        ) from error
    return run


def define_axis(run: Run, axis: str) -> None:
    """Chart measurements against sparsity or bits."""
    run.define_metric(axis)
    for group in GROUPS:
        run.define_metric(f"{group}/*", step_metric=axis)


def on_axis(sparsity: float, compressed: bool) -> dict[str, float]:
    """Where a level lies, as it is logged: what is compressed at its bits.

    Example:
        >>> on_axis(0.75, compressed=False), on_axis(0.75, compressed=True)
        ({'sparsity': 0.75}, {'bits': 0.25})
    """
    return {BITS: 1 - sparsity} if compressed else {SPARSITY: sparsity}


def run_id(*names: str) -> str:
    """Make the id of a run, the same in every launch: at most 64 of letters, digits and ``._-``.

    Example:
        >>> run_id("gradual_pruning-0.9-seed0-46f14e74", "quick")
        'gradual_pruning-0.9-seed0-46f14e74-quick'
        >>> run_id("dense-seed0-3e37fc65", "my sweep")
        'dense-seed0-3e37fc65-my-sweep-496bd70b'
    """
    asked = "-".join(names)
    allowed = re.sub(r"[^A-Za-z0-9_.-]", "-", asked)
    if allowed == asked and len(asked) <= ID_LENGTH:
        return asked
    return f"{allowed[: ID_LENGTH - 9]}-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
