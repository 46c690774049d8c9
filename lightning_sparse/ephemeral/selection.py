"""A layer reads few of its inputs, others for each example: a hook before its forward pass, and what the hook remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_sparse.anatomy.layers import outputs_and_inputs
from lightning_sparse.ephemeral.rules import boosted, magnitude_at, running_mean, winners

RULES = ("k_winners", "top_k", "threshold")
_KEPT = ("mean", "seen", "boost", "density", "eval_density")


class Selection:
    """The pre-hook of one Linear or Conv layer. In convolutions all positions of all channels of an example compete.

    It holds its own state and knows no callback, so that a copy of the model has one of its own. Within a forward pass it
    only adds up (``total``, ``count``); :meth:`settle` brings the mean up to date between two steps, so that a pass which is
    computed again selects the same.

    Attributes:
        mean: (units,) of ``"k_winners"``: the duty, the share of examples in which a unit won with a positive value. (1,) of
            ``"threshold"``: the magnitude up to which inputs are dropped; 0, which drops nothing, before it has seen a batch.
        seen: examples behind the mean.
        density: share of the inputs that is kept in training; ``eval_density`` in eval mode.
        boost: how much units that win seldom are preferred.
        calls: forward passes so far, by which the callback notices a hook that never runs.
        straight_through: whether gradients pass as if nothing had been dropped.
    """

    def __init__(self, layer: nn.Module, rule: str, period: int) -> None:
        self.rule, self.period, self.straight_through = rule, period, False
        self.axes = 1 + len(layer.kernel_size) if isinstance(layer, _ConvNd) else 1
        units = outputs_and_inputs(layer)[1] if rule == "k_winners" else 1
        device = next(layer.parameters()).device
        self.mean, self.total = torch.zeros(units, device=device), torch.zeros(units, device=device)
        self.count, self.seen, self.calls = (torch.zeros((), device=device) for _ in range(3))
        self.density, self.eval_density = (torch.ones((), device=device) for _ in range(2))
        self.boost = torch.zeros((), device=device)

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Drop inputs of the layer."""
        if not inputs:  # given by keyword
            return None
        self.calls.add_(1)
        x: Tensor = inputs[0]
        with torch.no_grad():
            flat = x.detach().flatten(-self.axes)
            kept = self._kept(flat, layer.training).view(x.shape)
            if layer.training:
                self._add(x.detach(), flat, kept)
        # x - x is 0, with the gradient of x.
        return torch.where(kept, x, x - x.detach() if self.straight_through else 0.0), *inputs[1:]

    def _kept(self, flat: Tensor, training: bool) -> Tensor:
        density = self.density if training else self.eval_density
        if self.rule == "threshold":
            return flat.abs() > self.mean
        if self.rule == "k_winners":
            positions = flat.shape[-1] // len(self.mean)
            duty = self.mean.repeat_interleave(positions) if positions > 1 else self.mean
            flat = boosted(flat, duty, density, self.boost)
        return winners(flat, density)

    def _add(self, x: Tensor, flat: Tensor, kept: Tensor) -> None:
        examples = flat.numel() // max(1, flat.shape[-1])
        if self.rule == "threshold" and examples:
            self.total.add_(magnitude_at(flat, self.density) * examples)
        elif self.rule == "k_winners":
            won = (kept & (x > 0)).view(examples, len(self.mean), -1)
            self.total.add_(won.float().mean(dim=2).sum(dim=0))
        self.count.add_(examples)

    def forget(self) -> None:
        """Leave out what was added up since the mean was last brought up to date."""
        self.total.zero_()
        self.count.zero_()

    def settle(self) -> None:
        """Bring the mean up to date."""
        self.mean.copy_(running_mean(self.mean, self.total, self.count, self.seen, self.period))
        self.seen.add_(self.count)
        self.forget()

    def to(self, device: torch.device) -> None:
        """Move to a device."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """What it has to remember, on the CPU."""
        return {name: getattr(self, name).detach().cpu().clone() for name in _KEPT}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state_dict` gave."""
        for name in _KEPT:
            getattr(self, name).copy_(state[name])
