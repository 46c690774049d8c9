"""The file that a Trainer goes on from: where Lightning cannot read it, what it is instead is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from lightning.pytorch import Trainer

from lightning_sparse.engine.checkpoints import check_checksums, mentions, read_checkpoint
from lightning_sparse.errors import SparsityError

VERSION = "pytorch-lightning_version"
"""What every checkpoint of a Trainer has."""


def explain_ckpt_path(trainer: Trainer) -> None:
    """Let the next loading of a checkpoint refuse what is no Trainer's checkpoint with a SparsityError.

    In ``setup``, where this is called, a Trainer does not know which file it will load. :func:`stop_explaining` undoes it.
    """
    strategy: Any = trainer.strategy
    stop_explaining(trainer)
    load = strategy.load_checkpoint

    def explained(path: Any, *arguments: Any, **named: Any) -> Any:
        stop_explaining(trainer)
        local = "://" not in str(path)
        try:
            content = load(path, *arguments, **named)
        except Exception:
            if local:
                _refuse_no_checkpoint(Path(path))
            raise
        if local and not (isinstance(content, dict) and {"state_dict", VERSION} <= content.keys()):
            raise _not_a_trainers(path, _holds(content))
        if local:
            check_checksums(path)
        return content

    strategy.load_checkpoint = explained


def stop_explaining(trainer: Trainer) -> None:
    """Leave the Trainer as it was."""
    vars(trainer.strategy).pop("load_checkpoint", None)


@contextmanager
def restoring(name: str) -> Iterator[None]:
    """Turn what a state of another form makes a callback raise into a SparsityError that names the callback."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SparsityError(
            f"the checkpoint's state of {name} is damaged ({type(error).__name__}: {error}): take another checkpoint, or "
            f"leave {name} out of the callbacks"
        ) from error


def _refuse_no_checkpoint(path: Path) -> None:
    try:
        read_checkpoint(path, mmap=True)
    except UnpicklingError as error:
        # Of a Trainer's checkpoint that holds objects of other classes, what Lightning says of weights_only is right.
        if not mentions(path, VERSION):
            raise _not_a_trainers(path, "objects") from error


def _holds(content: Any) -> str:
    if not isinstance(content, dict):
        return f"a {type(content).__name__}"
    return "weights alone" if content else "nothing"


def _not_a_trainers(path: Any, holds: str) -> SparsityError:
    return SparsityError(
        f"ckpt_path={str(path)!r} holds {holds}, and not what a Trainer has saved: to start from weights, write "
        "model.load_state_dict(torch.load(path)) before the fit and leave ckpt_path out"
    )
