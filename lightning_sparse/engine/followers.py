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


class Followers:
    """Keeps biases and BatchNorms of dead channels at zero through every step, as the masks keep weights.

    Attributes:
        parameters: what follows, by name.
        masks: which entries live.
    """

    def __init__(self, model: nn.Module, ties: TiedChannels) -> None:
        self.parameters = {name: model.get_parameter(name) for name in ties.vectors}
        self.masks = Masks.dense(self.parameters)
        self._ties = ties
        self._stepping = Stepping(self.parameters, self.masks, DenseGradients({}), lambda: False)
        self._stepping.stepped = lambda skipped: None
        self._stepping.leaked = lambda found: None  # the next verification says it

    def install(self, optimizers: Sequence[Optimizer]) -> None:
        """Hook into the optimizers."""
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
        for name in [name for name in self.masks if name in cuts]:
            self.masks.set(name, cuts[name](self.masks[name]))
        self.zero_dead()

    def leaks(self) -> dict[str, int]:
        """How many dead entries are not zero, by the name of their parameter."""
        return leaks(self.parameters, self.masks)
