"""What the processes of a training have sent of their gradients, where a GradientCompression chose it."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_sparse.app.measuring.kind import Kind, Settings
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Measured, Record

CALLBACK = "GradientCompression"


def _settings(config: Settings) -> Settings | None:
    targets = [str(callback.get("_target_", "")) for callback in (config.get("callbacks") or {}).values() if callback]
    return {} if any(target.rpartition(".")[2] == CALLBACK for target in targets) else None


def _measure(trained: Trained, settings: Settings, job: Job, missing: set[str]) -> Iterator[tuple[str, Measured]]:
    from lightning_sparse.engine.checkpoints import read_checkpoint

    (key,) = missing
    # The processes that trained have ended, and their callback's state is where their weights are.
    ranks = read_checkpoint(job.checkpoint, trusted=True)["callbacks"][CALLBACK]["memory"]["ranks"]
    sent, whole = (sum(bytes_) for bytes_ in zip(*(rank["bytes"] for rank in ranks), strict=True))
    detail = f"{sent} of {whole} bytes, {len(ranks)} processes"
    yield key, Measured([Record("communication_share", sent / whole, 0, detail=detail)])


COMMUNICATION = Kind("communication", settings=_settings, measure=_measure, of_language=True)
