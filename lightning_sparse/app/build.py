"""Build what a job's configuration names: its model, callbacks and data, new or as stored in its folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule
from omegaconf import DictConfig, OmegaConf

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.app.compression import is_narrow
from lightning_sparse.app.measuring.measure_job import recalibrated
from lightning_sparse.app.small_dense import width_of, width_of_bits
from lightning_sparse.app.subjects import subjects
from lightning_sparse.compress import decompress
from lightning_sparse.data.fixed_splits import FixedSplits
from lightning_sparse.engine.checkpoints import read_checkpoint
from lightning_sparse.engine.masks import Masks, load_masks
from lightning_sparse.ephemeral.activations import restored, state_of
from lightning_sparse.errors import SparsityError
from lightning_sparse.export.narrow import narrow_to
from lightning_sparse.results.jobs import Job


def build_model(config: DictConfig, width: float | None = None) -> LightningModule:
    """Build the model, of a ``width`` if one is given.

    Else :func:`width_of` says it under ``sparsity=small_dense``, and :func:`width_of_bits` under ``compression=narrow``.
    """
    if width is None and config.sparsity.get("small"):
        width = width_of(config)
    if width is None and is_narrow(config):
        width = width_of_bits(lambda narrower: build_model(config, narrower), config.bits)
    narrower = {} if width is None else {"net": {"width": width}}
    try:
        model: LightningModule = instantiate(config.model, _convert_="all", **narrower)
    except InstantiationException as error:
        what, found, _ = str(error).partition(", set env var")
        if found and "locating target" in what:
            raise SparsityError(f"model cannot be built ({what}): correct the import path") from error
        raise
    return model


def build_dense(config: DictConfig) -> LightningModule:
    """Build the network that a narrower one is held against, of its full width; else as :func:`build_model`."""
    return build_model(config, 1.0 if is_narrow(config) or config.sparsity.get("small") else None)


def build(node: DictConfig, group: str, **more: Any) -> Any:
    """Build what a group of ours names.

    Raises:
        SparsityError: on arguments that it does not take together, with its own words. For a user's own classes, whose
            tracebacks are worth reading, there is ``instantiate``.
    """
    try:
        return instantiate(node, _convert_="all", **more)
    except InstantiationException as error:
        if error.__cause__ is None or isinstance(error.__cause__, SparsityError):
            raise
        raise SparsityError(f"{group} cannot be built: {error.__cause__}") from error


def build_callbacks(config: DictConfig, following: Iterable[Callback]) -> list[Callback]:
    """Build the callbacks of a training; ``following``, which measure it, come before those of the group ``callbacks``."""
    on = ["sparsity"] if "_target_" in config.sparsity else []
    built = [build(config[group], group) for group in [*on, *subjects(config)]]
    own = [instantiate(node, _convert_="all") for node in config.callbacks.values()]
    return [*built, *following, *own]


def stored_data(job: Job) -> FixedSplits:
    """Build a job's data from the configuration in its folder, ready to be split."""
    data: FixedSplits = instantiate(stored_config(job).data, _convert_="all")
    data.setup()
    return data


def stored_model(job: Job, checkpoint: Path | None = None) -> LightningModule:
    """Build a job's model from the configuration in its folder, with the weights of its checkpoint, on the CPU.

    Args:
        job: whose folder has ``.hydra/config.yaml``.
        checkpoint: of this job's training; None is the trained model, of a job that compresses the one decoded.
    """
    config = stored_config(job)
    if job.compressed and checkpoint in (None, job.checkpoint):
        return decoded_model(config, job.content)
    model = build_model(config)
    # We wrote it ourselves, and a module's hyperparameters may be of any type.
    content = read_checkpoint(checkpoint or job.checkpoint, trusted=True)
    load_weights(model, content["state_dict"])
    with_activations(model, content)
    return model


def decoded_model(config: DictConfig, content: Path) -> LightningModule:
    """Build the model that a compressed network's file describes.

    Raises:
        SparsityError: if the file is damaged, or of another model.
    """
    whole = partial(build_model, config) if is_narrow(config) else build_model(config)
    model: LightningModule = decompress(content, whole)  # type: ignore[assignment]
    return model


def load_weights(model: LightningModule, state: Mapping[str, Any]) -> None:
    """Load a state dict, that of a narrower network too, which the callback Shrink has left."""
    with suppress(SparsityError):  # torch says what does not fit
        narrow_to(model, state)
    model.load_state_dict(state)


def with_activations(model: LightningModule, content: Mapping[str, Any]) -> None:
    """Let a model read what it was trained to read, for good: all that is measured sees that function."""
    state = state_of(content)
    if state is not None:
        restored(model, state)


def masks_of_zeros(model: LightningModule) -> Masks | None:
    """Masks of a decoded network: what is zero is dead; None if nothing is."""
    weights = sparsifiable(model)
    masks = Masks.dense(weights)
    for name, weight in weights.items():
        masks.set(name, weight != 0)
    return masks if masks.living < masks.total else None


def stored_masks(checkpoint: Path) -> Masks | None:
    """The masks in a job's checkpoint; None if it was trained without any."""
    content = read_checkpoint(checkpoint, trusted=True)
    states = content.get("callbacks", {}).values()
    sparse = any(isinstance(state, Mapping) and "lightning_sparse" in state for state in states)
    return load_masks(content) if sparse else None


def stored_model_as_measured(job: Job, checkpoint: Path | None = None) -> tuple[LightningModule, str]:
    """As :func:`stored_model`, but on the device and with BatchNorm's statistics for measuring.

    Also returns what was done to BatchNorm's statistics; empty if they are as trained.
    """
    config = stored_config(job)
    model = stored_model(job, checkpoint).to(device_of_trainer(config.trainer.get("accelerator", "auto")))
    recalibrate = config.get("batchnorm", "trained") == "recalibrated"
    return model, recalibrated(model, stored_data(job)) if recalibrate else ""


def device_of_trainer(accelerator: str) -> torch.device:
    """Where a Trainer with this ``accelerator`` would put a model on this machine."""
    allowed = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return torch.device("cuda" if allowed else "cpu")


def stored_config(job: Job) -> DictConfig:
    """The configuration in a job's folder."""
    config = OmegaConf.load(job.folder / ".hydra" / "config.yaml")
    assert isinstance(config, DictConfig)
    return config
