"""Train with a few weights left out of every step, so that the network can do without."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_sparse.anatomy.parameters import sparsifiable
from lightning_sparse.anatomy.patterns import check_patterns
from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.refusals import refuse_sharded
from lightning_sparse.callbacks.trainer.same_arguments import SameArguments
from lightning_sparse.ephemeral.dropped_weights import DroppedWeights
from lightning_sparse.errors import SparsityError, check_seed, check_share


class WeightDropout(SameArguments):
    """Leave each living weight out of a training step with probability ``p`` (DropConnect: Wan et al. 2013, ICML).

    Weights that stay are divided by ``1 - p``, so that evaluation, which sees whole weights, needs no correction. One draw
    serves a batch, and under DDP all ranks; the paper draws for each example, which would need a weight for each.

    It goes with any sparsity callback, whose dead weights it leaves alone, and with any optimizer: the parameters are whole
    at all times but inside the forward of their own layer. The draws are its own: no other random number changes, and a
    resumed training goes on bit for bit.

    Args:
        p: in (0, 1).
        include: shell-style patterns of parameter names; None takes the trained weights of Linear and Conv layers.
        exclude: patterns of names to leave as they are.
        seed: of the draws.

    Attributes:
        weights: what leaves them out, with ``dropped`` by name; None before training.

    Raises:
        SparsityError: on arguments out of range; when training starts, on weights of recurrent layers; after the first
            backward pass, on a weight that is used without a call of the layer that owns it.

    Example:
        >>> from lightning_sparse import GradualPruning
        >>> callbacks = [GradualPruning(0.9), WeightDropout(0.5)]
    """

    share: float | None = None

    def __init__(
        self,
        p: float = 0.5,
        *,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0.0 < check_share("p", p) < 1.0:
            raise SparsityError(f"p={p!r} drops {'all' if p else 'nothing'}: write a probability such as 0.5")
        self.p, self.seed = float(p), check_seed(seed)
        self.include, self.exclude = check_patterns("include", include), check_patterns("exclude", exclude)
        self.weights: DroppedWeights | None = None
        self._verified = False

    @property
    def kind(self) -> str:
        """The key of the state in a checkpoint: two callbacks on different parameters of one model have different ones."""
        return f"{type(self).__name__}[include={self.include}, exclude={self.exclude}]"

    instead = "both want the same parameters: leave one out, or give each parameter to one of them with include=[...]"

    def arguments(self) -> dict[str, Any]:
        """What decides which weights are dropped."""
        return {"p": self.p, "share": self.share, "seed": self.seed}

    def memory(self) -> dict[str, Any]:
        """How many draws there have been."""
        return {"draws": self.weights.draws if self.weights else 0}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on with the next draw."""
        assert self.weights is not None
        self.weights.draws = int(memory["draws"])

    def paused(self) -> AbstractContextManager[None]:
        """A context in which weights are whole."""
        return self.weights.whole() if self.weights else nullcontext()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse strategies under which a layer does not have its weights."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            refuse_sharded(trainer, "the smallest weights of an output cannot be found")
            self.weights, self._verified = None, False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the layers, before anything that is compiled has run and after the module has made them."""
        parameters = sparsifiable(pl_module, self.include, self.exclude)
        for other in callbacks_of(trainer, WeightDropout):
            both = parameters.keys() & (other.weights.parameters.keys() if other.weights else set())
            if both:
                raise SparsityError(
                    f"{type(other).__name__} and {type(self).__name__} both want {min(both)!r}: give each parameter to one "
                    "of them with include=[...] and exclude=[...]"
                )
        self.weights = DroppedWeights(parameters, self.p, self.share, self.seed)
        self.weights.install(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Choose the weights that this batch does without."""
        assert self.weights is not None
        self.weights.draw()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the first, see whether what is trained was dropped."""
        if self.weights is not None and not self._verified:
            self.weights.verify()
            self._verified = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Drop nothing until the next batch, in whichever mode the module is."""
        if self.weights is not None:
            self.weights.active = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave no hook behind."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave no hook behind."""
        if self.weights is not None:
            self.weights.detach()

    def __getstate__(self) -> dict[str, Any]:
        """A copy, or a spawned process, gets the state of the training, not its weights."""
        return {**vars(self), "weights": None, "_restored": self.state_dict() if self.weights else self._restored}


class TargetedDropout(WeightDropout):
    """Leave the smallest weights out of training steps, so that they can be pruned (Gomez et al. 2019, arXiv 1905.13678).

    Of each output, the ``share`` of its living weights with the smallest magnitudes are candidates, and each candidate is
    left out of a step with probability ``p``. Nothing is rescaled: the network is to live without these weights. Which are
    the smallest is asked anew for every batch. Afterwards, ``OneShot`` or any other pruning by magnitude does less harm.

    Everything else is as with :class:`WeightDropout`.

    Args:
        share: of the living weights of an output, in (0, 1].
        p: probability that a candidate is dropped, in (0, 1).
        include: shell-style patterns of parameter names; None takes the trained weights of Linear and Conv layers.
        exclude: patterns of names to leave as they are.
        seed: of the draws.

    Attributes:
        weights: what leaves them out, with ``dropped`` by name; None before training.

    Raises:
        SparsityError: as :class:`WeightDropout`.

    Example:
        >>> callbacks = [TargetedDropout(share=0.9, p=0.66, exclude=["*head.weight"])]
    """

    def __init__(
        self,
        share: float = 0.75,
        p: float = 0.66,
        *,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(p, include=include, exclude=exclude, seed=seed)
        if not check_share("share", share):
            raise SparsityError(f"share={share!r} makes no weight a candidate: write a share such as 0.75")
        self.share = float(share)
