"""What a packed file holds, looked at without a model."""

from __future__ import annotations

from pathlib import Path

from lightning_sparse.export.packed_file import check_path, read_packed


def packed_table(path: str | Path) -> str:
    """A table, as text, of what a packed file holds: by layer its shape, living weights, and the bytes of mask and values.

    The model is not needed, and nothing is decoded. The last line has the size of the file as a share of all tensors stored
    dense in float32 and in float16.

    Args:
        path: of the file.

    Raises:
        SparsityError: if it is no packed file, or one that is truncated, damaged or of a newer format.

    Example:
        >>> import tempfile, torch
        >>> from torch import nn
        >>> from lightning_sparse.export import save_packed
        >>> net = nn.Sequential(nn.Linear(100, 50), nn.ReLU(), nn.Linear(50, 10))
        >>> for layer in (net[0], net[2]):
        ...     _ = layer.weight.data.copy_(torch.arange(layer.weight.numel()).view_as(layer.weight) % 10 == 0)
        ...     _ = layer.bias.data.fill_(0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_packed(net, None, f"{folder}/net.packed", values="int4")
        ...     print(packed_table(f"{folder}/net.packed").rpartition("total")[0])
        layer     shape       numbers  living  values    mask bytes  value bytes
        0.weight  50 x 100       5000     500  int4             100           28
        2.weight  10 x 50         500      50  int4              24           28
        2 others  float32          60      60  bfloat16           0           36
        <BLANKLINE>
    """
    packed = read_packed(check_path(path))
    cells = [("layer", "shape", "numbers", "living", "values", "mask bytes", "value bytes")]
    for part in packed.parts:
        what = part.names[0] if part.sparse else f"{len(part.names)} others"
        shape = " x ".join(map(str, part.shapes[0])) if part.sparse else part.dtype
        bytes_of = (str(len(part.mask)), str(len(part.values)))
        cells.append((what, shape, str(part.size), str(part.living), part.coded, *bytes_of))
    sparse = [part for part in packed.parts if part.sparse]
    mask, values = (sum(len(getattr(part, what)) for part in packed.parts) for what in ("mask", "values"))
    numbers, living = sum(part.size for part in sparse), sum(part.living for part in sparse)
    cells.append(("total", "of layers:", str(numbers), str(living), "", str(mask), str(values)))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(f"{c:{s}{w}}" for c, s, w in zip(row, "<<>><>>", widths, strict=True)) for row in cells]
    shares = ", ".join(f"{packed.bytes / max(1, packed.dense_bytes(n)):.4f} of float{8 * n}" for n in (4, 2))
    said = f"{packed.bytes} bytes with names and checksum: {shares}, all dense; written by lightning-sparse {packed.library}"
    return "\n".join([*(line.rstrip() for line in lines), said])
