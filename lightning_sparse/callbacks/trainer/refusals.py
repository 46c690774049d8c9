"""What callbacks refuse before any time is spent on training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.scores.of_network import check_forward, synflow
from lightning_sparse.errors import SparsityError

_SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "ModelParallelStrategy")


def refuse_sharded(trainer: Trainer, therefore: str) -> None:
    """Refuse strategies under which no rank has a whole weight; ``therefore`` says what cannot be done."""
    for kind in type(trainer.strategy).__mro__:
        if kind.__name__ in _SHARDED:
            raise SparsityError(
                f"strategy={kind.__name__} keeps a shard of each weight on a rank, so that {therefore}: "
                "use strategy='ddp' or 'ddp_spawn', or one device"
            )


def refuse_by_hand(recipe: Recipe, loss_fn: object) -> None:
    """Refuse recipes that need what manual optimization does not tell: the training's length, or the one loss of a step."""
    recipe.resolve(None)  # shares need total_steps
    if recipe.reads_a_loss and loss_fn is None:
        raise SparsityError(
            f"{recipe.reads_batches[0]} needs a loss, and training_step has no single loss under manual optimization: "
            "give loss_fn=(module, batch) -> loss"
        )


def refuse_no_forward(recipe: Recipe, module: nn.Module) -> None:
    """Refuse SynFlow on a module that leaves ``forward`` undefined."""
    if any(score is synflow for score in recipe.scores.values()):
        check_forward(module)


def refuse_rewinding_beside(recipes: Sequence[Recipe]) -> None:
    """Refuse to rewind a model of which another callback makes a part sparse."""
    if len(recipes) > 1 and any(recipe.rewind for recipe in recipes):
        raise SparsityError(
            "rewinding takes the whole model back, including the dead connections of another sparsity callback: let one "
            "callback make all of it sparse, or leave out rewind= (a lottery ticket)"
        )


def refuse_shared(mine: Mapping[str, Tensor], others: Mapping[str, Tensor], whose: Sequence[object]) -> None:
    """Refuse two callbacks that want the same parameter."""
    theirs = {id(parameter) for parameter in others.values()}
    shared = next((name for name, parameter in mine.items() if id(parameter) in theirs), None)
    if shared is not None:
        names = " and ".join(type(callback).__name__ for callback in whose)
        raise SparsityError(
            f"two sparsity callbacks both want {shared!r} ({names}): give each parameter to one of "
            "them with include and exclude"
        )
