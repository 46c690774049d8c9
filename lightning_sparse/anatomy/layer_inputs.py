"""What weights are multiplied with in a forward pass: the inputs of each, as a matrix of one row a token or position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_sparse.anatomy.parameters import inputs_first

# torch's names of a product of two matrices, and where in the arguments these are.
_PRODUCTS = {"mm": 0, "addmm": 1, "_addmm_activation": 1, "bmm": 0, "baddbmm": 1, "mv": 0, "addmv": 1}
_LARGEST = 1 << 24  # numbers in one matrix of patches, which has an input once for each place of the kernel


@dataclass(frozen=True)
class LayerInput:
    """One product of an input with some rows of a weight, taken as a matrix (:func:`as_matrix`).

    Attributes:
        name: the weight's name.
        rows: the first row, and that after the last: all, but for grouped convolutions, and attention whose queries, keys
            and values come from several places.
        source: the tensor that was multiplied. Until the next product it is what it was.
        matrices: yields what each row was multiplied with, in pieces of shape (tokens or positions, inputs).
    """

    name: str
    rows: tuple[int, int]
    source: Tensor
    matrices: Callable[[], Iterator[Tensor]]


class LayerInputs(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tell of every product of an input with one of some weights, in the forward passes that run inside this context.

    It is the kernels that are watched, whichever module or function calls them: ``F.linear``, convolutions, ``x @ weight.T``,
    the projections inside ``MultiheadAttention``. A weight that is not multiplied as it is, or along its other dimension, is
    not seen: that of a transposed convolution or of a fused recurrent layer, one that is rewritten before, or an embedding.

    Args:
        weights: the weights, by name, as :func:`~lightning_sparse.sparsifiable` gives them.
        see: called with each product before it is computed.

    Example:
        >>> net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> seen = []
        >>> with LayerInputs(dict(net.named_parameters()), seen.append):
        ...     _ = net(torch.rand(5, 3))
        >>> [(each.name, each.rows, [x.shape[0] for x in each.matrices()]) for each in seen]
        [('0.weight', (0, 4), [5]), ('1.weight', (0, 2), [5])]
    """

    supports_higher_order_operators = True

    def __init__(self, weights: Mapping[str, Tensor], see: Callable[[LayerInput], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        turned = inputs_first(weights)
        self._see = see
        self._places: dict[int, list[tuple[str, Tensor]]] = {}
        for name, weight in weights.items():
            matrix = weight.detach().mT if name in turned else weight.detach()
            self._places.setdefault(_place(weight), []).append((name, matrix))
        self._fused = True

    def __enter__(self) -> LayerInputs:
        self._fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one kernel for all of an encoder layer
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)  # type: ignore[no-untyped-call]
        torch.backends.mha.set_fastpath_enabled(self._fused)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__ if isinstance(func, torch._ops.OpOverload) else ""
        if name == "convolution":
            self._convolution(*args)
        elif name == "linear":
            self._product(args[0].flatten(0, -2), args[1].mT)
        elif name in _PRODUCTS:
            self._product(*args[_PRODUCTS[name] :][:2])
        return func(*args, **kwargs)

    def _product(self, left: Tensor, right: Tensor) -> None:
        if right.dim() == 1:
            right = right[:, None]
        for weight, given in ((right.mT, left), (left, right.mT)):
            for name, matrix in self._places.get(_place(weight), ()):
                rows = _rows_of(weight, matrix) if matrix.dim() == 2 else None
                if rows is not None:
                    self._see(LayerInput(name, rows, given, partial(_tokens, given)))

    def _convolution(
        self,
        given: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        transposed: bool,
        output_padding: Sequence[int],
        groups: int,
    ) -> None:
        for name, whole in self._places.get(_place(weight), ()):
            if transposed or weight.shape != whole.shape or weight.storage_offset() != whole.storage_offset():
                continue
            outputs = weight.shape[0] // groups
            for group, channels in enumerate(given.chunk(groups, 1)):
                matrices = partial(_patches, channels, weight.shape[2:], stride, padding, dilation)
                self._see(LayerInput(name, (group * outputs, (group + 1) * outputs), given, matrices))


def as_matrix(weight: Tensor, turned: bool = False) -> Tensor:
    """A weight as a matrix (outputs, inputs); the inputs of a convolution by place of the kernel, then by channel.

    Example:
        >>> as_matrix(torch.arange(4).view(1, 2, 1, 2)).tolist()  # channels 0 and 1, two places each
        [[0, 2, 1, 3]]
    """
    if weight.dim() == 2:
        return weight.mT if turned else weight
    return weight.flatten(2).mT.flatten(1)


def as_weight(matrix: Tensor, shape: torch.Size, turned: bool = False) -> Tensor:
    """The inverse of :func:`as_matrix`, for a weight of this shape.

    Example:
        >>> as_weight(torch.tensor([[0, 2, 1, 3]]), torch.Size([1, 2, 1, 2])).flatten().tolist()
        [0, 1, 2, 3]
    """
    if len(shape) == 2:
        return matrix.mT if turned else matrix
    return matrix.reshape(shape[0], -1, shape[1]).mT.reshape(shape)


def _rows_of(part: Tensor, matrix: Tensor) -> tuple[int, int] | None:
    """Which rows of a matrix another tensor is, in the same memory; None if it is something else of it."""
    if part.dim() == 3 and (part.shape[0] == 1 or part.stride(0) == 0):  # one weight for a batch of matrices
        part = part[0]
    if part.dim() != 2 or part.shape[1] != matrix.shape[1]:
        return None
    apart, along = matrix.stride()
    same = [
        size == 1 or mine == theirs
        for size, mine, theirs in zip(part.shape, part.stride(), (apart, along), strict=True)
    ]
    start, rest = divmod(int(part.storage_offset()) - int(matrix.storage_offset()), max(1, apart))
    fits = all(same) and rest == 0 and 0 <= start <= matrix.shape[0] - part.shape[0]
    return (start, start + part.shape[0]) if fits else None


def _tokens(given: Tensor) -> Iterator[Tensor]:
    yield given.reshape(-1, given.shape[-1])


def _patches(
    given: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Iterator[Tensor]:
    """What a convolution multiplies its weight with: (positions, places of the kernel times channels), in pieces."""
    around = [size for each in reversed(padding) for size in (each, each)]
    padded = torch.nn.functional.pad(given, around)
    reach = [apart * (size - 1) + 1 for size, apart in zip(kernel, dilation, strict=True)]
    counts = [(size - far) // step + 1 for size, far, step in zip(padded.shape[2:], reach, stride, strict=True)]
    numbers = given.shape[1] * torch.Size(kernel).numel() * torch.Size(counts).numel()
    each_axis = [
        [slice(at * apart, at * apart + (count - 1) * step + 1, step) for at in range(size)]
        for size, apart, count, step in zip(kernel, dilation, counts, stride, strict=True)
    ]
    for images in torch.split(padded, max(1, _LARGEST // max(1, numbers))):
        seen = [images[(slice(None), slice(None), *place)].flatten(2) for place in product(*each_axis)]
        stacked = torch.stack(seen)  # places, images, channels, positions
        yield stacked.permute(1, 3, 0, 2).flatten(0, 1).flatten(1)


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else id(tensor)
