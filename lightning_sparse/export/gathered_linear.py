"""A linear layer that reads its living inputs and computes its living outputs only."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_sparse.errors import SparsityError
from lightning_sparse.export.sparse_linear import as_long_as_saved, check_matrix


class GatheredLinear(nn.Module):
    """A linear layer of full width whose weight is a smaller dense matrix: ``x @ weight.T + bias`` without what is dead.

    An input is dead if its column of the weight is zero, an output if its row is. Living inputs are gathered, multiplied by
    the matrix that is left and put among the outputs; dead outputs are their bias, or 0. Where no input is dead nothing is
    gathered. It computes in any type that dense layers compute in, 16 bits and autocast too.

    It is for inference. It holds buffers and no parameters, so no optimizer trains it; gradients of its input work. It moves
    with ``.to()``, and can be copied, pickled, saved and loaded, with another number of living inputs and outputs too.

    Args:
        weight: (outputs, inputs), floating point; a copy of the rows and columns that are not zero is kept.
        bias: (outputs,) of the same type, or None.

    Raises:
        SparsityError: if an argument is something else, or an input has another width.

    Example:
        >>> import torch
        >>> layer = GatheredLinear(torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]), torch.tensor([0.5, 3.0]))
        >>> layer
        GatheredLinear(in_features=3, out_features=2, bias=True, living=1 x 2)
        >>> layer(torch.tensor([[9.0, 1.0, 1.0]]))
        tensor([[3.5000, 3.0000]])
    """

    weight: Tensor
    inputs: Tensor
    outputs: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        check_matrix(weight, bias)
        if not weight.is_floating_point():
            raise SparsityError(f"weight is {weight.dtype}, not floating point: write weight.float()")
        self.out_features, self.in_features = weight.shape
        outputs, inputs = living_in(weight.detach())
        self.register_buffer("weight", weight.detach()[outputs][:, inputs].contiguous())
        self.register_buffer("inputs", inputs)
        self.register_buffer("outputs", outputs)
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) for inputs (..., inputs)."""
        if x.shape[-1] != self.in_features:
            raise SparsityError(
                f"x={tuple(x.shape)} is not (..., {self.in_features}): give as many inputs as the layer has"
            )
        if len(self.inputs) < self.in_features:
            x = x.index_select(-1, self.inputs)
        if len(self.outputs) == self.out_features:
            return F.linear(x, self.weight, self.bias)
        living = F.linear(x, self.weight, None if self.bias is None else self.bias.index_select(0, self.outputs))
        dead = living.new_zeros(self.out_features) if self.bias is None else self.bias.to(living.dtype)
        return dead.expand(*living.shape[:-1], -1).index_copy(-1, self.outputs, living)

    def extra_repr(self) -> str:
        """What torch prints of the layer."""
        size = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{size}, living={len(self.outputs)} x {len(self.inputs)}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        as_long_as_saved(self, ("weight", "inputs", "outputs"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def living_in(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return which outputs and which inputs of a weight (outputs, inputs) live, as sorted indices.

    Example:
        >>> import torch
        >>> living_in(torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]))
        (tensor([0]), tensor([1, 2]))
    """
    living = weight != 0
    return living.any(1).nonzero().flatten(), living.any(0).nonzero().flatten()
