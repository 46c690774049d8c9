"""Checkpoints that are given to us: read, and refused in one sentence if they are none."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_sparse.errors import SparsityError

STATE: dict[str, type] = {"recipe": Mapping, "plan": Mapping, "clock": int, "masks": Mapping, "history": list}
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # what torch.save began with before it wrote zip files


def read_checkpoint(path: str | Path, *, trusted: bool = False, mmap: bool = False) -> dict[str, Any]:
    """Read a file of ``torch.save`` that holds a dict, on the CPU.

    Args:
        path: of the file.
        trusted: read objects of any class too, because we wrote it ourselves.
        mmap: read tensors only when they are used.

    Raises:
        SparsityError: if there is no such file, if it is no checkpoint or was cut, or if it holds something else.
        UnpicklingError: if it is a whole checkpoint with objects that are read only if it is trusted.

    Example:
        >>> read_checkpoint("no/such.ckpt")
        Traceback (most recent call last):
        lightning_sparse.SparsityError: 'no/such.ckpt' does not exist: give the path of a checkpoint, such as last.ckpt
    """
    path = Path(path)
    if not path.exists():
        raise SparsityError(f"{str(path)!r} does not exist: give the path of a checkpoint, such as last.ckpt")
    if path.is_dir():
        found = sorted(path.glob("**/*.ckpt"))
        which = str(found[-1] if found else path / "last.ckpt")
        raise SparsityError(f"{str(path)!r} is a folder, and no checkpoint: give the path of a file, such as {which!r}")
    new = zipfile.is_zipfile(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=not trusted, mmap=mmap and new)
    except UnpicklingError as error:
        if trusted or not _is_whole(path, new):
            raise _no_checkpoint(path) from error
        raise
    except PermissionError as error:
        raise SparsityError(
            f"{str(path)!r} may not be read by you: ask its owner for it, or give another one"
        ) from error
    except Exception as error:  # whatever a file of another kind makes torch's reader raise
        raise _no_checkpoint(path) from error
    if not mmap:
        check_checksums(path)
    if not isinstance(content, dict):
        raise SparsityError(f"{str(path)!r} holds a {type(content).__name__}, and no checkpoint, which is a dict")
    return content


def _no_checkpoint(path: Path) -> SparsityError:
    size = path.stat().st_size
    return SparsityError(
        f"{str(path)!r} is no checkpoint, or truncated ({size:,} bytes): give a file that a Trainer or torch.save wrote to "
        "its end; if it was copied or downloaded, do so again"
    )


def check_checksums(path: str | Path) -> None:
    """Raise a SparsityError if a byte of a checkpoint is wrong: torch does not look at the checksums that it writes."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as file:
        names, bad = file.namelist(), file.testzip()
    if bad and bad != names[0]:  # if the first is wrong too, its writer left them out (torch's crc32 options)
        raise SparsityError(
            f"{str(path)!r} is damaged (the checksum of {bad!r} is wrong): copy or download it again, or take another one"
        )


def _is_whole(path: Path, new: bool) -> bool:
    if not new:
        with path.open("rb") as file:
            return file.read(len(_OLD_FORMAT)) == _OLD_FORMAT
    with zipfile.ZipFile(path) as file:
        return any(name.endswith("data.pkl") for name in file.namelist())


def mentions(path: str | Path, word: str) -> bool:
    """Whether a checkpoint has a word among its names, without making any of the objects in it."""
    if not zipfile.is_zipfile(path):
        return word.encode() in Path(path).read_bytes()
    with zipfile.ZipFile(path) as file:
        return any(word.encode() in file.read(name) for name in file.namelist() if name.endswith("data.pkl"))


def _check_packed(name: str, entry: Any) -> None:
    if not isinstance(entry, Mapping) or not {"bits", "shape"} <= set(entry):
        raise damaged(f"the mask of {name!r} is no packed mask")
    bits, shape = entry["bits"], entry["shape"]
    if not isinstance(shape, list | tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise damaged(f"the mask of {name!r} has the shape {shape!r:.60}")
    count = int(np.prod(shape, dtype=np.float64))
    if not isinstance(bits, Tensor) or bits.dtype != torch.uint8 or bits.dim() != 1:
        raise damaged(f"the mask of {name!r} does not hold bytes")
    if len(bits) != -(-count // 8):
        raise damaged(
            f"the mask of {name!r} has {len(bits)} bytes, and {-(-count // 8)} belong to its shape {list(shape)}"
        )
    if count % 8 and int(bits[-1]) & (0xFF >> count % 8):
        raise damaged(f"the mask of {name!r} has more connections than its shape {list(shape)}")


def check_state(state: Any) -> None:
    """Raise a SparsityError unless this is what an engine's ``state_dict()`` gives."""
    if not isinstance(state, Mapping):
        raise damaged(f"it is a {type(state).__name__}")
    for name, kind in STATE.items():
        if not isinstance(state.get(name), kind):
            raise damaged(f"its {name!r} is {state.get(name)!r:.60}" if name in state else f"it has no {name!r}")
    check_masks(state)


def check_masks(state: Mapping[str, Any]) -> None:
    """Raise a SparsityError unless the masks of a state are as :func:`~lightning_sparse.engine.masks.pack_bits` gives."""
    if not isinstance(state.get("masks"), Mapping):
        raise damaged("it has no masks")
    for name, entry in state["masks"].items():
        _check_packed(name, entry)


def damaged(what: str) -> SparsityError:
    """What is raised for a state that cannot have been saved so."""
    return SparsityError(
        f"the checkpoint's sparse state is damaged ({what}): take another checkpoint, or start a new training from its "
        "weights"
    )
