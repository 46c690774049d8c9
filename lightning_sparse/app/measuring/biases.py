"""Inductive biases: locality, weight sharing, shifts and memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse import measure
from lightning_sparse.app.measuring.kind import Kind, Settings, at_once, in_group
from lightning_sparse.app.measuring.trained import Trained
from lightning_sparse.app.values import count, or_null, seed
from lightning_sparse.results.records import Measured

if TYPE_CHECKING:
    from torch import Tensor, nn


def _measure(trained: Trained, settings: Settings) -> Measured:
    data, calibration = trained.test(settings), trained.other("validation")
    return measure.measure_biases(
        trained.model, data, masks=trained.masks, calibration=calibration, seed=settings["seed"]
    )


def _try(model: nn.Module, few: tuple[Tensor, Tensor], settings: Settings) -> None:
    measure.measure_biases(model, few)


BIASES = Kind(
    "biases",
    settings=in_group("biases"),
    values={"images": or_null(count(0, write=256)), "seed": seed},
    try_on=_try,
    measure=at_once(_measure),
    of_texts=False,
)
