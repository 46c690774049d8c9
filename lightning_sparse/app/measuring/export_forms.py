"""The forms in which a sweep exports a trained network: each a small function from the network to a module or a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_sparse.errors import SparsityError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lightning_sparse.engine.masks import Masks


@dataclass(frozen=True)
class Exported:
    """A network in another form.

    Attributes:
        bytes: of its file, or of its tensors if it has none.
        module: what can be called and timed; None if it is a file to keep.
        says: what was done, for the rows.
    """

    bytes: int
    module: nn.Module | None = None
    says: str = ""


Form = Callable[["nn.Module", "Masks | None", "Tensor", Path], Exported]


def bf16(model: nn.Module, masks: Masks | None, example: Tensor, folder: Path) -> Exported:
    """Dense, in bfloat16: what CPUs with AMX and most GPUs are several times as fast at, whatever the sparsity."""
    import copy

    import torch

    try:
        rounded = copy.deepcopy(model).to(torch.bfloat16)
    except Exception as error:
        raise SparsityError(
            f"export=bf16: the model cannot be copied ({error}): leave bf16 out, export=none"
        ) from error
    rounded.register_forward_pre_hook(lambda module, inputs: tuple(part.to(torch.bfloat16) for part in inputs))
    rounded.register_forward_hook(lambda module, inputs, output: output.float())
    return Exported(bytes_of(rounded), rounded, "dense, weights and activations in bfloat16")


def onnx(model: nn.Module, masks: Masks | None, example: Tensor, folder: Path) -> Exported:
    """An ONNX file, which ONNX Runtime runs on as many threads as torch has."""
    from torch import nn

    from lightning_sparse import export
    from lightning_sparse.export.onnx import run_of

    file = export.to_onnx(model, example, folder / "model.onnx")
    session = nn.Module()
    session.forward = run_of(file.path)
    return Exported(file.bytes, session, f"ONNX file, outputs within {file.difference:.1e} of the largest")


def packed(model: nn.Module, masks: Masks | None, example: Tensor, folder: Path) -> Exported:
    """A file of masks and values, entropy coded, exact to the bit."""
    from lightning_sparse import export

    path = folder / "model.packed"
    export.save_packed(model, masks, path)
    return Exported(path.stat().st_size, says="packed file, exact to the bit")


def shrink(model: nn.Module, masks: Masks | None, example: Tensor, folder: Path) -> Exported:
    """Without the units that carry nothing."""
    from lightning_sparse import export

    shrunk = export.shrink(model, example)
    return Exported(bytes_of(shrunk.model), shrunk.model, "units that carry nothing removed")


def sparsify(model: nn.Module, masks: Masks | None, example: Tensor, folder: Path) -> Exported:
    """Linear layers sparse where that is faster on the largest batch."""
    from lightning_sparse import export

    found = export.sparsify(model, example)
    forms = ", ".join(f"{layer.name} {layer.form}" for layer in found.layers)
    return Exported(bytes_of(found.model), found.model, f"linear layers by timing: {forms}")


FORMS: dict[str, Form] = {
    "bf16": bf16,
    "onnx": onnx,
    "packed": packed,
    "shrink": shrink,
    "sparsify": sparsify,
}
"""By the name that the setting ``export`` and the rows have. A form gets the model, its masks (None for a dense one), the
largest batch that is timed and the job's folder, where its file is kept; it leaves the model as it was."""


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers, shared ones once, and of sparse ones their values and places.

    Example:
        >>> import torch
        >>> bytes_of(torch.nn.Linear(10, 2))
        88
    """
    from lightning_sparse.anatomy.tensor_parts import tensor_parts

    parts = [part for tensor in (*module.parameters(), *module.buffers()) for part in tensor_parts(tensor)]
    return sum({part.data_ptr(): part.nbytes for part in parts}.values())
