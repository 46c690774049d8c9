"""From a job's configuration to the objects it names: its model, also shrunk to a control, and its callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule
from omegaconf import DictConfig, OmegaConf
from torch import nn

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.data.images import ImageData
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.measure.batchnorm import RECALIBRATION, batchnorm_in_words, recalibrate_batchnorm
from lightning_sparse.models.networks import small_width


def build_model(config: DictConfig) -> LightningModule:
    """Build the model; under ``sparsity=small_dense`` with as few weights as a sparse one would have left.

    Raises:
        SparsityError: if a small model is asked for and ``model.net`` takes no ``width``.
    """
    width = {"net": {"width": _width(config)}} if config.sparsity.get("small") else {}
    model: LightningModule = instantiate(config.model, _convert_="all", **width)
    return model


def build_callbacks(config: DictConfig, data: ImageData) -> dict[str, Callback]:
    """Build the callbacks by name: ``sparsity``, ``adversarial`` and ``vog`` where they are on, and ``callbacks``' own."""
    built: dict[str, Callback] = {}
    if "_target_" in config.sparsity:
        built["sparsity"] = instantiate(config.sparsity, _convert_="all")
    if config.adversarial.eps:
        built["adversarial"] = instantiate(config.adversarial, _convert_="all")
    if config.vog.images:
        from lightning_sparse.callbacks.variance_of_gradients import VarianceOfGradients

        # Of test images, because that is where pruning's forgetting is seen; nothing in the training looks at it.
        built["vog"] = VarianceOfGradients(data.split("test", config.vog.images))
    return built | {name: instantiate(node, _convert_="all") for name, node in config.callbacks.items()}


def data_of(folder: Path) -> ImageData:
    """Build a job's data again from the configuration in its folder, ready to be split."""
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    data: ImageData = instantiate(config.data, _convert_="all")
    data.setup()
    return data


def rebuilt(folder: Path, checkpoint: Path) -> LightningModule:
    """Build a job's model again from the configuration in its folder, with the weights of its checkpoint."""
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(config, DictConfig)
    model = build_model(config)
    # Of our own writing, and a module's hyperparameters may hold anything.
    content = torch.load(checkpoint, weights_only=False, map_location="cpu")
    model.load_state_dict(content["state_dict"])
    return model


def rebuilt_as_measured(folder: Path, checkpoint: Path) -> tuple[LightningModule, str]:
    """As :func:`rebuilt`, with BatchNorm's statistics estimated anew where the job measured it so, and what was done."""
    model = rebuilt(folder, checkpoint)
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert isinstance(config, DictConfig)
    if config.get("batchnorm", "trained") != "recalibrated":
        return model, ""
    images = data_of(folder).split("train", RECALIBRATION)
    return model, batchnorm_in_words(recalibrate_batchnorm(model, images), len(images[1]))


def sparsity_of_small(config: DictConfig, model: nn.Module) -> float:
    """Share of the full network's weights that a small dense one does without."""
    return 1.0 - _weights(model) / _weights(_full(config))


def _width(config: DictConfig) -> float:
    share = check_share("final_sparsity", config.sparsity.final_sparsity, one_allowed=False)

    def make(width: float) -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # trying widths must not move the seed of the one that is trained
            net: nn.Module = instantiate(config.model.net, _convert_="all", width=width)
        return net

    try:
        return small_width(make, round((1.0 - share) * _weights(_full(config))))
    except SparsityError:
        raise
    except Exception as error:
        if "width" not in str(error) and "net" not in str(error):
            raise
        raise SparsityError(
            "sparsity=small_dense needs a network that can be made narrower: give model.net a _target_ that takes width= "
            f"(a factor of its hidden sizes, 1 by default), or leave this control out ({error})"
        ) from error


def _full(config: DictConfig) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        net: Any = instantiate(config.model.net, _convert_="all")
    return net  # type: ignore[no-any-return]


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in sparsifiable(module).values())
