"""What Hydra knows of this library: where sweeps are, what a launch does first, and the name of a job's folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_sparse.app.controls import with_controls, with_steering_controls
from lightning_sparse.app.job_names import job_of
from lightning_sparse.app.measuring.measurements import KINDS
from lightning_sparse.app.progress import Progress
from lightning_sparse.app.settings.check import check_settings
from lightning_sparse.app.settings.environment import overruled
from lightning_sparse.app.settings.normal import normal
from lightning_sparse.app.subjects import SUBJECTS
from lightning_sparse.app.writable import check_writable
from lightning_sparse.errors import SparsityError
from lightning_sparse.results import launches
from lightning_sparse.results.jobs import NAMING, Job, read_job


class NamedSweeps(SearchPathPlugin):
    """Lets ``lightning-sparse -cn NAME`` find the files in ``sweeps/``."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add the folder that ships with this package."""
        search_path.append("lightning_sparse", "pkg://lightning_sparse.sweeps")


class SweepWatcher(Callback):
    """Records, in the launching process, that a sweep has begun, where it writes and which jobs it has."""

    folder: Path | None = None
    logger: dict[str, Any] | None = None
    progress: Progress | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before a single job has a folder."""
        refuse_moved_folders(config.hydra)
        job = _checked(config, config, [])
        refuse_earlier_names(job.folder.parent)
        _say_overruled(config)
        _refuse_unwritable(job.folder)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra before the first job."""
        if "OMP_NUM_THREADS" in os.environ:  # otherwise joblib sets MKL's to each worker's share of the cores
            os.environ.setdefault("MKL_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
        refuse_moved_folders(config.hydra)
        asked = _asked(config)
        jobs = None if asked is None else len(asked)
        named = [_checked(config, config, [])] if asked is None else _all_checked(config, asked)
        folder = named[0].folder.parent if named else Path(config.hydra.sweep.dir)
        refuse_earlier_names(folder)
        _say_overruled(config)
        _refuse_unwritable(folder, *(job.folder for job in named if asked is not None))
        SweepWatcher.folder, SweepWatcher.logger = folder, normal({"logger": plain(config.logger)})["logger"]
        launch = launches.launch(folder, None if asked is None else list(map(as_asked, named, asked)))
        print(f"{folder}: {'some' if jobs is None else jobs} jobs", flush=True)
        SweepWatcher.progress = Progress(folder, launch, jobs)


def as_asked(job: Job, overrides: Sequence[str]) -> launches.Asked:
    """What the log of launches keeps of a job that is asked for."""
    return launches.Asked(**job.identity(), compressed=job.compressed, overrides=tuple(overrides))


def _all_checked(config: DictConfig, asked: list[list[str]]) -> list[Job]:
    """Compose and check the jobs of a sweep, in the place of Hydra's sweeper, which only composes them."""
    loader = GlobalHydra.instance().config_loader()
    try:
        shared = set.intersection(*map(set, asked)) if asked else set()
        return [
            _checked(loader.load_sweep_config(config, job), config, [part for part in job if part not in shared])
            for job in asked
        ]
    except HydraException as error:
        because = f"\n{error.__cause__}" if isinstance(error.__cause__, OmegaConfBaseException) else ""
        _refuse(f"{error}{because}")


def _checked(config: DictConfig, launch: DictConfig, overrides: list[str]) -> Job:
    """The job that a configuration describes; exits if a setting cannot be."""
    try:
        # In a job's own configuration Hydra has resolved what the command line refers to.
        raw = "".join(str(OmegaConf.to_container(part, resolve=False)) for part in (config, launch))
        check_config(config, config.hydra.overrides.task, raw)
        return job_from(config, config.hydra.runtime.choices)
    except (SparsityError, OmegaConfBaseException) as error:
        of = f" (in the job {' '.join(overrides)})" if overrides else ""
        _refuse(f"{str(error).splitlines()[0]}{of}")


def check_config(config: DictConfig, overrides: Iterable[str] = (), raw: str | None = None) -> None:
    """As :func:`check_settings`, for a composed configuration."""
    names = [name for name in config if name != "hydra"]
    check_settings(normal({str(name): plain(config[name]) for name in names}), overrides=overrides, raw=raw)


def _say_overruled(config: DictConfig) -> None:
    for sentence in overruled(plain(config.logger), os.environ):
        print(f"lightning-sparse: {sentence}", file=sys.stderr)


def _refuse_unwritable(*folders: Path) -> None:
    try:
        check_writable(*folders)
    except SparsityError as error:
        _refuse(str(error))


def refuse_moved_folders(hydra_config: Any) -> None:
    """Exit if a setting of Hydra's would move a job's results to where a later launch does not look."""
    given: Any = OmegaConf.to_container(hydra_config, resolve=False)
    own = {
        "hydra.run.dir": (given["run"]["dir"], "${output}/${name}/${job_folder:}"),
        "hydra.sweep.dir": (given["sweep"]["dir"], "${output}/${name}"),
        "hydra.sweep.subdir": (given["sweep"]["subdir"], "${job_folder:}"),
        "hydra.job.chdir": (given["job"]["chdir"] or None, None),
        "hydra.output_subdir": (given["output_subdir"], ".hydra"),
        "hydra.sweeper.max_batch_size": (given["sweeper"].get("max_batch_size"), None),
    }
    for name, (value, allowed) in own.items():
        if value != allowed:
            _refuse(
                f"{name}={value} cannot be changed: a sweep is written to output/name, each job to a folder named after what "
                "trains it, and a job that fails stops no other. Write output=... or name=..."
            )


def refuse_earlier_names(folder: Path) -> None:
    """Exit if a folder's jobs were named by another version: they would not be found, but trained again."""
    jobs = [read_job(path) for path in sorted(folder.glob("*/job.json"))]
    others = [job.run for job in jobs if job and job.naming != NAMING]
    if others:
        _refuse(
            f"{folder} holds jobs named by another version of the library ({others[0]}, {len(others)} in all), which this "
            f"one would not find but train again: `lightning-sparse-report {folder}` still reports on them; to train, write "
            "name=... or output=... for a new folder"
        )


def _refuse(reason: str) -> NoReturn:
    print(f"lightning-sparse: {reason}", file=sys.stderr)
    raise SystemExit(2)


def _asked(config: DictConfig) -> list[list[str]] | None:
    """The overrides of every job; None for sweepers that decide as they go."""
    if not config.hydra.sweeper._target_.endswith("DistinctSweeper"):
        return None
    axes = [f"{name}={value}" for name, value in (config.hydra.sweeper.get("params") or {}).items()]
    hydra = GlobalHydra.instance()
    loader = hydra.config_loader() if hydra.is_initialized() else None  # a glob asks it for choices
    overrides = OverridesParser.create(loader).parse_overrides([*axes, *config.hydra.overrides.task])
    return DistinctSweeper.split_arguments(overrides, None)[0]


def plain(node: Any) -> Any:
    """A node of a configuration as plain data, its interpolations resolved."""
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def job_from(config: DictConfig, choices: Any) -> Job:
    """The job that a configuration and the choices in its groups describe."""
    following = [kind.group or kind.name for kind in KINDS if kind.callback]
    names = ("data", "model", "sparsity", "trainer", "callbacks", "seed", "label", *following)
    names = (*names, *(name for name in (*SUBJECTS, "compression", "bits") if name in config))
    written = normal({name: plain(config[name]) for name in (*names, "output", "name")})
    return job_of(written, choices, Path(written["output"]) / written["name"])


def _job_folder(*, _root_: DictConfig) -> str:
    return job_from(_root_, _root_.hydra.runtime.choices).run


def _methods(*names: str, _root_: DictConfig) -> str:
    """The methods of a sweep, and dense, or with ``controls=true`` all controls."""
    return with_controls(*names) if _root_.controls else ",".join(["dense", *names])


def _steerings(*names: str, _root_: DictConfig) -> str:
    """The steerings of a sweep with their controls."""
    noise = _root_.data.get("label_noise") or "data.label_noise" in (_root_.hydra.sweeper.get("params") or {})
    return with_steering_controls(*names, noise=bool(noise))


Plugins.instance().register(NamedSweeps)
# Imported only now, because the call above has run the module of Hydra's sweeper, its base class, again.
from hydra_plugins.lightning_sparse.distinct_sweeper import DistinctSweeper  # noqa: E402

Plugins.instance().register(DistinctSweeper)  # Hydra finds it by itself, but not in an editable install
OmegaConf.register_new_resolver("methods", _methods, replace=True)
OmegaConf.register_new_resolver("steerings", _steerings, replace=True)
OmegaConf.register_new_resolver("product", lambda a, b: a * b, replace=True)
OmegaConf.register_new_resolver("job_folder", _job_folder, replace=True, use_cache=False)
