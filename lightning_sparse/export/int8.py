"""Quantise an ONNX file to 8 bits by ONNX Runtime, and see what that does to the accuracy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError, in_short
from lightning_sparse.extras import need
from lightning_sparse.measure.images_and_labels import images_and_labels

Calibration = Tensor | np.ndarray[Any, Any] | tuple[Tensor, Tensor] | Iterable[Any]
"""Inputs (n, ...), ``(images, labels)``, or a loader of such batches."""

_BATCH = 64


def calibration_of(data: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor | None]:
    """Return inputs as the model takes them and labels (n,) or None, or raise a SparsityError.

    Example:
        >>> inputs, labels = calibration_of(np.zeros((20, 3), np.float32), (torch.zeros(1, 3),))
        >>> inputs.shape, labels
        (torch.Size([20, 3]), None)
    """
    if len(arguments) != 1:
        raise SparsityError(f"int8 is for models of one input, and the example has {len(arguments)}: write int8=None")
    if isinstance(data, np.ndarray) and data.dtype.kind in "fiu":
        data = torch.from_numpy(data)
    labels: Tensor | None
    if isinstance(data, Tensor):
        inputs, labels = data, None
    elif _are_inputs_and_labels(data):
        inputs, labels = data  # of any shape; a loader has to give images
    else:
        inputs, labels = images_and_labels(data, name="int8")
    shape = tuple(arguments[0].shape[1:])
    if inputs.dim() == 0 or len(inputs) == 0 or tuple(inputs.shape[1:]) != shape:
        raise SparsityError(
            f"int8 holds inputs of shape {tuple(inputs.shape)}, and the model takes (n, {', '.join(map(str, shape))}): give "
            "a few hundred of those"
        )
    if inputs.is_floating_point() and not bool(inputs.isfinite().all()):
        raise SparsityError("int8 holds inputs that are not finite: give a few hundred that are")
    return inputs.detach().cpu().to(arguments[0].dtype), labels


def _are_inputs_and_labels(data: Any) -> bool:
    pair = isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)
    return pair and data[1].dim() == 1 and data[0].dim() > 0 and len(data[0]) == len(data[1])


def quantised(file: Path, inputs: Tensor) -> Path:
    """Write the network of an ONNX file in int8 beside it, with ranges from these inputs, and return its path."""
    quantization = need("onnxruntime.quantization")
    name = need("onnx").load(str(file), load_external_data=False).graph.input[0].name

    ready, eight = file.with_suffix(".ready.onnx"), file.with_suffix(".int8.onnx")
    try:
        with _quiet():
            quantization.quant_pre_process(str(file), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready),
                str(eight),
                _Reader(name, inputs),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    except Exception as error:
        raise SparsityError(f"ONNX Runtime cannot quantise the network ({in_short(error)}): write int8=None") from error
    return eight


def accuracy(run: Callable[..., list[Tensor]], inputs: Tensor, labels: Tensor) -> float:
    """Share of the inputs whose largest output is at their label."""
    right = 0
    for part, truth in zip(torch.split(inputs, _BATCH), torch.split(labels, _BATCH), strict=True):
        logits = run(part)[0]
        if logits.dim() != 2:
            raise SparsityError(
                f"int8 holds labels, and the model's outputs {tuple(logits.shape)} are not (n, classes): give the inputs "
                "alone"
            )
        right += int((logits.argmax(1) == truth.cpu()).sum())
    return right / len(inputs)


class _Reader:
    """Batches as the quantiser asks for them."""

    def __init__(self, name: str, inputs: Tensor) -> None:
        self.name, self.parts = name, iter(torch.split(inputs, _BATCH))

    def get_next(self) -> dict[str, Any] | None:
        part = next(self.parts, None)
        return None if part is None else {self.name: part.numpy()}


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser logs advice to people who call it by hand."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
