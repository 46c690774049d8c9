"""How many bytes a sparse network takes on disk in real formats: each is encoded, and can be decoded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
from torch import Tensor, nn

from lightning_sparse.anatomy.living import living_of, rest_of
from lightning_sparse.compress.codecs import as_matrix, to_bitmap, to_csr, to_entropy, torch_csr_bytes
from lightning_sparse.measure.arrays import check_weight_masks
from lightning_sparse.measure.classifier import as_classifier
from lightning_sparse.results.records import Measured, Record

_HOW = {
    "dense": "float32 for every connection",
    "bitmap": "1 bit a connection, float32 for the living",
    "csr": "float32 and a 32-bit column a living one, 32-bit row ends",
    "entropy": "masks (bits or gaps in bytes) by lzma, float32 in byte planes by zlib, all lossless",
    "torch_csr": "torch.sparse_csr: float32, 64-bit indices",
}


def storage_formats(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> Measured:
    """Encode the weights of a model in several formats and count the bytes.

    Which is smallest depends on the density: an index costs more than a weight saves until few are left (Hoefler et al.
    2021, arXiv 2102.00554, section 2.2). Weights are stored as float32, exactly. What is not a sparsifiable weight (biases,
    norms, buffers) is counted dense in every format, floats in 4 bytes. Names and shapes belong to the architecture and are
    not counted.

    Args:
        model: any module; it is not run.
        masks: by parameter name, True where a connection lives, such as :class:`~lightning_sparse.Masks`; without them
            zeros of sparsifiable weights are dead.

    Returns:
        One record a format, in bytes: ``cost_bytes_dense``; ``cost_bytes_bitmap`` (one bit a connection and the living
        values); ``cost_bytes_csr`` (32-bit columns and row pointers, a convolution as a matrix of out rows);
        ``cost_bytes_entropy`` (mask and values compressed without loss); ``cost_bytes_torch_csr`` (what a
        ``torch.sparse_csr`` tensor holds, with its 64-bit indices: more than dense above a density of about 1/3).

    Raises:
        SparsityError: if the masks do not fit the model, or a dead connection is not zero.

    Example:
        >>> import torch
        >>> net = nn.Linear(1000, 100, bias=False)
        >>> weight = torch.zeros(100, 1000)
        >>> weight[:, :100] = torch.rand(100, 100)  # one in ten lives
        >>> _ = net.weight.data.copy_(weight)
        >>> {row.metric: int(row.value) for row in storage_formats(net).records[:3]}
        {'cost_bytes_dense': 400000, 'cost_bytes_bitmap': 52500, 'cost_bytes_csr': 80404}
    """
    model = as_classifier(model).model
    check_weight_masks(masks, dict(model.named_parameters()))
    found = living_of(model, masks)
    layers = [(as_matrix(weight), as_matrix(alive)) for weight, alive in found.values()]
    rest = sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in rest_of(model, found))
    sizes = {
        "dense": sum(weight.nbytes for weight, _ in layers),
        "bitmap": _sizes(to_bitmap(*layer) for layer in layers),
        "csr": _sizes(to_csr(*layer) for layer in layers),
        "entropy": len(to_entropy(layers)),
        "torch_csr": sum(map(torch_csr_bytes, *zip(*layers, strict=True))),
    }
    living, total = (sum(int(alive.sum()) for _, alive in layers), sum(weight.size for weight, _ in layers))
    aside = f"{living} of {total} connections live; {rest} bytes of biases, norms and buffers, dense, are in it"
    return Measured(
        [Record(f"cost_bytes_{name}", size + rest, 0, detail=f"{_HOW[name]}; {aside}") for name, size in sizes.items()]
    )


def _sizes(layers: Iterator[tuple[npt.NDArray[Any], ...]]) -> int:
    return sum(part.nbytes for layer in layers for part in layer)
