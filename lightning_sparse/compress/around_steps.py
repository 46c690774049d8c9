"""Something done to the weights right before optimizers move them and right after, however optimizers hold each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from lightning_sparse.engine.hooks import around_step, count_of, is_trainers_own, nested, with_closure
from lightning_sparse.errors import SparsityError

Names = Sequence[str]


@dataclass
class _Nest:
    """An optimizer with those inside it, how many of their steps run now, and whether the weights are open to them."""

    optimizers: list[Optimizer]
    names: list[str] = field(default_factory=list)
    size: int = -1
    depth: int = 0
    open: bool = False


class AroundSteps:
    """Calls ``before`` right before the innermost optimizer moves weights, and ``after`` when the outermost is done.

    Not before the outermost begins, because SAM moves the weights by itself and back before it lets the one inside step, and
    because a closure runs a forward pass first. Not after the innermost is done, because Lookahead goes on to move them.

    Args:
        parameters: by name.
        before: called with the names of the parameters that are about to be moved.
        after: likewise, when they have been. What other hooks do after a step, if they were installed earlier, is done then.

    Attributes:
        taken: steps of the first optimizer that trains one of the parameters; those that a GradScaler skips do not count.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], before: Callable[[Names], None], after: Callable[[Names], None]
    ) -> None:
        self._parameters, self._before, self._after = parameters, before, after
        self.taken = 0
        self._nests: list[_Nest] = []
        self._off: list[Callable[[], None]] = []

    @property
    def inner(self) -> list[Optimizer]:
        """The innermost optimizers, which move the weights."""
        return [each for nest in self._nests for each in nest.optimizers if len(nested(each)) == 1]

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers and those inside them.

        Raises:
            SparsityError: if one is LBFGS, which goes back and forth between weights within a step, or schedule-free, which
                has an average to be used in the weights' place.
        """
        self.detach()
        for outermost in optimizers:
            known = {id(each) for nest in self._nests for each in nest.optimizers}
            inside = [each for each in nested(outermost) if not is_trainers_own(each)]
            if any(isinstance(each, LBFGS) for each in inside):
                self.detach()
                raise SparsityError(
                    "LBFGS evaluates the loss at many weights within a step, and these would not be of few values: train "
                    "with SGD or Adam"
                )
            free = next((each for each in inside if callable(getattr(each, "eval", None))), None)
            if free is not None:
                self.detach()
                raise SparsityError(
                    f"{type(free).__name__} puts an average in the weights' place by eval(), and that would not be of few "
                    "values: train with SGD or Adam"
                )
            if inside and not any(id(each) in known for each in inside):
                self._nests.append(_Nest(inside))
        for nest in self._nests:
            for optimizer in nest.optimizers:
                innermost = len(nested(optimizer)) == 1
                self._off += around_step(optimizer, partial(self._begin, nest, innermost), partial(self._end, nest))

    def detach(self) -> None:
        """Remove every hook; a step that was broken off is over."""
        for off in reversed(self._off):
            off()
        for nest in self._nests:
            self._close(nest)
        self._off, self._nests = [], []

    def _begin(self, nest: _Nest, innermost: bool, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        nest.depth += 1
        if not innermost:
            return None
        changed = with_closure(args, kwargs, partial(self._open, nest))
        if changed is None:
            self._open(nest)
        return changed

    def _end(self, nest: _Nest, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        nest.depth -= 1
        if nest.depth <= 0:
            if nest.optimizers[-1] is optimizer:
                self._open(nest)  # if it has moved the weights by itself, and let none inside step
            self._close(nest)

    def _open(self, nest: _Nest) -> None:
        if nest.open:
            return
        if nest.size != sum(map(count_of, nest.optimizers)):  # it has been given more since
            groups = [group for each in nest.optimizers for group in each.param_groups]
            theirs = {id(parameter) for group in groups for parameter in group["params"]}
            nest.names = [name for name, parameter in self._parameters.items() if id(parameter) in theirs]
            nest.size = sum(map(count_of, nest.optimizers))
        nest.open = True
        self._before(nest.names)

    def _close(self, nest: _Nest) -> None:
        nest.depth = 0
        if nest.open:
            nest.open = False
            self.taken += nest is next((each for each in self._nests if each.names), None)
            self._after(nest.names)
