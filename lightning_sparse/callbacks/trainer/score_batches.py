"""What a score of the whole network reads: the Trainer's batches and the loss of ``training_step``."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_sparse.callbacks.trainer.callbacks_of import callbacks_of
from lightning_sparse.callbacks.trainer.private import first_batches, moved_to_device
from lightning_sparse.callbacks.trainer.same_arguments import SameArguments
from lightning_sparse.engine.scores.of_network import Network, looking_at
from lightning_sparse.errors import SparsityError


class ScoreBatches:
    """Give scores the network with batches: the loader's first ones before the first step, later the last ones trained on.

    Training still sees every batch: those taken from the loader's iterator are put back in front of it. (A loader with a
    state of its own is therefore that far ahead until they are used up. The last batches are not in checkpoints: a run
    resumed less than ``score_batches`` steps before an update in mid-training scores fewer of them.)

    ``most`` is how many batches a score may ask for.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        parameters: dict[str, nn.Parameter],
        loss_fn: Callable[[Any, Any], Tensor] | None,
        most: int,
    ) -> None:
        self._trainer, self._module, self._parameters = trainer, module, parameters
        self._loss = loss_fn or _training_loss
        self._recent: deque[Any] = deque(maxlen=most)

    def remember(self, batch: Any) -> None:
        """Remember a batch that is being trained on."""
        self._recent.append(batch)

    def forget(self) -> None:
        """Release the batches."""
        self._recent.clear()

    @contextmanager
    def look(self, count: int) -> Iterator[Network]:
        """Yield the network with ``count`` batches, or as many as there are."""
        batches = list(self._recent)
        if not batches:
            first = first_batches(self._trainer, count)
            batches = [moved_to_device(self._trainer, self._module, batch) for batch in first]
        with ExitStack() as stack:
            for callback in callbacks_of(self._trainer, SameArguments):
                stack.enter_context(callback.paused())
            network = stack.enter_context(looking_at(self._module, self._parameters, batches, self._loss))
            stack.enter_context(_no_logging(self._module))
            yield network


@contextmanager
def _no_logging(module: LightningModule) -> Iterator[None]:
    """Switch the module's logging off: what a score computes is not a training step."""
    names = ("log", "log_dict")
    own = {name: vars(module)[name] for name in names if name in vars(module)}
    for name in names:
        object.__setattr__(module, name, lambda *arguments, **named: None)
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(module, name)
        vars(module).update(own)


def _training_loss(module: Any, batch: Any) -> Tensor:
    names = list(inspect.signature(module.training_step).parameters)
    if "dataloader_iter" in names:
        raise SparsityError("training_step takes a dataloader_iter, and a score has none: give loss_fn=(module, batch)")
    output = module.training_step(batch, 0) if len(names) > 1 else module.training_step(batch)
    loss = output.get("loss") if isinstance(output, dict) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise SparsityError(
            f"training_step returned {type(output).__name__}, not the scalar loss that a score needs: give "
            "loss_fn=(module, batch)"
        )
    return loss
