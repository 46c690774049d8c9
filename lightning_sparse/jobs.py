"""A job: how it is named, what lies in its folder, and what of it is done."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lightning_sparse import __version__, records
from lightning_sparse.files import write_whole
from lightning_sparse.records import Record

# What does not change the trained model, and so is no part of a job's name.
_NOT_IN_KEY = {
    "data": {"root", "download", "num_workers"},
    "trainer": {
        "accelerator",
        "devices",
        "default_root_dir",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
    },
    "callbacks": {"monitor"},
}


@dataclass(frozen=True)
class Job:
    """One training and its measurements.

    Its folder holds ``job.json`` (this, and how it stands), ``model.ckpt``, ``records.jsonl`` and ``saliency.npz``.

    Attributes:
        run: its name, which is also its folder's name.
        method: the choice in the ``sparsity`` group.
        data: the choice in the ``data`` group.
        model: the choice in the ``model`` group.
        seed: the training seed.
        sparsity_asked: sparsity asked for; 0 for dense.
        status: ``"running"``, ``"done"`` or ``"failed"``.
        error: in one line, why it failed.
        seconds: how long it took.
        objective: validation accuracy of the trained model, for sweepers that search; never the test accuracy.
        version: of this library.
    """

    run: str
    method: str
    data: str
    model: str
    seed: int
    sparsity_asked: float
    status: str = "running"
    error: str = ""
    seconds: float = 0.0
    objective: float | None = None
    version: str = __version__
    folder: Path = field(default=Path(), compare=False)

    @property
    def checkpoint(self) -> Path:
        """The trained model, an ordinary Lightning checkpoint."""
        return self.folder / "model.ckpt"

    @property
    def rows(self) -> Path:
        """The records, one JSON object a line."""
        return self.folder / "records.jsonl"

    def stored(self) -> Job | None:
        """The job as its folder tells it, or None if it never started."""
        path = self.folder / "job.json"
        return replace(self, **json.loads(path.read_text())) if path.exists() else None

    def save(self, **changes: Any) -> Job:
        """Write ``job.json`` with some fields changed, whole or not at all."""
        job = replace(self, **changes)
        plain = {name: value for name, value in asdict(job).items() if name != "folder"}
        write_whole(self.folder / "job.json", json.dumps(plain, indent=1))
        return job

    def fail(self, error: BaseException, seconds: float) -> Job:
        """Leave the failure where the report finds it, and its traceback beside it."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:500]
        (self.folder / "traceback.txt").write_text("".join(traceback.format_exception(error)))
        return self.save(status="failed", error=reason, seconds=seconds)

    def measured(self) -> set[str]:
        """Keys of the measurements that are on disk."""
        return {record.key for record in records.read(self.rows)}

    def identity(self) -> dict[str, Any]:
        """What every row of this job carries."""
        return {name: getattr(self, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}

    def record(self, rows: list[Record], key: str, sparsity: float) -> None:
        """Sign rows with this job's name and put them on disk at once."""
        records.append(self.rows, [replace(row, key=key, sparsity=sparsity, **self.identity()) for row in rows])


@dataclass(frozen=True)
class Measurement:
    """One measurement that a configuration asks for: its kind, its settings, and the key that names both."""

    kind: str
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Rows under this key are not measured again."""
        return f"{self.kind}-{key_of(self.settings)}"


def measurements(attack: Mapping[str, Any], saliency: Mapping[str, Any]) -> list[Measurement]:
    """List what is to be measured: accuracy always, the rest unless its ``eps`` or ``methods`` are empty."""
    wanted = [Measurement("clean", {})]
    if attack["eps"]:
        wanted.append(Measurement("robust", attack))
    if saliency["methods"]:
        wanted.append(Measurement("saliency", saliency))
    return wanted


def job_of(config: Mapping[str, Any], choices: Mapping[str, str], output: Path) -> Job:
    """Name the job that a configuration describes.

    Args:
        config: the composed configuration as plain dicts, with ``data``, ``model``, ``sparsity``, ``trainer``,
            ``callbacks`` and ``seed``.
        choices: the choice in each group.
        output: folder of the sweep.

    Returns:
        The job; its name ends in a hash of what trains it, so that the same training is never done twice, and another
        configuration is another job.
    """
    dense = "_target_" not in config["sparsity"]
    what = {name: config[name] for name in ("data", "model", "sparsity", "trainer", "callbacks", "seed")}
    what = {
        name: {key: item for key, item in part.items() if key not in _NOT_IN_KEY.get(name, ())}
        if isinstance(part, Mapping)
        else part
        for name, part in what.items()
    }
    asked = 0.0
    if dense:
        what["sparsity"] = {}
    else:
        asked = float(what["sparsity"].get("final_sparsity", what["sparsity"].get("sparsity", 0.0)))
    method = choices["sparsity"]
    name = f"{method}-seed{config['seed']}" if dense else f"{method}-{asked:g}-seed{config['seed']}"
    run = f"{name}-{key_of(what)}"
    return Job(run, method, choices["data"], choices["model"], int(config["seed"]), asked, folder=output / run)


def key_of(what: Any) -> str:
    """Eight hexadecimal digits that stand for plain data.

    Example:
        >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:8]


def since(start: float) -> float:
    """Seconds since ``start``, a ``time.monotonic()``, to a hundredth."""
    return round(time.monotonic() - start, 2)
