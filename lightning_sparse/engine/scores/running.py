"""Scores with a memory: they observe every optimizer step, and their state is saved with the masks."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_sparse.engine.scores.of_layer import Layer
from lightning_sparse.errors import check_share


class _Running:
    """One tensor a layer, updated at every optimizer step; 4 bytes a weight and one pass a step."""

    needs_gradient = True

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def kept(self, layer: Layer) -> Tensor:
        """What is remembered of a layer, zeros at first; moved to its device, as a checkpoint's is on the CPU."""
        if layer.name not in self._kept:
            self._kept[layer.name] = torch.zeros_like(layer.weight, dtype=torch.float32)
        self._kept[layer.name] = self._kept[layer.name].to(layer.weight.device)
        return self._kept[layer.name]

    def state_dict(self) -> dict[str, Tensor]:
        """What is remembered, by parameter name."""
        return {name: kept.cpu() for name, kept in self._kept.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._kept = {name: kept.clone() for name, kept in state.items()}


class Momentum(_Running):
    """``|running mean of dL/dw|``: Dettmers & Zettlemoyer 2019, SNFS (arXiv 1907.04840).

    It keeps its own mean of the dense gradient, so that it works with any optimizer and with clipping.
    Cost: 4 bytes a weight, and one pass over the gradients a step.

    Args:
        decay: weight of the past at each step, in [0, 1).

    Example:
        >>> score = Momentum(decay=0.5)
        >>> layer = Layer("w", torch.zeros(2), torch.tensor([-4.0, 1.0]), torch.Generator())
        >>> score.observe(layer)
        >>> score(layer).tolist()
        [2.0, 0.5]
    """

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = check_share("decay", decay, one_allowed=False)

    def observe(self, layer: Layer) -> None:
        """Take in the gradient of one optimizer step; a layer that the step did not use has none."""
        if layer.dense_gradient is not None:
            self.kept(layer).lerp_(layer.dense_gradient.float(), 1.0 - self.decay)

    def __call__(self, layer: Layer) -> Tensor:
        """Score one layer."""
        if layer.name not in self._kept:
            self.observe(layer)
        return self.kept(layer).abs()

    def __repr__(self) -> str:
        return f"Momentum(decay={self.decay})"


class Fisher(_Running):
    """``w^2 F / 2``, with F the running mean of squared gradients: what the loss gains if the connection dies.

    The diagonal of optimal brain damage (LeCun et al. 1989, "Optimal brain damage", NeurIPS 2), with the empirical Fisher
    information in place of the Hessian (Theis et al. 2018, arXiv 1801.05787; Singh & Alistarh 2020, arXiv
    2004.14340). The gradients are those of batches, not of single examples. Cost: 4 bytes a weight, one pass a step.

    Args:
        decay: weight of the past at each step, in [0, 1).

    Example:
        >>> score = Fisher(decay=0.5)
        >>> layer = Layer("w", torch.tensor([2.0, 1.0]), torch.tensor([1.0, 4.0]), torch.Generator())
        >>> score.observe(layer)
        >>> score(layer).tolist()
        [1.0, 4.0]
    """

    def __init__(self, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = check_share("decay", decay, one_allowed=False)

    def observe(self, layer: Layer) -> None:
        """Take in the gradient of one optimizer step."""
        if layer.dense_gradient is not None:
            self.kept(layer).lerp_(layer.dense_gradient.float().square(), 1.0 - self.decay)

    def __call__(self, layer: Layer) -> Tensor:
        """Score one layer."""
        return 0.5 * layer.weight.float().square() * self.kept(layer)

    def __repr__(self) -> str:
        return f"Fisher(decay={self.decay})"


class Movement(_Running):
    """``-sum of w dL/dw`` over all steps: weights that training pulls towards zero die, however large they are.

    Sanh et al. 2020, "Movement pruning" (arXiv 2005.07683), equation 5 without its constant factor. Meant for fine-tuning a
    trained model. The weight is the one before the step. Cost: 8 bytes a weight, two passes a step.

    Example:
        >>> score = Movement()
        >>> for weight in (1.0, 0.5):  # the second step starts at 1.0, and ends at 0.5
        ...     score.observe(Layer("w", torch.tensor([weight]), torch.tensor([0.5]), torch.Generator()))
        >>> score(Layer("w", torch.tensor([0.5]), None, torch.Generator())).tolist()
        [-0.5]
    """

    def observe(self, layer: Layer) -> None:
        """Take in one optimizer step; the first only shows where the next one starts."""
        start = self._kept.get(f"{layer.name}, as the next step finds it")
        if layer.dense_gradient is not None and start is not None:
            alive = layer.weight != 0  # what has died starts from zero if it is born again
            kept = self.kept(layer)
            kept.sub_(start.to(kept.device) * layer.dense_gradient.float()).mul_(alive)
        self._kept[f"{layer.name}, as the next step finds it"] = layer.weight.float().clone()

    def __call__(self, layer: Layer) -> Tensor:
        """Score one layer."""
        return self.kept(layer)

    def __repr__(self) -> str:
        return "Movement()"
