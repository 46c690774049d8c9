"""Files that a run keeps a copy of, in its own folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wandb import Run

    from lightning_sparse.engine.masks import Masks


def keep(run: Run, kind: str, files: Iterable[Path]) -> None:
    """Log the files that exist as one artifact of type ``kind``.

    They are copied beside the run first: those in a job's or a sweep's folder may change before they are uploaded, and
    W&B's own copy would be in the user's home.
    """
    import wandb

    artifact = wandb.Artifact(f"{run.id}-{kind}", type=kind)
    for file in files:
        if file.exists():
            copy = place(run) / file.name
            if copy != file:
                shutil.copyfile(file, copy)
            artifact.add_file(str(copy), policy="immutable")
    run.log_artifact(artifact)


def place(run: Run) -> Path:
    """The folder of a run's artifacts."""
    folder = Path(run.dir).resolve().parent / "artifacts"
    folder.mkdir(exist_ok=True)
    return folder


def masks_file(run: Run, masks: Masks) -> Path:
    """Write masks, one bit for each weight, for :func:`lightning_sparse.load_masks`."""
    import torch

    path = place(run) / "masks.pt"
    torch.save({"lightning_sparse": 1, "masks": masks.pack()}, path)
    return path
