"""The optimizers that train the sparse weights, and what is done around each of their steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.engine.gradients import DenseGradients
from lightning_sparse.engine.hooks import (
    PERTURBING,
    around_method,
    around_step,
    count_of,
    is_elementwise,
    is_trainers_own,
    nested,
    with_closure,
)
from lightning_sparse.engine.keeper import Keeper
from lightning_sparse.engine.leaks import leaks
from lightning_sparse.engine.masks import Masks
from lightning_sparse.engine.optimizers import copies_of_weights, found_inf


@dataclass
class Hooked:
    """What the engine knows about an optimizer that it is hooked into.

    Attributes:
        mine: the sparse parameters that it trains, by name.
        keeper: zeroes their dead connections.
        size: how many parameters it trains in all.
        whole: the outermost optimizer around it, or itself.
        elementwise: whether the gradient of one weight is known not to reach another.
        stepped: whether the step that runs has been counted: by an optimizer inside, or by the hooks of the parent class,
            whose step some steps call.
    """

    mine: dict[str, nn.Parameter]
    keeper: Keeper
    size: int
    whole: Optimizer
    elementwise: bool
    stepped: bool = False


class Stepping:
    """Keeps dead weights at zero around every step, and their gradients away from the living.

    Args:
        parameters: the sparse parameters, by name.
        masks: their masks.
        gradients: where dense gradients are kept for scores.
        wanted: says whether the coming step's gradients are to be read.

    Attributes:
        owners: the optimizers that train each parameter, innermost first.
        stepped: called after a step of the clock, with what a GradScaler has told a fused optimizer, if it has.
        leaked: called with the dead weights that something else has moved, to refuse them.
    """

    stepped: Callable[[Tensor | None], None]
    leaked: Callable[[Mapping[str, int]], None]

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        masks: Masks,
        gradients: DenseGradients,
        wanted: Callable[[], bool],
    ) -> None:
        self._parameters, self._masks = parameters, masks
        self._gradients, self._wanted = gradients, wanted
        self.owners: dict[str, list[Optimizer]] = {}
        self._versions: dict[str, int] = {}
        self._hooked: dict[Optimizer, Hooked] = {}
        self._clock: Optimizer | None = None
        self._off: list[Callable[[], None]] = []
        self._gradients_read = False

    @property
    def installed(self) -> bool:
        """Whether there are hooks on optimizers now."""
        return bool(self._off)

    @property
    def optimizers(self) -> list[Optimizer]:
        """All that train a sparse parameter, but for the wrappers of Lightning and Fabric."""
        return list(dict.fromkeys(optimizer for owners in self.owners.values() for optimizer in owners))

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers and those inside them; the first that trains a sparse parameter is the clock."""
        for outermost in optimizers:
            nest = nested(outermost)
            whole = next((self._hooked[each].whole for each in nest if each in self._hooked), outermost)
            for optimizer in nest:
                if optimizer not in self._hooked:
                    self._hook_into(optimizer, whole)
        outermost_ones = [hooked for optimizer, hooked in self._hooked.items() if hooked.whole is optimizer]
        clock = next((each for each in outermost_ones if each.mine), next(iter(outermost_ones), None))
        self._clock = clock.whole if clock else None

    def _hook_into(self, optimizer: Optimizer, whole: Optimizer) -> None:
        self._own(optimizer, whole)
        if not is_trainers_own(optimizer):
            self._off += around_step(optimizer, self._begin_step, self._after_step)
        self._off += around_method(optimizer, "second_step", self._begin_step, self._after_step)
        for name in PERTURBING:
            self._off += around_method(optimizer, name, self._begin_perturbing, self._after_perturbing)

    def _own(self, optimizer: Optimizer, whole: Optimizer) -> Hooked:
        """Look up which parameters an optimizer trains, now and whenever it is given more of them."""
        theirs = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        mine = {name: parameter for name, parameter in self._parameters.items() if id(parameter) in theirs}
        before = self._hooked.get(optimizer)
        keeper, stepped = Keeper(self._masks, mine, self._versions), before.stepped if before else False
        hooked = Hooked(mine, keeper, count_of(optimizer), whole, is_elementwise(optimizer), stepped)
        for name in mine:
            if optimizer not in self.owners.setdefault(name, []) and not is_trainers_own(optimizer):
                self.owners[name].append(optimizer)
        self._hooked[optimizer] = hooked
        return hooked

    def _trains_all(self, hooked: Hooked) -> bool:
        """Whether an optimizer trains all sparse parameters that the outermost around it does, and so its step is a step."""
        return len(hooked.mine) == len(self._hooked[hooked.whole].mine)

    def detach(self) -> None:
        """Remove every hook."""
        for off in reversed(self._off):
            off()
        self._off, self.owners, self._hooked, self._clock = [], {}, {}, None

    def before_step(self, optimizer: Optimizer, *, zero_dead: bool) -> None:
        """Read the dense gradients of an optimizer's parameters if they are wanted, and zero those of the dead if told to."""
        hooked = self._hooked.get(optimizer)
        if hooked is not None:
            self._read_gradients(hooked)
            if zero_dead:
                self._hide_dead_gradients(hooked)

    def zero_dead(self) -> None:
        """Zero the dead weights of every optimizer."""
        for hooked in self._hooked.values():
            hooked.keeper.zero_dead()

    def mark(self) -> None:
        """Take the weights as they are now for those that nothing else has moved."""
        for hooked in self._hooked.values():
            hooked.keeper.mark()

    def moved(self) -> bool:
        """Whether torch has counted a write to a weight since the dead were zeroed the last time."""
        return any([hooked.keeper.moved() for hooked in self._hooked.values()])

    def _read_gradients(self, hooked: Hooked) -> None:
        if self._gradients:
            self._gradients.forget(hooked.mine)  # what a skipped step has left behind
        if self._wanted():
            self._gradients.read(hooked.mine)
        self._gradients_read = True

    def _hide_dead_gradients(self, hooked: Hooked) -> None:
        self._masks.apply({name: p.grad for name, p in hooked.mine.items() if p.grad is not None})

    # A hook outlives detach() where somebody has wrapped the method again; then it does not know the optimizer any more.

    def _begin_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
        """Notice weights that have been moved; hide the gradients of the dead from optimizers that mix them with others."""
        hooked = self._hooked.get(optimizer)
        if hooked is None:
            return None
        hooked.stepped = False
        if hooked.keeper.moved():
            self.leaked(leaks(hooked.mine, self._masks))
            hooked.keeper.mark()
        if hooked.elementwise:
            return None

        def hide() -> None:
            if not self._gradients_read:
                self._read_gradients(hooked)
            self._hide_dead_gradients(hooked)

        changed = with_closure(args, kwargs, hide)
        if changed is None:
            hide()
        return changed

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Tell the clock's step, and zero the dead weights and their copies in the optimizer's state."""
        hooked = self._hooked.get(optimizer)
        if hooked is None:
            return
        if hooked.size != count_of(optimizer):
            hooked = self._own(optimizer, hooked.whole)
        if not hooked.stepped and self._trains_all(hooked):
            self._gradients.unscale(hooked.mine, optimizer)
            if hooked.whole is self._clock:
                self.stepped(found_inf(optimizer))
            if len(self._hooked) > 1:
                for other in self._hooked.values():
                    other.stepped |= other.whole is hooked.whole  # those around it do not count it again
            hooked.stepped, self._gradients_read = True, False
        hooked.keeper.zero_dead()
        if not hooked.elementwise:
            for name, parameter in hooked.mine.items():
                for copy in copies_of_weights(optimizer, parameter):
                    self._masks.apply({name: copy})

    def _begin_perturbing(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer in self._hooked:
            self._hide_dead_gradients(self._hooked[optimizer])  # its radius is a norm of the living

    def _after_perturbing(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if optimizer in self._hooked:
            self._hooked[optimizer].keeper.zero_dead()
