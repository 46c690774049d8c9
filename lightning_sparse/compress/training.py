"""How a step of a compression trains what it has made, and on what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils._pytree import tree_map
from tqdm import tqdm

from lightning_sparse.anatomy.isolation import device_of, fork_random_states
from lightning_sparse.compress.draft import Draft
from lightning_sparse.engine.masks import Masks
from lightning_sparse.errors import SparsityError


class Epochs:
    """Training batches, epoch by epoch: of a loader as it is, or of tensors in another order each time.

    Example:
        >>> epochs = Epochs((torch.arange(5), torch.arange(5)), batch_size=2)
        >>> len(epochs), [len(inputs) for inputs, truth in epochs.of(0)]
        (3, [2, 2, 1])
    """

    def __init__(self, data: Any, batch_size: int = 64, seed: int = 0) -> None:
        _check(data)
        self._tensors = isinstance(data, Sequence) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
        self._data, self._size, self._seed = data, batch_size, seed

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._data[0]) // self._size) if self._tensors else len(self._data)

    def of(self, epoch: int) -> Iterator[tuple[Any, Any]]:
        """The batches of an epoch."""
        if not self._tensors:
            yield from self._data
            return
        inputs, truth = self._data
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(self._seed + epoch))
        for some in order.split(self._size):  # type: ignore[no-untyped-call]
            yield inputs[some], truth[some]


def _check(data: Any) -> None:
    """Refuse what holds no batches."""
    pair = isinstance(data, Sequence) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    if pair and (data[0].dim() == 0 or len(data[0]) == 0 or data[1].dim() == 0 or len(data[0]) != len(data[1])):
        shapes = ", ".join(str(tuple(part.shape)) for part in data)
        raise SparsityError(f"data holds tensors of shapes {shapes}: give as many labels as inputs, at least one")
    if not (pair or (isinstance(data, Iterable) and hasattr(data, "__len__") and not isinstance(data, str | Tensor))):
        raise SparsityError(
            f"data={type(data).__name__} is no loader of known length and no pair of tensors: write data=loader, or "
            "data=(images, labels)"
        )
    if not pair and not len(data):
        raise SparsityError("data is empty: give at least one batch")


@dataclass(frozen=True)
class Training:
    """How a step trains what it has made.

    Attributes:
        data: the training batches.
        epochs: of each step that trains; 0 trains none.
        optimizer: makes an optimizer of parameters; None is Adam at 1e-3.
        loss: of what the model gives and the second half of a batch.
        seed: of the random states inside.
        progress: show a bar.
    """

    data: Epochs
    epochs: int
    optimizer: Callable[[Any], Optimizer] | None = None
    loss: Callable[[Any, Any], Tensor] = F.cross_entropy
    seed: int = 0
    progress: bool = False

    def run(self, draft: Draft, *, what: str, hold: Callable[[Optimizer, int], Any] | None = None) -> None:
        """Train, with what ``hold(optimizer, steps)`` hooks into the optimizer; its ``detach()`` is called at the end.

        Dead connections stay dead. The learning rate falls to zero along a cosine.
        """
        if not self.epochs:
            return
        model, device = draft.model, device_of(draft.model)
        with torch.enable_grad(), fork_random_states(self.seed), _trained(model), ExitStack() as stack:
            optimizer = self._optimizer_of(model)
            if draft.alive:
                stack.callback(_keep_dead(draft, optimizer))
            steps = self.epochs * len(self.data)
            held = hold(optimizer, steps) if hold else None
            if held is not None:
                stack.callback(held.detach)
            scheduler = CosineAnnealingLR(optimizer, steps)
            batches = chain.from_iterable(self.data.of(epoch) for epoch in range(self.epochs))
            for batch in tqdm(batches, what, steps, disable=not self.progress, leave=False):
                optimizer.zero_grad()
                self._loss_of(model, batch, device).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                scheduler.step()

    def check(self, model: nn.Module) -> None:
        """Try the first batch on a copy of the network, or raise a SparsityError that says what does not fit."""
        with torch.enable_grad(), fork_random_states(self.seed), _trained(model):
            self._optimizer_of(model)
            batch = next(iter(self.data.of(0)))
            try:
                loss = self._loss_of(model, batch, device_of(model))
                loss.backward()  # type: ignore[no-untyped-call]
            except SparsityError:
                raise
            except Exception as error:
                raise SparsityError(
                    f"loss(model(inputs), truth) cannot be trained on the first batch of data ({type(error).__name__}: "
                    f"{error}): give data that the model was trained on, or write loss="
                ) from error
            if not bool(loss.isfinite().all()):
                raise SparsityError(
                    f"loss={loss.item():g} on the first batch of data: give inputs and labels that are finite"
                )

    def _optimizer_of(self, model: nn.Module) -> Optimizer:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = self.optimizer(parameters) if self.optimizer else Adam(parameters, 1e-3)
        if not isinstance(optimizer, Optimizer):
            raise SparsityError(
                f"optimizer= returned {type(optimizer).__name__}: write optimizer=lambda weights: "
                "torch.optim.SGD(weights, lr=0.1)"
            )
        return optimizer

    def _loss_of(self, model: nn.Module, batch: Any, device: torch.device) -> Tensor:
        if not (isinstance(batch, Sequence) and len(batch) == 2):
            raise SparsityError(f"data gives a {type(batch).__name__}: let each batch be (inputs, truth)")
        inputs, truth = tree_map(lambda part: part.to(device) if isinstance(part, Tensor) else part, batch)
        return self.loss(model(**inputs) if isinstance(inputs, Mapping) else model(inputs), truth)


def _keep_dead(draft: Draft, optimizer: Optimizer) -> Callable[[], None]:
    masks = Masks.dense(draft.weights())
    for name, alive in draft.alive.items():
        masks.set(name, alive)
    weights = draft.weights()
    handle = optimizer.register_step_post_hook(lambda *_: masks.apply(weights))
    return handle.remove


@contextmanager
def _trained(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        for module, training in flags:  # a layer that its owner keeps as it is
            parameters = list(module.parameters())
            if not training and parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training
        for parameter in model.parameters():
            parameter.grad = None
