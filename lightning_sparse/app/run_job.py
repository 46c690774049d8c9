"""Run one job: build its objects, train, measure, and log to W&B."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from omegaconf import DictConfig

from lightning_sparse import tracking
from lightning_sparse.anatomy.isolation import fork_random_states
from lightning_sparse.app.build import build, build_callbacks, build_dense, build_model, masks_of_zeros
from lightning_sparse.app.compress_job import check_reach, compressed
from lightning_sparse.app.dense_parent import take_dense
from lightning_sparse.app.hydra_parts import plain
from lightning_sparse.app.measuring.kind import LANGUAGE
from lightning_sparse.app.measuring.measure_job import measure_job
from lightning_sparse.app.measuring.measurements import Measurement, check_measurements
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.small_dense import sparsity_of_small
from lightning_sparse.app.train import check_classifier, check_language_model, counted_sparsity, survival, train
from lightning_sparse.callbacks.predict_weights import PredictWeights
from lightning_sparse.callbacks.trainer.private import spawns_its_ranks
from lightning_sparse.errors import SparsityError
from lightning_sparse.measure.advice import COMMAND_LINE, advice_for
from lightning_sparse.results.jobs import Job, since
from lightning_sparse.results.records import in_a_line


def run_job(config: DictConfig, job: Job, measurements: list[Measurement]) -> str:
    """Train and measure the job that ``config`` describes, as far as that is not done, and return its results in a line."""
    start = time.monotonic()
    _quiet()
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config.data, "data")
    check_measurements(measurements, data, config.task)
    model = build_model(config)
    if config.task == LANGUAGE:
        check_language_model(model, data)
    else:
        check_classifier(model, data, measurements)
    check_reach(config, model)
    take_dense(config, job)
    asked = {measurement.kind: measurement.settings for measurement in measurements}
    following = {kind.name: kind.callback(settings, data) for kind, settings in asked.items() if kind.callback}
    callbacks = build_callbacks(config, following.values())
    # Bars of several jobs at once would garble each other.
    alone = HydraConfig.get().launcher._target_.endswith("BasicLauncher")
    bar = config.trainer.enable_progress_bar and alone and sys.stdout.isatty()
    run = _wandb_run(config, job)
    failed = True
    try:
        trainer = _trainer(config, job, callbacks, tracking.lightning_logger(run), bar)
        _refuse_script_ddp(trainer)
        predicting = [callback for callback in callbacks if isinstance(callback, PredictWeights)]
        masks = train(job, model, data, trainer, [*following.values(), *predicting])
        sparsity = (predicting[0].sparsity or 0.0) if predicting else counted_sparsity(model, masks)
        if config.sparsity.get("small"):
            sparsity = sparsity_of_small(config, model)
        coded, device = None, trainer.strategy.root_device
        if job.compressed:
            model, coded = compressed(config, job, model.to(device), data)
            masks, sparsity = masks_of_zeros(model), 1.0 - coded.share
        untrained, dense = (partial(_untrained, make, config) for make in (build_model, build_dense))
        trained = Trained(model, masks, data, device, following, coded, untrained, dense, config.task)
        with advice_for(COMMAND_LINE):
            rows = measure_job(job, trained, sparsity, measurements, progress=bar)
        tracking.log_job(run, job, masks)
        stored = job.stored() or job  # has the objective, and the time that earlier launches took
        (job.folder / "traceback.txt").unlink(missing_ok=True)  # of an earlier try
        stored.save(status="done", error="", seconds=round(stored.seconds + since(start), 2))
        failed = False
    finally:
        tracking.finish(run, failed=failed)
    return f"{in_a_line(rows)} ({since(start):.0f} s)"


def _untrained(make: Callable[[DictConfig], LightningModule], config: DictConfig) -> LightningModule:
    with fork_random_states(config.seed):
        return make(config)


def _wandb_run(config: DictConfig, job: Job) -> Any:
    if config.logger.kind != "wandb":
        return None
    return tracking.job_run(
        name=job.run,
        project=config.logger.project,
        group=f"{config.name}/{job.method}",
        folder=job.folder.parent,  # all runs of a sweep in one folder, so that `wandb leet` compares them
        tags=[job.data, job.model, job.method, *map(str, config.logger.get("tags") or [])],
        entity=config.logger.get("entity"),
        notes=config.logger.get("notes"),
        config={**plain(config), "run": job.run, "method": job.method, "sparsity_asked": job.sparsity_asked},
        compressed=job.compressed,
        mode=config.logger.mode,
    )


def _trainer(config: DictConfig, job: Job, callbacks: list[Any], wandb_logger: Any, bar: bool) -> Trainer:
    logger = wandb_logger or (_csv_logger(job) if config.logger.kind == "csv" else False)
    # Under submitit a job is a single Slurm task, but Lightning would take the ranks that it spawns for Slurm's tasks.
    plugins = {} if "plugins" in config.trainer else {"plugins": [LightningEnvironment()]}
    trainer: Trainer = build(
        config.trainer,
        "trainer",
        callbacks=[*callbacks, *([JobBar(process_position=1)] if bar else []), *survival(job)],
        logger=logger,
        **plugins,
        default_root_dir=job.folder,
        enable_progress_bar=bar,
        enable_checkpointing=True,  # our own, and those among the callbacks that a user adds
    )
    return trainer


class JobBar(TQDMProgressBar):
    """A progress bar that is cleared when the training ends."""

    def init_train_tqdm(self) -> Tqdm:
        """Called by Lightning."""
        bar = super().init_train_tqdm()
        bar.leave = False
        return bar


def _csv_logger(job: Job) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    # Lightning deletes the curves that it finds, so a training that is resumed writes into another folder.
    parts = 1 + len(list(job.folder.glob("curves*"))) if job.half_done.exists() else 1
    return CSVLogger(job.folder, name="", version="curves" if parts == 1 else f"curves-{parts}")


def _refuse_script_ddp(trainer: Trainer) -> None:
    """Each rank that DDP starts by script would run the whole command, and wait for the lock of the first."""
    if trainer.world_size > 1 and not spawns_its_ranks(trainer):
        raise SparsityError(
            "trainer.strategy starts the command again for each device, and each would run all of it: write "
            "trainer.strategy=ddp_spawn, or trainer.devices=1 for one device per job"
        )


def _quiet() -> None:
    """Silence what Lightning prints for every Trainer; not earlier, because it sets its own level when it is imported."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # lightning 2.6 with torch 2.15
        "The '.*_dataloader' does not have many workers",  # our loaders hold their data in memory
        "You're resuming from a checkpoint that ended before the epoch ended",  # EpochCheckpoint goes on where it ended
        "The `srun` command is available",  # submitit starts a sweep's jobs
        "The number of training batches .* is smaller than the logging interval",
    ):
        warnings.filterwarnings("ignore", message=message)
