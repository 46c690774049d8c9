"""A linear layer that stores and multiplies its living weights only."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_sparse.errors import SparsityError, check_flag

DTYPES = (torch.float32, torch.float64)
"""Those that torch's sparse kernels on a CPU compute in."""


class CSRLinear(nn.Module):
    """A linear layer whose weight is held in compressed sparse rows: ``x @ weight.T + bias``, with the living weights alone.

    It is for inference. It holds buffers and no parameters, so no optimizer trains it; gradients of its input work, as
    attacks and saliency need them. It moves with ``.to()``, and can be copied, pickled, saved and loaded; ``load_state_dict``
    takes a weight with another number of living connections too. It computes in float32 or float64, also under autocast.

    Torch's product of a sparse matrix (MKL's, on a CPU) is fast where the examples stand in columns. The output is therefore
    the transpose of what the product gives, without a copy: element-wise layers keep its strides, and a CSR layer that
    follows reads it as it is.

    Args:
        weight: (outputs, inputs), float32 or float64; a copy of what is not zero in it is kept.
        bias: (outputs,) or None.
        contiguous: copy the output into torch's usual layout, for code behind that asks for it (``.view``).

    Raises:
        SparsityError: if an argument is something else.

    Example:
        >>> layer = CSRLinear(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([0.5, 0.0]))
        >>> layer
        CSRLinear(in_features=3, out_features=2, bias=True, nnz=2, density=0.3333)
        >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[4.5000, 1.0000]])
    """

    row_starts: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, contiguous: bool = False) -> None:
        super().__init__()
        check_matrix(weight, bias)
        if weight.dtype not in DTYPES:
            raise SparsityError(
                f"weight is {weight.dtype}, which sparse kernels do not compute in: write weight.float()"
            )
        self.out_features, self.in_features = weight.shape
        self.contiguous = check_flag("contiguous", contiguous)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that torch's sparse layouts are in beta
            rows = weight.detach().to_sparse_csr()
        # In 32 bits, because MKL's indices have so many: torch would convert wider ones at each product.
        self.register_buffer("row_starts", rows.crow_indices().int())
        self.register_buffer("columns", rows.col_indices().int())
        self.register_buffer("values", rows.values().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().clone())
        self._matrix: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:
        """The weight as a sparse tensor of torch, (outputs, inputs), which shares memory with the buffers."""
        # Not by attribute, which takes torch's modules longer than the product of a small layer.
        held, now = self._matrix, cast(dict[str, Tensor], self._buffers)
        row_starts, columns, values = now["row_starts"], now["columns"], now["values"]
        if held is not None and held[0] is row_starts and held[1] is columns and held[2] is values:
            return held[3]
        with warnings.catch_warnings(), torch.inference_mode(False):  # moved, cast or loaded
            warnings.simplefilter("ignore", UserWarning)
            # Checked, because MKL would read anywhere in the memory that a broken file's indices point to.
            shape = (self.out_features, self.in_features)
            made = torch.sparse_csr_tensor(row_starts, columns, values, shape, check_invariants=True)
        self._matrix = row_starts, columns, values, made
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., outputs) for inputs (..., inputs)."""
        if torch.is_autocast_enabled(x.device.type):
            with torch.autocast(x.device.type, enabled=False):
                return self.forward(x.to(self.values.dtype))
        if x.dim() != 2:
            return self.forward(x.reshape(-1, self.in_features)).view(*x.shape[:-1], self.out_features)
        weight, bias = self.weight, self._buffers["bias"]
        if x.shape[0] == 1:
            row = x[0]
            return (torch.mv(weight, row) if bias is None else torch.addmv(bias, weight, row)).unsqueeze(0)
        columns = x.t()
        out = torch.mm(weight, columns) if bias is None else torch.addmm(bias.unsqueeze(1), weight, columns)
        return out.t().contiguous() if self.contiguous else out.t()

    @property
    def nnz(self) -> int:
        """The number of weights that are held."""
        return len(self.values)

    def extra_repr(self) -> str:
        """What torch prints of the layer."""
        density = self.nnz / (self.in_features * self.out_features)
        size = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{size}, nnz={self.nnz}, density={density:.4g}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_matrix": None}  # made again where it is needed

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        as_long_as_saved(self, ("columns", "values"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def as_long_as_saved(layer: nn.Module, names: Iterable[str], state: Mapping[str, Any], prefix: str) -> None:
    """Make buffers of a layer as long as the saved ones, because a weight with other living connections may be loaded."""
    for name in names:
        saved, held = state.get(prefix + name), getattr(layer, name)
        if isinstance(saved, Tensor) and saved.dim() == held.dim() and saved.shape != held.shape:
            setattr(layer, name, held.new_zeros(saved.shape))


def check_matrix(weight: Any, bias: Any) -> None:
    """Raise a SparsityError unless these are the weight and the bias of a linear layer."""
    if not isinstance(weight, Tensor) or weight.layout != torch.strided or weight.dim() != 2 or 0 in weight.shape:
        what = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise SparsityError(
            f"weight={what} is not a matrix (outputs, inputs): give a dense one, such as layer.weight of a Linear layer"
        )
    if bias is not None and (
        not isinstance(bias, Tensor) or bias.shape != weight.shape[:1] or bias.dtype != weight.dtype
    ):
        what = f"{bias.dtype} {tuple(bias.shape)}" if isinstance(bias, Tensor) else type(bias).__name__
        raise SparsityError(f"bias={what} is not {weight.dtype} ({weight.shape[0]},): give one number for each output")
