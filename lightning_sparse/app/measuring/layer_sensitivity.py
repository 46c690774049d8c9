"""What the network loses when one layer alone is pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, or_null, seed, text
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAIN_IMAGES = 1000  # to estimate BatchNorm for each of the pruned networks


def _sparsities(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise SparsityError(f"{name}={value!r} is not a list of shares in (0, 1): write {name}=[0.5,0.9]")
    for share in value:
        if not check_share(name, share, one_allowed=False):
            raise SparsityError(f"{name}={value!r} hold 0, which is measured in any case: write {name}=[0.5,0.9]")


def _measured(model: nn.Module, data: Any, settings: Settings, train_data: Any = None) -> Measured:
    return measure.measure_sensitivity_of_layers(
        model,
        data,
        sparsities=settings["sparsities"],
        granularity=settings["granularity"],
        train_data=train_data,
        seed=settings["seed"],
    )


def _measure(trained: Trained, settings: Settings) -> Measured:
    anew = settings.get("batchnorm") == "recalibrated"
    train_data = trained.other("train", TRAIN_IMAGES) if anew and measure.has_batchnorm(trained.model) else None
    return _measured(trained.model, trained.test(settings), settings, train_data)


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    _measured(model, few, {**settings, "sparsities": [max(settings["sparsities"])]})


LAYER_SENSITIVITY = Kind(
    "layer_sensitivity",
    settings=in_group("layer_sensitivity"),
    values={
        "images": or_null(count(0, write=256)),
        "sparsities": _sparsities,
        "granularity": text("channels"),
        "seed": seed,
    },
    try_on=_try,
    measure=at_once(_measure),
)
