"""Send few entries of the gradients between the processes of a DDP training."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD

from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.engine_callback import EngineCallback
from lightning_sparse.callbacks.trainer.private import comm_hook_of, loss_scaler_of
from lightning_sparse.callbacks.trainer.same_arguments import SameArguments
from lightning_sparse.engine.distributed import is_set_up
from lightning_sparse.ephemeral.gradient_compression import Compressor
from lightning_sparse.errors import SparsityError, check_flag, check_share


class GradientCompression(SameArguments):
    """Let each process of a DDP training send the largest entries of its gradients, on CPUs and GPUs.

    Of each parameter of two or more dimensions every process sends its own ``density`` of largest entries; what it does
    not send, it adds to its next gradient (error feedback). Biases and norms are sent whole. With ``momentum_correction``
    it is momentum that is accumulated, and set to zero where it was sent (deep gradient compression: Lin et al. 2018, arXiv
    1712.01887; its warm-up and its clipping are not here).

    The hook is registered here, because Lightning's ``DDPStrategy(ddp_comm_hook=...)`` leaves one out on CPUs, and does not
    say so.

    *Beside a sparsity callback* only living connections compete, and what was remembered of one that dies is forgotten. For a
    step whose update reads gradients (RigL's growth) they are sent whole; a method that reads those of every step is refused.

    Bytes are what a process hands to collective operations. They say nothing of seconds: selecting takes time too, and what
    each process receives grows with their number.

    Args:
        density: share of a parameter's living entries that is sent, in (0, 1]; 1 is training as without it, bit for bit.
        memory: whether what is not sent is remembered; without it most of a gradient never arrives.
        momentum_correction: the factor of momentum, in [0, 1), in the place of the optimizer's own; 0 is none.

    Attributes:
        communication_share: bytes sent in this training so far, as a share of those of whole gradients.

    Raises:
        SparsityError: on arguments out of range; before training, without DDP, with another hook, under float16's loss
            scaling, with an optimizer that has momentum beside ``momentum_correction``, and beside SNFS and the like.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), GradientCompression(density=0.01)]  # Trainer(strategy="ddp", devices=2)
    """

    def __init__(self, density: float = 0.01, *, memory: bool = True, momentum_correction: float = 0.0) -> None:
        super().__init__()
        if not check_share("density", density):
            raise SparsityError(f"density={density!r} sends nothing: write a share such as 0.01")
        self.density, self.memory_kept = float(density), check_flag("memory", memory)
        self.momentum_correction = check_share("momentum_correction", momentum_correction, one_allowed=False)
        if self.momentum_correction and not memory:
            raise SparsityError(
                f"momentum_correction={momentum_correction!r} accumulates in the memory, and memory=False: leave one out"
            )
        self._compressor: Compressor | None = None
        self._ranks: list[dict[str, Any]] | None = None

    @property
    def communication_share(self) -> float:
        """Bytes sent as a share of those of whole gradients; NaN before the first step."""
        return self._compressor.share if self._compressor else float("nan")

    def arguments(self) -> dict[str, Any]:
        """What decides which entries are sent."""
        return {
            "density": self.density,
            "memory": self.memory_kept,
            "momentum_correction": self.momentum_correction,
        }

    def memory(self) -> dict[str, Any]:
        """What every process remembers, in rank 0; every rank has to call it."""
        if self._compressor is None or not is_set_up():
            return {"ranks": []}
        here = self._compressor.state_dict()
        ranks: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
        dist.gather_object(here, ranks)
        return {"ranks": ranks or []}

    def recall(self, memory: dict[str, Any]) -> None:
        """Keep what the ranks remember until this one's is taken."""
        self._ranks = memory["ranks"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a training whose gradients it could not compress."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        strategy = type(trainer.strategy).__name__
        if strategy != "DDPStrategy":
            raise SparsityError(
                f"GradientCompression needs gradients that are sent between processes, and strategy={strategy} sends none "
                "that it could compress: write strategy='ddp' and devices=2 or more, or leave it out"
            )
        if comm_hook_of(trainer) is not None:
            raise SparsityError(
                "DDPStrategy has a ddp_comm_hook, and DDP takes one: leave it or GradientCompression out"
            )
        if loss_scaler_of(trainer) is not None:
            raise SparsityError(
                "precision='16-mixed' scales the loss by a factor that changes, and what is remembered would be of another "
                "scale: write precision='bf16-mixed'"
            )
        self._compressor = self._ranks = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Register the hook, before the first backward pass, and go on from what this rank remembers."""
        super().on_train_start(trainer, pl_module)
        if self.momentum_correction:
            self._refuse_momentum(trainer)
        model = trainer.strategy.model
        assert isinstance(model, DistributedDataParallel)
        parameters = {name: each for name, each in pl_module.named_parameters() if each.requires_grad}
        self._compressor = compressor = Compressor(parameters, self.density, self.memory_kept, self.momentum_correction)
        if self._ranks:
            if len(self._ranks) != trainer.world_size:
                raise SparsityError(
                    f"the checkpoint remembers gradients of {len(self._ranks)} processes, and this training has "
                    f"{trainer.world_size}: write devices={len(self._ranks)}, or start a new training from its weights "
                    "(without ckpt_path)"
                )
            compressor.load_state_dict(self._ranks[trainer.global_rank], parameters)
        self._ranks = None
        model.register_comm_hook(None, lambda state, bucket: compressor.hook(state, bucket))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Refuse a sparsity callback that needs the whole gradient of every step."""
        for callback in callbacks_of(trainer, EngineCallback):
            if callback.engine is not None and callback.engine.watching:
                raise SparsityError(
                    f"{type(callback).__name__} reads the whole gradient of every step "
                    f"({', '.join(f'{choice}={name!r}' for choice, name in callback.recipe.names.items())}), so that nothing "
                    "could be left out: choose a score such as 'magnitude' or 'random', or leave GradientCompression out"
                )

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look up who lives, and whether the coming update reads whole gradients."""
        engines = [callback.engine for callback in callbacks_of(trainer, EngineCallback) if callback.engine is not None]
        if self._compressor is not None:
            self._compressor.masks = {name: mask for engine in engines for name, mask in engine.masks.items()}
            self._compressor.dense = any(engine.gradients_wanted() for engine in engines)

    def _refuse_momentum(self, trainer: Trainer) -> None:
        for optimizer in trainer.optimizers:
            groups = optimizer.param_groups
            if not isinstance(optimizer, SGD) or any(group["momentum"] for group in groups):
                said = type(optimizer).__name__ + (f"(momentum={groups[0]['momentum']})" * isinstance(optimizer, SGD))
                raise SparsityError(
                    f"momentum_correction={self.momentum_correction:g} takes the place of SGD's momentum, and the optimizer "
                    f"is {said}: write SGD(momentum=0), or leave momentum_correction out"
                )

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the arguments, and what was restored."""
        return {**vars(self), "_compressor": None}
