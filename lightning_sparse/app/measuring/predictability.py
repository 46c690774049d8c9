"""How much of what each layer computes a few of its weights tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, or_null, seed
from lightning_sparse.errors import SparsityError, check_share
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


def _shares(name: str, value: Any) -> None:
    if not isinstance(value, list) or not value:
        raise SparsityError(f"{name}={value!r} is not a list of shares in (0, 1): write {name}=[0.05,0.25]")
    for share in value:
        if not check_share(name, share, one_allowed=False):
            raise SparsityError(
                f"{name}={value!r} hold 0, from which nothing can be predicted: write {name}=[0.05,0.25]"
            )


def _measure(trained: Trained, settings: Settings) -> Measured:
    return measure.measure_predictability(
        trained.model,
        trained.test(settings),
        settings["shares"],
        train_data=trained.other("train", settings["train_images"]),
        untrained=trained.untrained().to(trained.device) if trained.untrained else None,
        seed=settings["seed"],
    )


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    measure.measure_predictability(model, few, settings["shares"][:1])


PREDICTABILITY = Kind(
    "predictability",
    settings=in_group("predictability"),
    values={
        "images": or_null(count(0, write=1000)),
        "train_images": or_null(count(1, write=2000)),
        "shares": _shares,
        "seed": seed,
    },
    train_images="train_images",
    try_on=_try,
    measure=at_once(_measure),
)
