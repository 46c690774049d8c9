"""Export a network as an ONNX file, checked against the network by ONNX Runtime."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_sparse.anatomy.isolation import untouched
from lightning_sparse.anatomy.modules import check_module
from lightning_sparse.errors import SparsityError, in_short
from lightning_sparse.export.comparing import relative_difference, tolerance
from lightning_sparse.export.example import as_arguments
from lightning_sparse.export.exported_program import Program, batches_of, check_path, exported
from lightning_sparse.export.int8 import Calibration, accuracy, calibration_of, quantised
from lightning_sparse.extras import need
from lightning_sparse.results.text_table import text_table


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that :func:`to_onnx` wrote, and what was checked.

    Attributes:
        path: of the file.
        bytes: its size.
        zeros: for each weight of two or more dimensions that is used: how many of its numbers are zero in the file.
        weights: likewise, how many numbers it has.
        difference: largest difference of the outputs from the model's, as a share of the largest; of the int8 network, if
            that was asked for.
        accuracy: of the network in float32, on the labelled calibration data; NaN without.
        int8_accuracy: of the int8 network on the same; NaN without.
    """

    path: Path
    bytes: int
    zeros: dict[str, int]
    weights: dict[str, int]
    difference: float
    accuracy: float = math.nan
    int8_accuracy: float = math.nan

    def table(self) -> str:
        """A line for each weight with its zeros, and one for the file, as text."""
        cells = [("weight", "numbers", "zeros", "density %")]
        for name, zeros in self.zeros.items():
            size = self.weights[name]
            cells.append((name, str(size), str(zeros), f"{100 * (1 - zeros / size):.2f}"))
        lines = [text_table(cells, "<>>>")]
        lines.append(f"{self.path.name}: {self.bytes} bytes, outputs within {self.difference:.1e} of the largest")
        if not math.isnan(self.accuracy):
            lines.append(f"accuracy on the calibration data: {self.accuracy:.4f}, in int8 {self.int8_accuracy:.4f}")
        return "\n".join(lines)


def to_onnx(
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    path: str | os.PathLike[str],
    *,
    int8: Calibration | None = None,
) -> OnnxFile:
    """Write a network as an ONNX file that takes batches of any size, and check it before the file is put in place.

    ONNX Runtime runs the file on the example, on one row of it and on random inputs like it; the outputs must be the model's
    to 1e-4 of the largest, and every zero of a weight must be zero in the file. Weights are stored densely: runtimes read
    sparse ones slowly or not at all. Zeros still shorten what is compressed on its way (gzip). OpenVINO reads the file too:
    ``openvino.Core().compile_model(path)``; its bf16 and int8 kernels are the fastest there are on CPUs with AMX.

    Args:
        model: any module whose outputs are tensors; it is left as it was.
        example: a batch (n, ...) as the model takes it, or a tuple of such tensors for several arguments.
        path: of the file to write, such as ``"net.onnx"``; its folder must exist.
        int8: a few hundred inputs to quantise the network with: a tensor or array (n, ...), ``(images, labels)``, or a loader
            of such batches. Weights and activations then have 8 bits, weights one scale for each output channel and zero at
            0, so dead weights stay zero. With labels, the accuracy before and after is reported. For models of one input.

    Returns:
        What was written and checked, see :class:`OnnxFile`.

    Raises:
        SparsityError: if an argument is something else, the model cannot be exported, or a check fails; no file is left
            then, and one that was there stays as it was.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net, folder = nn.Linear(4, 2), getfixture("tmp_path")
        >>> with torch.no_grad():
        ...     _ = net.weight.mul_(torch.tensor([[0, 1, 1, 0]]))
        >>> written = to_onnx(net, torch.rand(8, 4), folder / "net.onnx")
        >>> written.zeros, written.difference < 1e-6
        ({'weight': 4}, True)
    """
    check_module(model)
    arguments = as_arguments(example)
    file = check_path(path, ".onnx")
    calibration = None if int8 is None else calibration_of(int8, arguments)
    need("onnx"), need("onnxscript"), need("onnxruntime")  # torch's exporter needs the second
    # In the same folder, so that putting the file in its place is one rename.
    with TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder, untouched(model), torch.no_grad():
        part = Path(folder) / file.name
        program = exported(model, arguments)
        _write(program, part, type(model).__name__)
        difference = _difference(model, part, arguments)
        zeros, weights = _zeros(program, part)
        accuracies = (math.nan, math.nan)
        if calibration is not None:
            eight = quantised(part, calibration[0])
            difference = max(_differences(model, run_of(eight), batches_of(model, arguments)))
            zeros = _zeros_in_int8(zeros, part, eight)
            inputs, labels = calibration
            if labels is not None:
                accuracies = accuracy(run_of(part), inputs, labels), accuracy(run_of(eight), inputs, labels)
            part = eight
        size = part.stat().st_size
        part.replace(file)
    return OnnxFile(file, size, zeros, weights, difference, *accuracies)


def run_of(file: Path) -> Any:
    """A function from arguments to outputs, as ONNX Runtime computes them from a file."""
    runtime = need("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def run(*arguments: Tensor) -> list[Tensor]:
        given = dict(zip(names, (argument.cpu().numpy() for argument in arguments), strict=True))
        return [torch.from_numpy(np.asarray(output)) for output in session.run(None, given)]

    return run


def _write(program: Program, file: Path, name: str) -> None:
    try:
        with _quiet():
            written = torch.onnx.export(program, dynamo=True, verbose=False)
            assert written is not None
            written.save(str(file), external_data=False)  # one file, so that one rename puts it in place
    except Exception as error:
        raise SparsityError(
            f"model={name} cannot be written as ONNX ({in_short(error)}): to_exported_program(model, example, 'net.pt2') "
            "needs no ONNX"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its steps and warns of its own affairs."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def _difference(model: nn.Module, file: Path, arguments: tuple[Tensor, ...]) -> float:
    batches = batches_of(model, arguments)
    batches.append(tuple(_like(argument) for argument in batches[0]))
    run = run_of(file)
    differences = _differences(model, run, batches)
    for difference, what in zip(differences, ("the example", "one row of the example", "random inputs"), strict=True):
        if not difference <= tolerance(torch.float32):
            raise SparsityError(
                f"ONNX Runtime gives other outputs than model={type(model).__name__} on {what} (by {difference:.2g} of the "
                "largest): no file is written; to_exported_program(model, example, 'net.pt2') needs no ONNX"
            )
    return max(differences)


def _differences(model: nn.Module, run: Any, batches: list[tuple[Tensor, ...]]) -> list[float]:
    found = []
    for batch in batches:
        expected = [output.cpu() for output in tree_leaves(model(*(argument.clone() for argument in batch)))]
        outputs = run(*batch)
        same = len(outputs) == len(expected)
        found.append(max(map(relative_difference, outputs, expected), default=0.0) if same else math.inf)
    return found


def _like(argument: Tensor) -> Tensor:
    """Random inputs in the range of the example's, or its integers in another order."""
    if not argument.is_floating_point():
        return argument.flatten()[torch.randperm(argument.numel())].view_as(argument)
    return argument.min() + (argument.max() - argument.min()) * torch.rand_like(argument)


def _zeros(program: Program, file: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Count the zeros of each weight in the file, under its name, or where the exporter has turned or joined it."""
    held = _initializers(file)
    weights = {name: value for name, value in _used(program).items() if value.dim() >= 2}
    spare = [value for name, value in held.items() if name not in weights]
    zeros = {}
    for name, weight in weights.items():
        dead = (weight == 0).cpu().numpy()
        count = int(dead.sum())
        if name in held and held[name].shape == dead.shape:
            kept = not held[name][dead].any()
        else:
            turned = [at for at, v in enumerate(spare) if v.size == dead.size and v.size - np.count_nonzero(v) == count]
            kept = bool(turned)
            if kept:
                spare.pop(turned[0])
        if count and not kept:
            raise SparsityError(
                f"not all of the {count} zeros of {name} are zero in the ONNX file: the exporter has computed with this "
                "weight, and no file is written; to_exported_program(model, example, 'net.pt2') keeps weights as they are"
            )
        zeros[name] = count
    return zeros, {name: weight.numel() for name, weight in weights.items()}


def _zeros_in_int8(zeros: dict[str, int], file: Path, eight: Path) -> dict[str, int]:
    """Count what stands for zero in 8 bits, and refuse a zero that does not any more."""
    before, after = _initializers(file), _initializers(eight)
    for name, value in before.items():
        eighth, point = after.get(f"{name}_quantized"), after.get(f"{name}_zero_point", np.zeros(1))
        if eighth is None or value.ndim < 2:
            continue
        # A weight's is 0 in each channel; what is added to activations (positions) may have another one.
        dead = eighth == (0 if not point.any() else point.item() if point.size == 1 else np.nan)
        if not dead[value == 0].all():
            raise SparsityError(
                f"zeros of {name} are not zero in int8: no file is written; write int8=None for a file in float32"
            )
        if name in zeros:
            zeros = {**zeros, name: int(dead.sum())}
    return zeros


def _initializers(file: Path) -> dict[str, Any]:
    onnx = need("onnx")
    graph = onnx.load(str(file)).graph
    return {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}


def _used(program: Program) -> dict[str, Tensor]:
    """The parameters that the program reads."""
    read = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    named = program.graph_signature.inputs_to_parameters
    return {target: program.state_dict[target].detach() for node, target in named.items() if node in read}
