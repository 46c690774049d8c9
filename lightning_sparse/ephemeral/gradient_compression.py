"""Send few entries of the gradients from process to process, and remember the others for later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError

Masks = Mapping[str, Tensor]


class Compressor:
    """The communication hook of a DistributedDataParallel that sends the entries of largest magnitude.

    Of each parameter of two or more dimensions, every process sends as many entries of its own choice, with their places in
    32 bits, and each gets the mean of what all have sent; vectors (biases, norms) are sent whole, as in the authors' code of
    deep gradient compression (Lin et al. 2018, arXiv 1712.01887). What is not sent is remembered and added to the next
    gradient: ``v <- v + g``, send the largest of ``v``, ``v <- 0`` there. With momentum correction ``u <- m u + g`` and
    ``v <- v + u``, and both are 0 where they were sent.

    Dead connections are neither sent nor remembered.

    Args:
        parameters: all that the processes train together, by name.
        density: the share of a parameter's living entries that is sent, in (0, 1]; 1 sends everything as without this.
        memory: whether what is not sent is remembered.
        momentum: ``m``, in [0, 1); 0 is without momentum correction.

    Attributes:
        masks: which connections live, by name; those of other parameters all do.
        dense: send everything as without this, for as long as it is True; what is remembered waits.
        sent: bytes that this process has given to collective operations.
        whole: bytes that it would have given without this.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1, 4))
        >>> compressor = Compressor({"weight": weight}, density=0.25)
        >>> [compressor.chosen("weight", torch.tensor([[1.0, 3.0, 2.0, 0.0]])) for _ in range(2)]  # 2, and what was kept
        [(tensor([3.]), tensor([1], dtype=torch.int32)), (tensor([4.]), tensor([2], dtype=torch.int32))]
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], density: float, memory: bool = True, momentum: float = 0.0
    ) -> None:
        self._names = {id(parameter): name for name, parameter in parameters.items()}
        self._density, self._memory, self._momentum = density, memory, momentum
        self._residual: dict[str, Tensor] = {}
        self._velocity: dict[str, Tensor] = {}
        self.masks: Masks = {}
        self.dense = False
        self.sent = self.whole = 0

    def hook(self, state: object, bucket: Any) -> torch.futures.Future[Tensor]:
        """What DistributedDataParallel calls with each GradBucket; buckets change after the first step, parameters do not."""
        flat = bucket.buffer()
        self.whole += flat.nbytes
        if self.dense or self._density == 1.0:
            self.sent += flat.nbytes
            flat.div_(dist.get_world_size())
            dist.all_reduce(flat)
        else:
            pairs = list(zip(bucket.parameters(), bucket.gradients(), strict=True))
            self._average_vectors([gradient for parameter, gradient in pairs if parameter.dim() < 2])
            self._exchange({self._names[id(each)]: gradient for each, gradient in pairs if each.dim() >= 2})
        done: torch.futures.Future[Tensor] = torch.futures.Future()
        done.set_result(flat)
        return done

    def _average_vectors(self, gradients: list[Tensor]) -> None:
        if gradients:
            flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(dist.get_world_size())
            self.sent += flat.nbytes
            dist.all_reduce(flat)
            means = torch.split(flat, [each.numel() for each in gradients])
            for gradient, mean in zip(gradients, means, strict=True):
                gradient.copy_(mean.view_as(gradient))

    def _exchange(self, gradients: Mapping[str, Tensor]) -> None:
        """Replace the gradients by the mean of what all processes have chosen of theirs, in two messages."""
        if not gradients:
            return
        chosen = [self.chosen(name, gradient) for name, gradient in gradients.items()]
        sizes = [len(values) for values, _ in chosen]  # the same on every rank, as the masks are
        values, places = (_gathered(torch.cat(parts)) for parts in zip(*chosen, strict=True))
        self.sent += values[0].nbytes + places[0].nbytes
        means = [torch.zeros_like(gradient, memory_format=torch.contiguous_format) for gradient in gradients.values()]
        for theirs, at in zip(values, places, strict=True):  # rank by rank, so that all add in the same order
            for mean, value, place in zip(means, torch.split(theirs, sizes), torch.split(at, sizes), strict=True):
                mean.view(-1).index_add_(0, place, value / len(values))
        for gradient, mean in zip(gradients.values(), means, strict=True):
            gradient.copy_(mean)

    @torch.no_grad()
    def chosen(self, name: str, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The entries of a gradient that are sent, and their places in the flat parameter; the others are remembered."""
        value = gradient.flatten()
        mask = self.masks.get(name)
        living = value.numel() if mask is None else int(mask.sum())
        if self._momentum:
            velocity = self._velocity.setdefault(name, torch.zeros_like(value))
            value = velocity.mul_(self._momentum).add_(value)
        value = self._residual.setdefault(name, torch.zeros_like(value)).add_(value) if self._memory else value.clone()
        if mask is not None:
            dead = ~mask.flatten()
            for kept in (value, *self._kept(name)):
                kept.masked_fill_(dead, 0.0)
        count = min(living, max(1, round(self._density * living)))
        ranked = value.abs() if mask is None else value.abs().masked_fill_(dead, -1.0)  # the living first, be they 0
        places = ranked.topk(count, sorted=False).indices
        values = value[places]
        for kept in self._kept(name):
            kept[places] = 0.0
        return values, places.int()

    def _kept(self, name: str) -> list[Tensor]:
        return [kept[name] for kept in (self._residual, self._velocity) if name in kept]

    @property
    def share(self) -> float:
        """Bytes sent as a share of those that would have been without this; NaN before the first."""
        return self.sent / self.whole if self.whole else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """What this process remembers, by parameter."""
        return {"residual": dict(self._residual), "velocity": dict(self._velocity), "bytes": [self.sent, self.whole]}

    def load_state_dict(self, state: Mapping[str, Any], parameters: Mapping[str, nn.Parameter]) -> None:
        """Go on from there.

        Raises:
            SparsityError: if it remembers parameters that there are not, or of another size.
        """
        for kept, found in ((self._residual, state["residual"]), (self._velocity, state["velocity"])):
            for name, remembered in found.items():
                if name not in parameters or remembered.numel() != parameters[name].numel():
                    raise SparsityError(
                        f"the checkpoint remembers gradients of {name!r} with {remembered.numel()} entries, and the model "
                        "has no such parameter: resume the model that was trained"
                    )
                kept[name] = remembered.to(parameters[name], copy=True)
        self.sent, self.whole = (int(count) for count in state["bytes"])


def _gathered(mine: Tensor) -> list[Tensor]:
    everyones = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyones, mine)
    return everyones
