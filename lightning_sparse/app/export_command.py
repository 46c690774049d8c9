"""The command ``lightning-sparse-export``: the trained network of a job, made small in truth, in files beside it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.errors import SparsityError, check_choice
from lightning_sparse.results.text_table import text_table

BATCH = 128

if TYPE_CHECKING:
    from lightning_sparse.engine.masks import Masks
    from lightning_sparse.results.jobs import Job


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the files, print a table of them and where they are, or one line of what is wrong, and exit with 2."""
    given = _parser().parse_args(arguments)
    try:
        _check_values(given.values)
        trained = _trained(Path(given.checkpoint))
        folder = Path(given.to) if given.to else trained.job.folder
        print(_table(list(_rows(trained, folder, given))))
        if given.time:
            print(_times(trained))
    except (SparsityError, OSError) as error:
        print(f"lightning-sparse-export: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{trained.said}files: {folder.resolve()}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-sparse-export",
        description="Export the trained network of a job: network.packed, its masks and values as few bytes, which "
        "lightning_sparse.export.load_packed loads into a network of the same architecture.",
        epilog="example: lightning-sparse-export outputs/quick/gradual_pruning-0.9-seed0-1a2b3c4d --values bfloat16",
    )
    parser.add_argument("checkpoint", metavar="CKPT", help="a job's folder, or a checkpoint in it, such as model.ckpt")
    parser.add_argument("--to", metavar="DIR", help="where the files go (default: the job's folder)")
    parser.add_argument(
        "--values",
        default="float32",
        metavar="KIND",
        help="how numbers are kept: float32 (exactly, the default), bfloat16, or int8 to int2 for the weights",
    )
    parser.add_argument("--shrink", action="store_true", help="also without the units that carry nothing, packed")
    parser.add_argument("--onnx", action="store_true", help="also network.onnx, checked against the network")
    parser.add_argument("--time", action="store_true", help="also time every form beside the dense network")
    return parser


def _check_values(values: str) -> None:
    from lightning_sparse.export.packed import VALUES

    check_choice("--values", values, VALUES)


@dataclass(frozen=True)
class _Trained:
    job: Job
    checkpoint: Path
    model: Any
    masks: Masks | None
    said: str  # what was done to the model after training, as it was measured


@dataclass(frozen=True)
class _Row:
    what: str
    bytes: int
    where: Path | None = None


def _rows(trained: _Trained, folder: Path, given: argparse.Namespace) -> Iterator[_Row]:
    """A line of the table for each way to keep the network; the first is what all are compared with."""
    yield _dense(trained)
    yield _checkpoint(trained)
    yield _packed(trained, folder, given.values)
    if given.shrink:
        yield _shrunk(trained, folder, given.values)
    if given.onnx:
        yield _onnx(trained, folder)


def _times(trained: _Trained) -> str:
    from lightning_sparse.export import finalise

    found = finalise(trained.model, None, _example(trained))
    return f"\nbatches of {BATCH}, on this machine:\n{found.table()}"


def _example(trained: _Trained) -> Any:
    from lightning_sparse.app.build import stored_data

    return stored_data(trained.job).split("test")[0][:BATCH]


def _dense(trained: _Trained) -> _Row:
    from lightning_sparse.anatomy.living import rest_of

    tensors = rest_of(trained.model, {})
    narrower = 4 * sum(trained.masks.removed) if trained.masks else 0  # what Shrink has removed
    sizes = (t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in tensors)
    return _Row("dense float32", narrower + sum(sizes))


def _checkpoint(trained: _Trained) -> _Row:
    return _Row("checkpoint", trained.checkpoint.stat().st_size, trained.checkpoint)


def _packed(trained: _Trained, folder: Path, values: str) -> _Row:
    from lightning_sparse.export import save_packed

    path = folder / "network.packed"
    save_packed(trained.model, trained.masks, path, values=values)
    return _Row(f"packed, {values}", path.stat().st_size, path)


def _shrunk(trained: _Trained, folder: Path, values: str) -> _Row:
    from lightning_sparse.export import save_packed, shrink

    path, small = folder / "shrunk.packed", shrink(trained.model, _example(trained)[:2], fold=False)
    save_packed(small.model, None, path, values=values)
    return _Row(f"shrunk and packed, {values}", path.stat().st_size, path)


def _onnx(trained: _Trained, folder: Path) -> _Row:
    from lightning_sparse.export import to_onnx

    file = to_onnx(trained.model, _example(trained)[:2], folder / "network.onnx")
    return _Row("ONNX, dense", file.bytes, file.path)


def _table(rows: list[_Row]) -> str:
    cells = [("what", "bytes", "of dense", "where")]
    for row in rows:
        cells.append((row.what, f"{row.bytes:,}", f"{row.bytes / rows[0].bytes:.4f}", str(row.where or "")))
    return text_table(cells, "<>><")


def _trained(path: Path) -> _Trained:
    """Build the network of a job again, as it was measured, on the CPU."""
    from lightning_sparse.results.jobs import read_job

    if not path.exists() and not (path.parent / "job.json").exists():
        raise SparsityError(f"{str(path)!r} does not exist: give a job's folder, as they lie in outputs/quick")
    folder = path if path.is_dir() else path.parent
    job = read_job(folder / "job.json")
    if job is None or not (folder / ".hydra" / "config.yaml").exists():
        jobs = sorted(job.parent for job in path.glob("*/job.json"))
        instead = f"write lightning-sparse-export {jobs[0]}, or" if jobs else "give one that a sweep has made, or"
        raise SparsityError(
            f"{str(path)!r} is no job's folder and no checkpoint in one (no job.json with .hydra/config.yaml, from which the "
            f"network is built): {instead} build the network and call lightning_sparse.export.save_packed"
        )
    checkpoint = job.checkpoint if path.is_dir() else path
    if not checkpoint.exists():
        state = "it has failed" if job.status == "failed" else "its training has not ended"
        raise SparsityError(f"{str(checkpoint)!r} does not exist ({state}): launch the job again, or give another one")
    from lightning_sparse.anatomy.selecting import selecting
    from lightning_sparse.app.build import masks_of_zeros, stored_masks, stored_model_as_measured

    try:
        model, said = stored_model_as_measured(job, checkpoint)
        if selecting(model):
            raise SparsityError(
                f"{str(checkpoint)!r}: its layers read few of their inputs ({job.model}), and an exported network would read "
                "all: give a network trained with activation=none"
            )
        masks = masks_of_zeros(model) if job.compressed else stored_masks(checkpoint)
    except SparsityError:
        raise
    except Exception as error:  # of a class of the user's own, or of a checkpoint that has other layers
        raise SparsityError(
            f"{str(checkpoint)!r}: its network cannot be built again from {folder / '.hydra' / 'config.yaml'} "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
    return _Trained(job, checkpoint, model.cpu(), masks, f"{said}\n" if said else "")


if __name__ == "__main__":
    main()
