"""Weights that are left out of one training step, and are there again in the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.parameters import outputs_first
from lightning_sparse.ephemeral.hook import Hook
from lightning_sparse.errors import SparsityError


class DroppedWeights:
    """Leaves random weights out of the forward passes of a step, in training mode; the parameters stay whole.

    Around the forward of the layer that owns a weight, another tensor stands under the weight's name: the weight with zeros
    in the dropped places. Autograd then gives a dropped weight no gradient, whatever the optimizer, and however often the
    layer is called. Optimizers, checkpoints, masks and evaluation never see anything but the whole weights. A weight that is
    zero is never dropped: it is dead, or has just been born, and its gradient is that of a network without this.

    Args:
        parameters: by name, as :func:`~lightning_sparse.sparsifiable` returns them.
        p: probability that a candidate is dropped, in [0, 1).
        share: the share of the living weights of each output, those of smallest magnitude, that are candidates; None makes
            all weights candidates and divides those that stay by ``1 - p``, so that the mean over many steps is the whole
            weight.
        seed: of the draws, each of which depends on nothing else but their number.

    Attributes:
        dropped: True where a weight is left out now, by name; empty before the first draw.
        draws: how many there have been.

    Example:
        >>> layer = nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[4.0, -1.0, 0.0, 3.0]]))
        >>> weights = DroppedWeights({"weight": layer.weight}, p=0.99, share=0.67)
        >>> weights.install(layer)
        >>> weights.draw()
        >>> weights.dropped["weight"].tolist()  # two of three living weights are candidates
        [[False, True, False, True]]
        >>> layer(torch.ones(4)).item(), layer.eval()(torch.ones(4)).item(), type(layer.weight).__name__
        (4.0, 6.0, 'Parameter')
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], p: float, share: float | None = None, seed: int = 0
    ) -> None:
        self.parameters = parameters
        self._p, self._share, self._seed = p, share, seed
        self.scale = 1.0 / (1.0 - p) if share is None else 1.0
        self.dropped: dict[str, Tensor] = {}
        self.draws = 0
        self.active = False
        self._hooks: list[_Standing] = []

    def install(self, model: nn.Module) -> None:
        """Hook into the layers that own the weights, before any of them is compiled.

        Raises:
            SparsityError: on a weight of a recurrent layer, which reads its weights from elsewhere.
        """
        self.detach()
        names = {id(parameter): name for name, parameter in self.parameters.items()}
        for path, layer in model.named_modules():
            places = {key: names[id(each)] for key, each in layer._parameters.items() if id(each) in names}
            if not places:
                continue
            if isinstance(layer, nn.RNNBase):
                raise SparsityError(
                    f"{next(iter(places.values()))!r} belongs to a {type(layer).__name__}, which reads its weights where "
                    f"they cannot be dropped: leave it out with exclude=['{path}.*']"
                )
            above, _, child = path.rpartition(".")
            caller = model.get_submodule(above)
            if not isinstance(
                caller, nn.MultiheadAttention
            ):  # which reads the weight of its out_proj, and never calls it
                caller, child = layer, ""
            self._hooks.append(_Standing(self, caller, child, places))

    def detach(self) -> None:
        """Remove every hook."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.active = [], False

    @torch.no_grad()
    def draw(self) -> None:
        """Choose the weights that the passes of the next step do without."""
        for name, parameter in self.parameters.items():
            if name not in self.dropped or self.dropped[name].shape != parameter.shape:  # narrowed since
                self.dropped[name] = torch.empty_like(parameter, dtype=torch.bool)
        seeds = np.random.SeedSequence((self._seed, self.draws)).generate_state(len(self.parameters), np.uint32)
        for (name, rows), seed in zip(outputs_first(self.parameters).items(), seeds, strict=True):
            dropped = self.dropped[name]  # written in place: what is compiled is guarded by the object
            torch.lt(_uniform(dropped, int(seed)), self._p, out=dropped)
            dropped &= self.parameters[name] != 0
            if self._share is not None:
                (dropped.mT if rows.shape != dropped.shape else dropped).logical_and_(smallest(rows, self._share))
        self.draws += 1
        self.active = True

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Drop nothing inside, as where a score looks at the network."""
        active, self.active = self.active, False
        try:
            yield
        finally:
            self.active = active

    def verify(self) -> None:
        """Raise a SparsityError if a weight has a gradient, and the layer that owns it has never been called."""
        for hook in self._hooks:
            for name in hook.places.values():
                gradient = self.parameters[name].grad
                if not hook.called and gradient is not None and bool(gradient.any()):
                    raise SparsityError(
                        f"{name!r} is trained, but not by a call of the layer that owns it, so that nothing of it is dropped "
                        f"(another layer reads it, or the layer was compiled and called before): leave it out with "
                        f"exclude=['{name}'], or compile the model without calling it"
                    )


class _Standing:
    """Puts the dropped weights of one layer in the place of the whole ones during a call; a copy of it does nothing."""

    def __init__(self, weights: DroppedWeights, caller: nn.Module, child: str, places: dict[str, str]) -> None:
        self._weights, self._child, self.places = weights, child, places
        self._away: dict[str, Any] = {}
        self.called = False
        self._handles = [
            caller.register_forward_pre_hook(Hook(self.before)),
            caller.register_forward_hook(Hook(self.after), always_call=True),  # also after an exception
        ]

    def before(self, module: nn.Module, *_: Any) -> None:
        weights = self._weights
        if not (weights.active and module.training) or self._away:
            return
        self.called = True
        held = (module.get_submodule(self._child) if self._child else module)._parameters
        for key, name in self.places.items():
            whole: Any = held[key]
            standing: Any = whole.masked_fill(weights.dropped[name], 0.0)
            if weights.scale != 1.0:
                standing = standing * weights.scale
            if not torch.compiler.is_compiling():
                standing._is_param = True  # to ``isinstance``, and so to ``get_parameter``
            self._away[key], held[key] = whole, standing  # at the same key, so that the order stays

    def after(self, module: nn.Module, *_: Any) -> None:
        held = (module.get_submodule(self._child) if self._child else module)._parameters
        for key, whole in self._away.items():
            held[key] = whole
        self._away.clear()

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def smallest(rows: Tensor, share: float) -> Tensor:
    """Mark, in each row of dimension 0, the ``share`` of smallest magnitude of those that are not zero, rounded to a count.

    Example:
        >>> smallest(torch.tensor([[0.0, -3.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, -1.0, 2.0]]), 0.5).int().tolist()
        [[0, 0, 1, 1, 0], [0, 0, 0, 1, 0]]
    """
    flat = rows.detach().abs().reshape(len(rows), -1)
    living = flat != 0
    counts = (living.sum(1, dtype=torch.float64) * share).round().long()
    least, most = (int(count) for count in counts.aminmax()) if len(counts) else (0, 0)
    places = flat.masked_fill(~living, torch.inf).topk(most, 1, largest=False, sorted=least < most).indices
    chosen = torch.arange(most, device=flat.device) < counts[:, None]
    return torch.zeros_like(living).scatter_(1, places, chosen).reshape(rows.shape)


def _uniform(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.rand(like.shape, generator=generator, device=like.device)
