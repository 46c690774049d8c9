"""Rewinding: after connections have died, the rest goes back to the weights of an earlier step, or to new random ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.anatomy.isolation import as_it_was
from lightning_sparse.engine.times import Time, check_time
from lightning_sparse.errors import SparsityError, check_flag


@dataclass(frozen=True)
class Rewind:
    """What happens to the weights after an update in which connections died.

    Every parameter and buffer of the model goes back to its values at step ``to`` (dead connections stay dead), and the
    optimizers' states are cleared. Frankle & Carbin 2019, "The lottery ticket hypothesis" (arXiv 1803.03635), with
    ``to=0``; Frankle et al. 2020, "Linear mode connectivity and the lottery ticket hypothesis" (arXiv 1912.05671), with an
    early step.

    Args:
        to: the step, an ``int`` in optimizer steps or a ``float`` as a share of the training.
        reinit: the control experiment: when the sparsity reaches its final value, draw new random weights instead, as
            each module's ``reset_parameters`` does.
    """

    to: Time = 0
    reinit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "to", check_time("to", self.to, one_step_likely=True))
        check_flag("reinit", self.reinit)


class Rewinding:
    """Keeps the weights of one step, and takes the model back to them; ``done`` says how often it has.

    ``rewind`` is resolved, and ``seed`` is for the new random weights of the control. If these are asked for and some
    parameter could not be drawn anew, it raises a SparsityError.
    """

    def __init__(self, rewind: Rewind, model: nn.Module, seed: int) -> None:
        if rewind.reinit:
            check_drawable(model)
        self._rewind, self._model, self._seed = rewind, model, seed
        self._saved: dict[str, Tensor] = {}
        self.done = 0

    def is_due(self, step: int) -> bool:
        """Whether to keep the weights of this step."""
        return not self._saved and step >= int(self._rewind.to)

    def keep(self, step: int) -> None:
        """Keep the weights, if this is the step to keep."""
        if self.is_due(step):
            self._saved = snapshot(self._model)

    def go_back(self, optimizers: Iterable[Optimizer], *, last: bool) -> None:
        """Write the weights back, or draw new ones the last time if asked to, and clear the optimizers' states."""
        if not self._saved:  # connections died before that step
            return
        restore(self._model, self._saved)
        if self._rewind.reinit and last:
            draw_anew(self._model, self._seed)
        for optimizer in optimizers:
            optimizer.state.clear()
        self.done += 1

    def state_dict(self) -> dict[str, Any]:
        """The weights, and how often the model has gone back to them."""
        return {"saved": {name: tensor.cpu() for name, tensor in self._saved.items()}, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._saved, self.done = dict(state["saved"]), state["done"]


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy every parameter and buffer, by name."""
    return {name: tensor.detach().clone() for name, tensor in _everything(model)}


@torch.no_grad()
def restore(model: nn.Module, saved: dict[str, Tensor]) -> None:
    """Write a :func:`snapshot` back in place.

    Example:
        >>> net = nn.Linear(2, 2)
        >>> saved = snapshot(net)
        >>> _ = net.weight.data.zero_()
        >>> restore(net, saved)
        >>> bool((net.weight == saved["weight"]).all())
        True
    """
    for name, tensor in _everything(model):
        tensor.copy_(saved[name])


def draw_anew(model: nn.Module, seed: int) -> None:
    """Draw new random weights, as each module's ``reset_parameters`` does; global random states stay as they are."""
    drawn: dict[int, Tensor] = {}
    with as_it_was(model), torch.no_grad():
        torch.manual_seed(seed)
        for module, reset in _resets(model):
            reset()
            drawn |= {id(tensor): tensor.clone() for tensor in (*module.parameters(), *module.buffers())}
    with torch.no_grad():  # after the context, which has put the buffers back
        for _, tensor in _everything(model):
            tensor.copy_(drawn.get(id(tensor), tensor))


def check_drawable(model: nn.Module) -> None:
    """Raise a SparsityError if some parameter could not be drawn anew."""
    drawn = {id(parameter) for module, _ in _resets(model) for parameter in module.parameters()}
    missing = [name for name, parameter in model.named_parameters() if id(parameter) not in drawn]
    if missing:
        raise SparsityError(
            f"reinit=True: {', '.join(missing[:5])} cannot be drawn anew, because no module that holds it has a "
            "reset_parameters(): write one, or use reinit=False"
        )


def _everything(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    return (*model.named_parameters(), *model.named_buffers())


def _resets(model: nn.Module) -> Iterator[tuple[nn.Module, Any]]:
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            yield module, reset
