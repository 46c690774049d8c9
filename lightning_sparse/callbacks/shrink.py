"""Make the network in training narrower, once channels are dead for good."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.channel_group import ChannelGroup
from lightning_sparse.anatomy.channel_groups import channel_groups
from lightning_sparse.anatomy.channel_width import output_axis
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.copies_in_module import CopiesInModule, trained_in
from lightning_sparse.callbacks.trainer.engine_callback import EngineCallback
from lightning_sparse.callbacks.trainer.one_of_a_kind import OneOfAKind
from lightning_sparse.callbacks.trainer.score_batches import ScoreBatches
from lightning_sparse.engine.engine import Engine
from lightning_sparse.engine.hooks import nested
from lightning_sparse.errors import SparsityError
from lightning_sparse.export.narrow import Kept, kept, narrow, narrow_to
from lightning_sparse.export.removable import removable

Cuts = Mapping[str, Any]


class Shrink(OneOfAKind):
    """Remove dead channels from the network while it trains, so that the rest of the training takes less time.

    It waits until no sparsity callback has a mask update to come. Then it narrows the layers in place, with the optimizer's
    state, the masks and the averages that other callbacks hold, and training goes on as the masked one would, within rounding
    (random numbers of a Dropout inside the network apart, of which there are fewer). Parameters keep their names. The
    sparsity that is reported stays that of the masks; how much smaller the network is, :attr:`weights` says.

    Use it beside a recipe with ``granularity="tied_channels"``: channels that die alone, layer by layer, can be removed only
    where no sum or concatenation ties them to others, and where no BatchNorm or bias brings them back.

    A checkpoint holds the narrow network. A Trainer with this callback loads it into the full one; without a Trainer,
    :func:`~lightning_sparse.export.narrow_to` makes a model as narrow.

    Attributes:
        step: optimizer steps of the sparsity callback before the network was narrowed; None before.
        weights: how many parameters there were before, and after.

    Raises:
        SparsityError: in ``setup``, with several processes, because their gradients are laid out before training.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.5, end=0.5, granularity="tied_channels"), Shrink()]
    """

    def __init__(self) -> None:
        super().__init__()
        self.step: int | None = None
        self.weights: tuple[int, int] | None = None
        self._off: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be narrowed in training, and wait for a checkpoint whose network is narrower."""
        super().setup(trainer, pl_module, stage)
        if trainer.world_size > 1:
            raise SparsityError(
                f"Shrink cannot narrow layers under strategy={type(trainer.strategy).__name__} with {trainer.world_size} "
                "processes, whose gradients are laid out before training: train on one device, or leave it out and call "
                "lightning_sparse.export.shrink afterwards"
            )
        if stage == "fit" and not self._sparse(trainer):
            raise SparsityError(
                "Shrink() removes channels that a sparsity callback has pruned, and there is none: write callbacks=["
                "GradualPruning(0.5, granularity='tied_channels'), Shrink()]"
            )
        if trainer.ckpt_path is None and trainer.global_step == 0:
            self.step = self.weights = None
        self._off = pl_module.register_load_state_dict_pre_hook(_as_narrow)  # type: ignore[no-untyped-call]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Narrow the network, when the masks have changed for the last time."""
        engines = [callback.engine for callback in self._sparse(trainer) if callback.engine is not None]
        if self.step is not None or any(engine.updates_to_come for engine in engines):
            return
        self.step = engines[0].clock
        before = sum(parameter.numel() for parameter in pl_module.parameters())
        if CopiesInModule(pl_module, engines[0].parameters).find(trained_in(pl_module, trainer.optimizers)):
            warnings.warn(
                "Shrink leaves the network as it is: the module keeps a copy of it, which would not fit", stacklevel=2
            )
            return
        keep = self._to_keep(trainer, pl_module, batch, engines)
        shapes = {name: parameter.shape for name, parameter in pl_module.named_parameters()}
        with torch.inference_mode(False):
            cuts = narrow(pl_module, keep)
        for engine in engines:
            engine.narrow(cuts)
        lost = _narrow_states(trainer.optimizers, pl_module, cuts, shapes)
        _narrow_averages(trainer, pl_module, keep, cuts, shapes)
        after = sum(parameter.numel() for parameter in pl_module.parameters())
        self.weights = (before, after)
        if lost:
            warnings.warn(
                f"Shrink: the optimizer's state of {', '.join(lost[:3])} has not the shape of the parameter, and starts anew",
                stacklevel=2,
            )
        if after == before:
            warnings.warn(
                "Shrink found no channel that could be removed: write granularity='tied_channels' in the sparsity callback",
                stacklevel=2,
            )
        rank_zero_info(f"Shrink: {before:,} parameters, {after:,} after step {self.step}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind."""
        if self._off is not None:
            self._off.remove()
        self._off = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self.teardown(trainer, pl_module, "fit")

    def state_dict(self) -> dict[str, Any]:
        """When the network was narrowed, and from how many parameters to how many."""
        return {"step": self.step, "weights": list(self.weights) if self.weights else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there; the layers have been narrowed as the checkpoint was loaded."""
        weights = state_dict["weights"]
        self.step, self.weights = state_dict["step"], (weights[0], weights[1]) if weights else None

    def __getstate__(self) -> dict[str, Any]:
        """A copy holds no hook."""
        return {**vars(self), "_off": None}

    def _sparse(self, trainer: Trainer) -> list[EngineCallback]:
        return list(callbacks_of(trainer, EngineCallback))

    def _to_keep(
        self, trainer: Trainer, module: LightningModule, batch: Any, engines: Sequence[Engine]
    ) -> dict[str, Kept]:
        """Follow the batch through the network, and return what stays of each layer."""
        parameters = {name: parameter for engine in engines for name, parameter in engine.parameters.items()}
        masks = {name: mask for engine in engines for name, mask in engine.masks.items()}
        loss_fn = next((callback.loss_fn for callback in self._sparse(trainer) if callback.loss_fn), None)
        batches = ScoreBatches(trainer, module, parameters, loss_fn, 1)
        batches.remember(batch)
        with batches.look(1) as network:
            groups = channel_groups(network.model, batch, network.loss)
            module.eval()
            found = removable(module, groups, [batch], fold=False, forward=network.loss)
            gone = [
                slots & _dead_for_good(module, group, masks) for group, slots in zip(groups, found.gone, strict=True)
            ]
        keep = kept(zip(groups, gone, strict=True), module)
        return {name: layer for name, layer in keep.items() if layer.narrower}


def _dead_for_good(module: nn.Module, group: ChannelGroup, masks: Mapping[str, Tensor]) -> Tensor:
    """The slots in which every weight that writes them is dead by the masks: another zero may still learn."""
    dead = torch.ones(group.size, dtype=torch.bool)
    for member in group.having("writes"):
        mask = masks.get(f"{member.name}.weight")
        axis = output_axis(module.get_submodule(member.name))
        if mask is None or axis is None:
            return torch.zeros_like(dead)
        rows = mask.movedim(axis, 0).flatten(1).any(1).cpu()
        dead[member.slots[rows[member.channels]]] = False
    return dead


def _as_narrow(module: nn.Module, state: Mapping[str, Any], prefix: str, *others: Any) -> None:
    tensors = {name.removeprefix(prefix): value for name, value in state.items() if isinstance(value, Tensor)}
    with suppress(SparsityError):  # torch says what does not fit
        narrow_to(module, tensors)


def _narrow_states(
    optimizers: Sequence[Optimizer], module: nn.Module, cuts: Cuts, shapes: Mapping[str, torch.Size]
) -> list[str]:
    """Narrow what optimizers remember of each parameter; return those of which it has other shapes, and is dropped."""
    named, lost = dict(module.named_parameters()), []
    for optimizer in {id(each): each for outermost in optimizers for each in nested(outermost)}.values():
        for name in (name for name in cuts if name in named):
            state = optimizer.state.get(named[name], {})
            tensors = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.numel() > 1}
            if all(value.shape == shapes[name] for value in tensors.values()):
                state |= {key: cuts[name](value) for key, value in tensors.items()}
            else:
                del optimizer.state[named[name]]
                lost.append(name)
    return lost


def _narrow_averages(
    trainer: Trainer, module: LightningModule, keep: Mapping[str, Kept], cuts: Cuts, shapes: Mapping[str, torch.Size]
) -> None:
    """Narrow the copies of the network that other callbacks hold."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for value in vars(callback).values():
            if isinstance(value, nn.Module) and value is not module:
                inside = dict(value.named_modules())
                prefix = next((p for p in ("", "module.") if all(f"{p}{name}" in inside for name in keep)), None)
                if prefix is not None and value.state_dict().keys() >= {f"{prefix}{name}" for name in shapes}:
                    narrow(value, {f"{prefix}{name}": layer for name, layer in keep.items()})
            elif isinstance(value, dict):
                for name, cut in cuts.items():
                    if isinstance(value.get(name), Tensor) and name in shapes and value[name].shape == shapes[name]:
                        value[name] = cut(value[name])
