"""Dense gradients: those of dead connections too, kept from the backward pass to the mask update that reads them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_sparse.engine.optimizers import gradient_scale


class DenseGradients:
    """Gradients by parameter name, read before anything (clipping, the masks) changes them."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters
        self._read: dict[str, Tensor] = {}
        self._warned = False

    def __bool__(self) -> bool:
        return bool(self._read)

    def get(self, name: str) -> Tensor | None:
        """The gradient of one parameter, or None."""
        return self._read.get(name)

    def read(self, names: Iterable[str]) -> None:
        """Copy the present gradients."""
        for name in names:
            gradient = self._parameters[name].grad
            if gradient is not None:
                self._read[name] = gradient.detach().clone()

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Drop what was read, of some parameters or of all."""
        for name in list(self._read) if names is None else names:
            self._read.pop(name, None)

    def unscale(self, names: Iterable[str], optimizer: Optimizer) -> None:
        """Divide what was read of an optimizer's parameters by its GradScaler's scale.

        Only a fused optimizer removes that scale itself, in its step; the gradients of any other are read without one.
        """
        scale = gradient_scale(optimizer)
        if scale is not None:
            self._read |= {name: self._read[name] / scale for name in names if name in self._read}

    def complete(self) -> None:
        """Make them ready for the scores: one for each parameter."""
        for name, parameter in self._parameters.items():
            if name not in self._read and parameter.grad is not None:
                self._read[name] = parameter.grad.detach()
        missing = [name for name in self._parameters if name not in self._read]
        if missing and self._read:  # layers that this step did not use
            if not self._warned:
                warnings.warn(f"no gradient for {', '.join(missing)}: scored as zero", stacklevel=2)
                self._warned = True
            self._read |= {name: torch.zeros_like(self._parameters[name]) for name in missing}
