"""What dies with a channel and is not counted: its biases, and its place in a BatchNorm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.engine.gradients import DenseGradients
from lightning_sparse.engine.leaks import leaks
from lightning_sparse.engine.masks import Masks
from lightning_sparse.engine.stepping import Stepping
from lightning_sparse.engine.tied_channels import TiedChannels
from lightning_sparse.errors import SparsityError


class Followers:
    """Keeps biases and BatchNorms of dead channels at zero through every step, as the masks keep weights.

    Without tied channels there are none, and everything here does nothing.

    Args:
        model: what they belong to.
        units: what dies as one; of :class:`TiedChannels`, those that have been found.

    Attributes:
        parameters: what follows, by name.
        masks: which entries live.
    """

    def __init__(self, model: nn.Module | None, units: object) -> None:
        self._ties = units if isinstance(units, TiedChannels) else TiedChannels()
        if self._ties is units and model is None:
            raise SparsityError("granularity='tied_channels' needs the model: build the Engine with model=")
        self.parameters = {} if model is None else {name: model.get_parameter(name) for name in self._ties.vectors}
        self.masks = Masks.dense(self.parameters)
        self._stepping = Stepping(self.parameters, self.masks, DenseGradients({}), lambda: False)
        self._stepping.stepped = lambda skipped: None
        self._stepping.leaked = lambda found: None  # the next verification says it

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers, if there is anything to keep."""
        if self.parameters:
            self._stepping.install(optimizers)

    def detach(self) -> None:
        """Remove every hook."""
        self._stepping.detach()

    def follow(self, masks: Mapping[str, Tensor]) -> None:
        """Die with the channels that are dead by these masks of the weights."""
        for name, alive in self._ties.spread(self._ties.alive(masks), self.parameters).items():
            self.masks.set(name, alive)
        self.zero_dead()

    def zero_dead(self) -> None:
        """Zero what is dead."""
        self.masks.apply(self.parameters)
        self._stepping.zero_dead()

    def narrow(self, cuts: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        """Go on with narrower parameters, whose masks are cut as they were."""
        self.masks.narrow(cuts)
        self.zero_dead()

    def leaks(self) -> dict[str, int]:
        """How many dead entries are not zero, by the name of their parameter."""
        return leaks(self.parameters, self.masks)
