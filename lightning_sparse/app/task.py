"""The task that Hydra runs for each job: skip what was done or has failed before, and run the rest under a lock."""

from __future__ import annotations

import atexit
import gc
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lightning_sparse.app.hydra_parts import SweepWatcher, check_config, job_from, plain
from lightning_sparse.app.measuring.measurements import Measurement, measurements_of
from lightning_sparse.app.settings.normal import normal_config
from lightning_sparse.errors import OutOfReachError, SparsityError
from lightning_sparse.results import launches
from lightning_sparse.results.jobs import OUT_OF_REACH, Job, since

Tell = Callable[..., None]


def run() -> None:
    """The command: Hydra runs the jobs, and the report is written even if some of them failed."""
    try:
        task()
    except SystemExit as left:
        if left.code is None:  # Lightning exits so on SIGTERM, which would look like success
            raise SystemExit(143) from left
        raise
    finally:
        # Not in Hydra's on_multirun_end, which it leaves out after a failure.
        if SweepWatcher.progress is not None:
            SweepWatcher.progress.end()
        if SweepWatcher.folder is not None and SweepWatcher.folder.exists():
            _finish(SweepWatcher.folder, SweepWatcher.logger or {})


def _finish(folder: Path, logger: dict[str, Any]) -> None:
    from lightning_sparse.app.finish import finish

    try:
        finish(folder, logger)
    except Exception as error:  # what the jobs measured is on disk already, whatever stands in the way of the report
        traceback.print_exception(error)
        kept = f"{folder} keeps all results, `lightning-sparse-report {folder}` reports on them"
        print(f"the report is not written: {kept}")
        raise SystemExit(1) from error


class JobFailedError(RuntimeError):
    """Tells the launcher that a job failed, now or in an earlier launch, without the frames that hold the model."""


@hydra.main(version_base="1.3", config_path="pkg://lightning_sparse.conf", config_name="config")
def task(config: DictConfig) -> float | None:
    """Train and measure one model, as far as that is not done; return its validation accuracy, for sweepers that search."""
    gc.collect()  # Trainer, module and data of the previous job refer to each other: 10 to 60 MB a job
    runtime = HydraConfig.get()
    problem = _problem(config)
    config = config if problem else normal_config(config)
    job = job_from(config, runtime.runtime.choices)
    multirun = runtime.mode == RunMode.MULTIRUN
    job.folder.mkdir(parents=True, exist_ok=True)

    def tell(event: str, how: str = "", says: str = "") -> None:
        if multirun:
            launches.tell(job.folder.parent, event, runtime.job.num, job.run, how=how, says=says)
        elif event != "started":
            print(f"{job.run}: {says}", flush=True)

    with _locked(job, tell):
        measurements = [] if problem else measurements_of(plain(config))
        job = replace(job, keys=tuple(measurement.key for measurement in measurements))
        from lightning_sparse.results.unreadable import make_room  # brings numpy

        make_room(job)
        stored = job.stored()
        whole = stored and stored.status == "done" and set(job.keys) <= job.measured()
        whole = whole and not job.lost(job.checkpoint.name) and not job.lost(job.content.name)
        if not problem and stored and whole:
            stored.save(keys=job.keys, asked_at=time.time())
            tell("done", "skipped", "done before")
            return stored.objective
        if stored and stored.status == OUT_OF_REACH and not config.retry_failed and multirun:
            tell("done", "skipped", f"{OUT_OF_REACH}: {stored.error}")
            return None
        # A job that was refused costs nothing to try again, and the reason may be no part of its name.
        again = config.retry_failed or not multirun or (stored and stored.error.startswith("SparsityError"))
        if stored and not again and (stored.status, stored.keys) == ("failed", job.keys):
            tell("failed", "skipped", f"{stored.error}, in an earlier launch (retry_failed=true tries it again)")
            raise JobFailedError(f"{job.run} failed in an earlier launch: {stored.error}")
        how = "measured" if job.checkpoint.exists() else "resumed" if job.half_done.exists() else "trained"
        tell("started", how)
        known = {"objective": stored.objective, "seconds": stored.seconds} if stored else {}
        job = job.save(asked_at=time.time(), **known)
        _attempt(config, job, measurements, how, tell if multirun else None, problem)
    found = job.stored()
    return found.objective if found else None


def _problem(config: DictConfig) -> SparsityError | None:
    """What is wrong with a job's settings; nothing where ``SweepWatcher`` knew the job ahead."""
    try:
        check_config(config)
    except SparsityError as error:
        return error
    return None


def _attempt(
    config: DictConfig,
    job: Job,
    measurements: list[Measurement],
    how: str,
    tell: Tell | None,
    problem: SparsityError | None,
) -> None:
    """Run a job; a failure is written to its folder, and, if it is one of several jobs, told to the launch."""
    if not gc.get_freeze_count():
        _import_all(with_wandb=config.logger.kind == "wandb")
    from lightning_sparse.app.run_job import run_job

    start, failure, refused, out_of_reach = time.monotonic(), "", "", False
    try:
        if problem:
            raise problem
        found = run_job(config, job, measurements)
    except Exception as error:
        if type(error).__name__ == "UncompletedJobError":  # submitit's, if its time ran out: the job has not failed
            raise
        cause = _cause(error)
        out_of_reach = isinstance(cause, OutOfReachError)
        failure = _leave(job, error, cause, since(start))
        if tell is None and not isinstance(cause, SparsityError):
            raise
        refused = str(cause)
        del cause
    # Outside of the except, because an exception holds the frames that hold the model: the next job needs the memory.
    if tell is None and failure:
        print(f"lightning-sparse: {refused}", file=sys.stderr)
        raise SystemExit(2)
    if tell is None:
        print(f"{job.run}: {found}\nrecords: {job.rows}\nmodel:   {job.checkpoint}")
        print(f"report:  lightning-sparse-report {job.folder.parent}", flush=True)
    elif out_of_reach:
        tell("done", how, f"{OUT_OF_REACH}: {refused}")
    elif failure:
        tell("failed", how, failure)
        raise JobFailedError(f"{job.run}: {failure} (all of it: {job.folder / 'traceback.txt'})")
    else:
        tell("done", how, found)


def _import_all(*, with_wandb: bool) -> None:
    """Import what jobs need, and hide it from the garbage collector: saves a tenth here, and time before each job."""
    gc.disable()
    try:
        if with_wandb:
            with suppress(ModuleNotFoundError):  # reported when the run is started
                import wandb.apis.public  # noqa: F401  the first run would import it, when there is more to search
        import lightning_sparse.app.run_job  # noqa: F401
    finally:
        gc.enable()
    gc.freeze()
    atexit.register(gc.unfreeze)  # otherwise triton's bindings report leaks


def _locked(job: Job, tell: Tell) -> AbstractContextManager[FileLock]:
    """Lock a job, because two launches may share a folder."""
    lock = FileLock(job.folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        tell("waiting", says="another process has this job; waiting for it")
        return lock.acquire()


def _leave(job: Job, error: Exception, cause: BaseException, seconds: float) -> str:
    """Write the failure into the job's folder, if the disk is not full, and return the reason in a line."""
    reason = f"{type(cause).__name__}: {cause}".splitlines()[0][:500]
    try:
        stored = job.stored() or job  # has the objective, and the time that earlier launches took
        left = stored.fail(error, reason, round(stored.seconds + seconds, 2))
        if isinstance(cause, OutOfReachError):
            left.save(status=OUT_OF_REACH, error=str(cause))
    except OSError as full:
        print(f"{job.run}: the failure could not be written down ({full})", file=sys.stderr)
    return reason


def _cause(error: Exception) -> BaseException:
    """The SparsityError that led to an error, or what Hydra wraps in an InstantiationException, or the error itself."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, SparsityError):
        found = found.__cause__
    wrapped = error.__cause__ if type(error).__name__ == "InstantiationException" else None
    return found or wrapped or error
