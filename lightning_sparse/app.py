"""Everything that knows Hydra: the task of one job, named sweeps, and what happens when a sweep has ended."""

from __future__ import annotations

import gc
import logging
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from lightning_sparse.__main__ import named_sweeps
from lightning_sparse.controls import with_controls
from lightning_sparse.errors import SparsityError
from lightning_sparse.jobs import Job, job_of, since
from lightning_sparse.records import in_a_line
from lightning_sparse.wanted import Measurement, measurements


class NamedSweeps(SearchPathPlugin):
    """Makes the files in ``sweeps/`` primary configurations: ``lightning-sparse -cn NAME``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder that ships with this package."""
        search_path.append("lightning_sparse", "pkg://lightning_sparse.sweeps")


class SweepWatcher(Callback):
    """Notes in the launching process that a sweep has begun, where it writes, and how many jobs it has."""

    folder: Path | None = None
    logger: dict[str, Any] | None = None
    jobs: int = 0

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        SweepWatcher.folder = Path(config.hydra.sweep.dir)
        SweepWatcher.logger = _plain(config.logger)
        axes = [f"{name}={value}" for name, value in (config.hydra.sweeper.get("params") or {}).items()]
        overrides = OverridesParser.create().parse_overrides([*axes, *config.hydra.overrides.task])
        lengths = {o.key_or_group: len(list(o.sweep_iterator())) if o.is_sweep_override() else 1 for o in overrides}
        SweepWatcher.jobs = 1
        for length in lengths.values():
            SweepWatcher.jobs *= length
        print(f"{SweepWatcher.folder}: {SweepWatcher.jobs} jobs", flush=True)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _job(config: DictConfig, choices: Any) -> Job:
    names = ("data", "model", "sparsity", "trainer", "callbacks", "seed", "label", "adversarial", "vog")
    plain = {name: _plain(config[name]) for name in names}
    return job_of(plain, choices, Path(config.output) / config.name)


def _job_folder(*, _root_: DictConfig) -> str:
    return _job(_root_, _root_.hydra.runtime.choices).run


def _methods(*names: str, _root_: DictConfig) -> str:
    """The methods of a sweep, beside dense; with ``controls=true`` beside all controls."""
    return with_controls(*names) if _root_.controls else ",".join(["dense", *names])


# What decides which measurements a job makes, and their keys.
MEASURED = ("data", "attack", "saliency", "stability", "transfer", "cost", "vog", "batchnorm")

Plugins.instance().register(NamedSweeps)
OmegaConf.register_new_resolver("named_sweeps", lambda: ", ".join(named_sweeps()), replace=True)
OmegaConf.register_new_resolver("methods", _methods, replace=True)
OmegaConf.register_new_resolver("product", lambda a, b: a * b, replace=True)
OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True, use_cache=False)


def run() -> None:
    """The command: Hydra runs the jobs, and the report is written even if some of them failed."""
    try:
        task()
    finally:
        # Not in Hydra's on_multirun_end, which it leaves out after a failure.
        if SweepWatcher.folder is not None and SweepWatcher.folder.exists():
            from lightning_sparse.sweep import finish

            finish(SweepWatcher.folder, SweepWatcher.logger or {})


@hydra.main(version_base="1.3", config_path="pkg://lightning_sparse.conf", config_name="config")
def task(config: DictConfig) -> float | None:
    """Train one model and measure it, or only what is missing of that.

    Returns:
        The validation accuracy, for sweepers that search.
    """
    gc.collect()  # Trainer, module and data of the job before are one cycle: 10 to 60 MB a job
    runtime = HydraConfig.get()
    job = _job(config, runtime.runtime.choices)
    multirun = runtime.mode == RunMode.MULTIRUN
    job.folder.mkdir(parents=True, exist_ok=True)
    # Two processes may come to the same job: dense is one job for all levels of a sweep.
    with FileLock(job.folder / ".lock"):
        stored = job.stored()
        wanted = measurements({name: _plain(config[name]) for name in MEASURED})
        job = replace(job, keys=tuple(measurement.key for measurement in wanted))
        if stored and stored.status == "done" and set(job.keys) <= job.measured():
            stored.save(keys=job.keys)
            _say(runtime, f"{job.run}: done before")
            return stored.objective
        start = time.monotonic()
        job = job.save(objective=stored.objective if stored else None)
        try:
            return _train_and_measure(config, job, wanted, start, multirun)
        except Exception as error:
            failure = (job.stored() or job).fail(error, since(start))  # as stored, which knows what training found
            reason = _sparsity_error(error)
            if multirun or reason is None:
                _say(runtime, f"{job.run}: FAILED, {failure.error}")
                raise
            print(f"lightning-sparse: {reason}", file=sys.stderr)
            raise SystemExit(2) from error


def _train_and_measure(
    config: DictConfig, job: Job, wanted: list[Measurement], start: float, multirun: bool
) -> float | None:
    """Build the objects that the configuration names, and hand them to the experiment."""
    from lightning.pytorch import seed_everything

    from lightning_sparse import building, experiment, tracking, training
    from lightning_sparse.measuring import Trained

    _quiet()
    if isinstance(config.seed, bool) or not isinstance(config.seed, int):
        raise SparsityError(f"seed={config.seed!r} is not an integer: write seed=0")
    seed_everything(config.seed, workers=True, verbose=False)
    data = instantiate(config.data, _convert_="all")
    experiment.check(data, wanted)
    model = building.build_model(config)
    training.check_classifier(model, data)
    callbacks = building.build_callbacks(config, data)
    wandb_run = None
    if config.logger.kind == "wandb":
        wandb_run = tracking.job_run(
            name=job.run,
            project=config.logger.project,
            group=f"{config.name}/{job.method}",
            folder=job.folder.parent,  # one place for all runs of a sweep, so that `wandb leet` compares them
            tags=[job.data, job.model, job.method],
            config={**_plain(config), "job": job.identity()},
            mode=config.logger.mode,
        )
    failed = True
    try:
        logger = tracking.lightning_logger(wandb_run) or (_csv_logger(job) if config.logger.kind == "csv" else False)
        trainer = instantiate(
            config.trainer,
            _convert_="all",
            callbacks=list(callbacks.values()),
            logger=logger,
            default_root_dir=job.folder,
            enable_progress_bar=config.trainer.enable_progress_bar and sys.stderr.isatty(),
        )
        if multirun:
            _refuse_script_ddp(trainer)
        objective, masks = training.train(job, model, data, trainer)
        sparsity = training.counted_sparsity(model, masks)
        if config.sparsity.get("small"):
            sparsity = building.sparsity_of_small(config, model)
        trained = Trained(model, masks, data, trainer.strategy.root_device)
        rows = experiment.measure(job, trained, sparsity, wanted, callbacks)
        tracking.log_records(wandb_run, rows)
        job.save(status="done", seconds=since(start), objective=objective)
        failed = False
    finally:
        tracking.finish(wandb_run, failed=failed)
    _say(HydraConfig.get(), f"{job.run}: {in_a_line(rows)} ({since(start):.0f} s)")
    if not multirun:
        print(f"records: {job.rows}\nmodel:   {job.checkpoint}")
    return objective


def _csv_logger(job: Job) -> Any:
    from lightning.pytorch.loggers import CSVLogger

    return CSVLogger(job.folder, name="", version="curves")


def _refuse_script_ddp(trainer: Any) -> None:
    """Under multirun, the ranks that DDP starts by script each run the whole sweep again."""
    launcher = trainer.strategy.launcher
    if trainer.world_size > 1 and type(launcher).__name__ == "_SubprocessScriptLauncher":
        raise SparsityError(
            "several devices by a strategy that starts the script again would run the whole sweep on every rank: write "
            "trainer.strategy=ddp_spawn, or trainer.devices=1 and one device a job"
        )


def _say(runtime: Any, line: str) -> None:
    number = f"[{runtime.job.num + 1}/{SweepWatcher.jobs}] " if SweepWatcher.jobs else ""
    print(number + line, flush=True)


def _sparsity_error(error: BaseException | None) -> SparsityError | None:
    """The SparsityError inside Hydra's InstantiationException, if that is what it wraps."""
    while error is not None and not isinstance(error, SparsityError):
        error = error.__cause__
    return error


def _quiet() -> None:
    """Keep what Lightning prints at every Trainer out of the output; it sets its own level when it is imported."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # lightning 2.6 with torch 2.15, and advice on loaders that hold their data in memory
    warnings.filterwarnings("ignore", message="`isinstance\\(treespec, LeafSpec\\)` is deprecated")
    warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
    warnings.filterwarnings("ignore", message="The number of training batches .* is smaller than the logging interval")
