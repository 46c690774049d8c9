"""Export a network by torch.export, for batches of any size, checked against the network."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_sparse.anatomy.isolation import device_of, untouched
from lightning_sparse.anatomy.layer_calls import is_compiled
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, in_short
from lightning_sparse.export.comparing import Run
from lightning_sparse.export.example import as_arguments, of_size
from lightning_sparse.export.sparse_linear import CSRLinear

Program = torch.export.ExportedProgram


def to_exported_program(
    model: nn.Module, example: Tensor | tuple[Tensor, ...], path: str | os.PathLike[str] | None = None
) -> Program:
    """Export a network as a graph of torch operations that runs without its Python code, and save it if there is a path.

    It takes batches of any size from 1, is in eval mode, and holds the weights as they are, zeros included. A saved file is
    read by ``torch.export.load(path).module()``.

    Args:
        model: any module whose outputs are tensors; it is left as it was.
        example: a batch (n, ...) as the model takes it, or a tuple of such tensors for several arguments.
        path: of the file to write, such as ``"net.pt2"``; its folder must exist. None writes none.

    Returns:
        The program. Its outputs were compared with the model's on the example and on a batch of one.

    Raises:
        SparsityError: if an argument is something else, the model cannot be exported, or the outputs differ by more than
            1e-4 of the largest.

    Example:
        >>> program = to_exported_program(nn.Sequential(nn.Linear(4, 2), nn.ReLU()), torch.rand(8, 4))
        >>> program.module()(torch.rand(3, 4)).shape
        torch.Size([3, 2])
    """
    check_module(model)
    arguments = as_arguments(example)
    file = None if path is None else check_path(path, ".pt2")
    with untouched(model), torch.no_grad():
        batches = batches_of(model, arguments)
        program = exported(model, arguments)
        for batch in batches:
            if not Run(model, batch).gives_the_same(program.module()):
                raise SparsityError(
                    f"model={type(model).__name__} gives other outputs when exported, with {len(batch[0])} examples: its "
                    "forward pass does what torch.export cannot follow; export the part of it that is a plain network"
                )
        if file is not None:
            part = file.with_name(f".{file.stem}.part.pt2")
            try:
                torch.export.save(program, part)
                part.replace(file)
            finally:
                part.unlink(missing_ok=True)
    return program


def batches_of(model: nn.Module, arguments: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    """The example as it is, and one row of it, on the model's device."""
    device = device_of(model)
    return [of_size(arguments, n, device) for n in (len(arguments[0]), 1)]


def exported(model: nn.Module, arguments: tuple[Tensor, ...]) -> Program:
    """The program of a model in eval mode, inside ``untouched``; a SparsityError says why there is none."""
    name = type(model).__name__
    if is_compiled(model):
        raise SparsityError(f"model={name} is compiled: give the module that was compiled")
    if any(isinstance(module, CSRLinear) for module in model.modules()):
        raise SparsityError(
            f"model={name} holds sparse layers of torch, which other runtimes do not have: give the network from before "
            "sparsify()"
        )
    batch = of_size(arguments, 3, device_of(model))  # not of one, which torch.export takes for a constant
    for output in Run(model, batch).outputs:
        if not isinstance(output, Tensor):
            raise SparsityError(
                f"model={name} gives a {type(output).__name__} among its outputs: give a module whose outputs are tensors"
            )
    shapes = tuple({0: torch.export.Dim("batch")} for _ in batch)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what torch does inside
            return torch.export.export(model, batch, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise SparsityError(
            f"model={name} cannot be exported for batches of any size ({in_short(error)}): its forward pass has to be the "
            "same operations for every batch; give the part of it for which that is so"
        ) from error


def check_path(path: Any, suffix: str) -> Path:
    """Return a path if a file can be written there, else raise a SparsityError.

    Example:
        >>> check_path("nowhere/net.onnx", ".onnx")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: path='nowhere/net.onnx' is in a folder that does not exist: make 'nowhere' first
    """
    if not isinstance(path, str | os.PathLike) or not str(path) or "\0" in str(path) or Path(path).suffix != suffix:
        raise SparsityError(f"path={path!r} is not the name of a {suffix} file: write 'net{suffix}'")
    file = Path(path)
    if not file.parent.is_dir():
        raise SparsityError(f"path={str(path)!r} is in a folder that does not exist: make {str(file.parent)!r} first")
    if file.is_dir() or not os.access(file.parent, os.W_OK):
        raise SparsityError(f"path={str(path)!r} cannot be written: give a file in a folder that can")
    return file
